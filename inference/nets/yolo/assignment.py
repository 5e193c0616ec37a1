"""Which place has to find which box, while learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision.ops import box_convert, box_iou

from inference.nets.detector_images import Target
from inference.nets.yolo.anchors import PER_MAP
from inference.nets.yolo.boxes import STRIDES, Shapes, place

RATIO = 4.0  # YOLOv5: an anchor learns what is at most so much longer or shorter in width and in height
NEAR = 0.5  # cells: a neighbouring cell is as good as this


@dataclass(frozen=True)
class Assigned:
    """Pairs of a place and a box; a box can have several places, or none."""

    #: (m,) position of the image in the batch.
    image: torch.Tensor
    #: (m,) position in the row of places.
    place: torch.Tensor
    #: (m, 4) left, top, right, bottom in pixels.
    boxes: torch.Tensor
    #: (m,) from 0.
    labels: torch.Tensor
    #: (m,) how much the box counts: less than 1 in an image that MixUp faded.
    weights: torch.Tensor


def best_anchor(targets: Sequence[Target], shapes: Shapes, anchors: torch.Tensor) -> Assigned:
    """One place for each box: the cell of its centre, the anchor of the most similar size (YOLOv3, PP-YOLO)."""
    truth = _together(targets)
    middle, size = box_convert(truth.boxes, "xyxy", "cxcywh").split(2, -1)
    corner = anchors.new_zeros(1, 2)
    flat = anchors.flatten(0, 1)
    similar = box_iou(*(torch.cat([corner.expand(len(some), -1), some], 1) for some in (size, flat)))
    best = similar.argmax(1)
    return _placed(truth, best, _cells(middle, best, shapes), shapes)


def similar_anchors(targets: Sequence[Target], shapes: Shapes, anchors: torch.Tensor) -> Assigned:
    """Every anchor within `RATIO` of the size, in the cell of the centre and in its two nearest neighbours (YOLOv5)."""
    truth = _together(targets)
    middle, size = box_convert(truth.boxes, "xyxy", "cxcywh").split(2, -1)
    ratio = size[:, None] / anchors.flatten(0, 1)
    box, anchor = (torch.maximum(ratio, 1 / ratio).amax(-1) < RATIO).nonzero(as_tuple=True)
    truth, middle = _chosen(truth, box), middle[box]
    strides = torch.tensor(STRIDES, device=anchors.device)[anchor // PER_MAP, None]
    position = middle / strides
    within, sides = position % 1, _limits(shapes, anchor)
    # The nearest neighbours are on the side of the cell's edge from which the centre is less than half a cell away.
    before = (within < NEAR) & (position > 1)
    after = (within >= NEAR) & (position < sides - 1)
    own = torch.ones_like(before[:, 0])
    near = torch.stack([own, before[:, 0], before[:, 1], after[:, 0], after[:, 1]])  # (5, pairs)
    moves = torch.tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]], device=anchors.device)
    move, pair = near.nonzero(as_tuple=True)
    cells = _cells(middle[pair], anchor[pair], shapes) + moves[move]
    return _placed(_chosen(truth, pair), anchor[pair], cells, shapes)


def _together(targets: Sequence[Target]) -> Assigned:
    """The boxes of all images, still without places."""
    counts = torch.tensor([len(target["labels"]) for target in targets])
    labels = torch.cat([target["labels"] for target in targets]) - 1
    image = torch.arange(len(targets)).repeat_interleave(counts).to(labels.device)
    weights = [target.get("weights", torch.ones(len(target["labels"]), device=labels.device)) for target in targets]
    return Assigned(image, image, torch.cat([target["boxes"] for target in targets]), labels, torch.cat(weights))


def _chosen(truth: Assigned, rows: torch.Tensor) -> Assigned:
    values = (truth.image, truth.place, truth.boxes, truth.labels, truth.weights)
    return Assigned(*(value[rows] for value in values))


def _cells(middle: torch.Tensor, anchor: torch.Tensor, shapes: Shapes) -> torch.Tensor:
    """(m, 2) the cells of centres; a centre on the last edge belongs to the last cell."""
    strides = torch.tensor(STRIDES, device=middle.device)[anchor // PER_MAP, None]
    return torch.minimum((middle / strides).long(), _limits(shapes, anchor) - 1)


def _limits(shapes: Shapes, anchor: torch.Tensor) -> torch.Tensor:
    """(m, 2) columns and rows of the map of each anchor."""
    sides = torch.tensor([(columns, rows) for rows, columns in shapes], device=anchor.device)
    return sides[anchor // PER_MAP]


def _placed(truth: Assigned, anchor: torch.Tensor, cells: torch.Tensor, shapes: Shapes) -> Assigned:
    at = place(shapes, anchor, cells, per_map=PER_MAP)
    return Assigned(truth.image, at, truth.boxes, truth.labels, truth.weights)
