"""Which of many overlapping answers stay: Matrix NMS of PP-YOLO, and the greedy one per class of the others."""

from __future__ import annotations

import torch
from torchvision.ops import batched_nms, box_iou

from inference.nets.detector_images import Detections

LEAST = 0.01  # score, before and after: PaddleDetection's for all three
CANDIDATES, KEPT = 1000, 100
OVERLAP = 0.45  # IoU of the greedy one


def matrix(boxes: torch.Tensor, scores: torch.Tensor) -> Detections:
    """Boxes (n, 4) with scores of classes (n, classes): a score falls with the IoU of better boxes of its class.

    SOLOv2 (Wang et al. 2020, arXiv 2003.10152, section 3.3.2) with the linear decay.
    """
    found = _candidates(boxes, scores)
    if not len(found["scores"]):
        return found
    same = found["labels"][:, None] == found["labels"]
    overlap = (box_iou(found["boxes"], found["boxes"]) * same).triu(1)  # [i, j]: i is the better one
    suppressed = overlap.amax(0)  # how likely i itself is a duplicate
    decay = (1 - overlap) / (1 - suppressed).clamp(min=1e-6)[:, None]
    found["scores"] = found["scores"] * decay.amin(0)
    order = found["scores"].argsort(descending=True, stable=True)[:KEPT]
    order = order[found["scores"][order] >= LEAST]
    return {name: values[order] for name, values in found.items()}


def greedy(boxes: torch.Tensor, scores: torch.Tensor) -> Detections:
    """Boxes (n, 4) with scores of classes (n, classes): the best ones, without those that overlap a better one."""
    found = _candidates(boxes, scores)
    kept = batched_nms(found["boxes"], found["scores"], found["labels"], OVERLAP)[:KEPT]
    return {name: values[kept] for name, values in found.items()}


def _candidates(boxes: torch.Tensor, scores: torch.Tensor) -> Detections:
    """The pairs of box and class that are sure enough, best first; labels from 1."""
    place, label = (scores > LEAST).nonzero(as_tuple=True)
    best = scores[place, label].argsort(descending=True, stable=True)[:CANDIDATES]
    place, label = place[best], label[best]
    return {"boxes": boxes[place], "labels": 1 + label, "scores": scores[place, label]}
