"""What the YOLOs minimise. All losses are sums over places, and means over the images of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, one_hot
from torchvision.ops import box_area, box_iou, complete_box_iou_loss

from inference.nets.detector_images import Target
from inference.nets.yolo.assignment import Assigned, best_anchor, similar_anchors
from inference.nets.yolo.boxes import CENTRE, CLASSES, EXTENT, OBJECT, Code, Places, Shapes

IGNORED = 0.7  # IoU with a box from which a place that did not get it need not deny it (YOLOv3, PP-YOLO)
OVERLAP_WEIGHT = 2.5  # PP-YOLO's configuration in PaddleDetection
#: YOLOv5's published weights, for 80 classes and images of 640 pixels; objectness by map, from the finest.
BOX, OBJECTNESS, CLASS, BALANCE = 0.05, 1.0, 0.5, (4.0, 1.0, 0.4)
CLASSES_THERE, SIDE_THERE = 80, 640


@dataclass(frozen=True)
class Said:
    """What the maps say about a batch, and what it is about."""

    #: (images, places, values)
    values: torch.Tensor
    places: Places
    shapes: Shapes
    #: (maps, anchors per map, 2) width and height in pixels.
    anchors: torch.Tensor
    code: Code
    classes: int
    #: Height and width of the batch in pixels.
    size: tuple[int, int]


def paddle(said: Said, targets: Sequence[Target], *, overlap: bool) -> dict[str, torch.Tensor]:
    """The losses of YOLOv3, and with `overlap` those that PP-YOLO adds (arXiv 2007.12099, sections 3.2 and 3.3).

    Details as in PaddleDetection's `yolov3_loss` (Apache-2.0): small boxes count up to twice, and the centre is
    learnt by its distance where Grid Sensitive stretches it, by cross-entropy otherwise.
    """
    truth = best_anchor(targets, said.shapes, said.anchors)
    here, places = said.values[truth.image, truth.place], said.places[truth.place]
    wanted = said.code.encode(truth.boxes, places)
    count = len(said.values)
    weights = truth.weights * (2 - box_area(truth.boxes) / (said.size[0] * said.size[1]))
    if said.code.stretch == 1:
        share = wanted[:, CENTRE].sigmoid()
        centre = binary_cross_entropy_with_logits(here[:, CENTRE], share, reduction="none")
    else:
        centre = l1_loss(said.code.centres(here), said.code.centres(wanted), reduction="none")
    extent = l1_loss(here[:, EXTENT], wanted[:, EXTENT], reduction="none")
    classes = binary_cross_entropy_with_logits(_classes(here, said.classes), _ones(truth, said), reduction="none")
    losses = {
        "centre loss": (centre.sum(1) * weights).sum() / count,
        "size loss": (extent.sum(1) * weights).sum() / count,
        "class loss": (classes.sum(1) * truth.weights).sum() / count,
        "objectness loss": _objectness(said, truth, targets) / count,
    }
    if overlap:
        iou = _overlaps(said.code.decode(here, places), truth.boxes)
        expected = binary_cross_entropy_with_logits(here[:, CLASSES + said.classes], iou.detach(), reduction="none")
        losses["overlap loss"] = OVERLAP_WEIGHT * ((1 - iou.square()) * weights).sum() / count
        losses["expected overlap loss"] = (expected * truth.weights).sum() / count
    return losses


def yolov5(said: Said, targets: Sequence[Target]) -> dict[str, torch.Tensor]:
    """Complete IoU of the boxes, and objectness that is to equal it (docs of YOLOv5, "Architecture", section 4).

    Boxes of images that MixUp faded count as any other, as published.
    """
    truth = similar_anchors(targets, said.shapes, said.anchors)
    here = said.values[truth.image, truth.place]
    boxes = said.code.decode(here, said.places[truth.place])
    count, pairs = len(said.values), max(len(truth.image), 1)
    distance = complete_box_iou_loss(boxes, truth.boxes, reduction="none")
    there = torch.zeros_like(said.values[..., OBJECT])
    there[truth.image, truth.place] = (1 - distance.detach()).clamp(min=0)
    objectness = binary_cross_entropy_with_logits(said.values[..., OBJECT], there, reduction="none")
    lengths = [len(said.anchors[0]) * rows * columns for rows, columns in said.shapes]
    balanced = [weight * part.mean() for weight, part in zip(BALANCE, torch.split(objectness, lengths, 1), strict=True)]
    classes = binary_cross_entropy_with_logits(_classes(here, said.classes), _ones(truth, said), reduction="none")
    scale = said.size[0] * said.size[1] / SIDE_THERE**2
    return {
        "box loss": BOX * count * distance.sum() / pairs,
        "objectness loss": OBJECTNESS * count * scale * torch.stack(balanced).sum(),
        "class loss": CLASS * count * classes.sum() / (pairs * CLASSES_THERE),
    }


def _objectness(said: Said, truth: Assigned, targets: Sequence[Target]) -> torch.Tensor:
    """Yes where a box was assigned; no elsewhere, unless the place found a box well enough to be excused."""
    there = torch.zeros_like(said.values[..., OBJECT])
    there[truth.image, truth.place] = truth.weights
    with torch.no_grad():
        boxes = said.code.decode(said.values, said.places)
        covered = [box_iou(some, target["boxes"]) for some, target in zip(boxes, targets, strict=True)]
        excused = torch.stack([(one > IGNORED).any(1) for one in covered])
    positive = there > 0
    loss = binary_cross_entropy_with_logits(said.values[..., OBJECT], positive.float(), reduction="none")
    return (loss * torch.where(positive, there, (~excused).float())).sum()


def _classes(here: torch.Tensor, classes: int) -> torch.Tensor:
    return here[:, CLASSES : CLASSES + classes]


def _ones(truth: Assigned, said: Said) -> torch.Tensor:
    return one_hot(truth.labels, said.classes).float()


def _overlaps(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU of boxes (m, 4) with their counterparts, with a gradient."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    iou: torch.Tensor = shared / (box_area(boxes) + box_area(others) - shared).clamp(min=1e-9)
    return iou
