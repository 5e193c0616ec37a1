"""R-CNN and Fast R-CNN: the two slower detectors of the speed table of paper 000 (table 6).

R-CNN (Girshick et al. 2013, arXiv 1311.2524) looks at every proposal apart, Fast R-CNN (Girshick 2015, arXiv
1504.08083) at the image once; both are called as the other detectors are. Where proposals come from is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import relu
from torchvision.models.detection import FasterRCNN
from torchvision.ops import batched_nms, box_convert, box_iou, clip_boxes_to_image, roi_align

from inference import engine
from inference.nets.detector_images import Detections, Target
from inference.nets.faster_rcnn import maps_by_name

#: Pixels: what R-CNN makes of every proposal, and how many of them on each side lie around it (its appendix A).
WARPED, CONTEXT = 227, 16
BACKGROUND, REGRESSED = 0.3, 0.6  # IoU with a box: below the one, R-CNN learns nothing; from the other, it learns edges
HINGE_DECAY, RIDGE = 1e-3, 1000.0  # the latter for a sum over examples, R-CNN appendix C
LEAST = -1.0  # margin: up to here, a no was right in training
OVERLAP = 0.3  # IoU from which a better answer of the class suppresses another

#: A grey image (height, width) 0..255 to boxes (k, 4).
Propose = Callable[[np.ndarray], torch.Tensor]


class FastRCNN(nn.Module):
    """The second stage of a Faster R-CNN on proposals from elsewhere: learns and answers like the whole."""

    def __init__(self, net: FasterRCNN, propose: Propose) -> None:
        super().__init__()
        self.transform, self.backbone, self.roi_heads = net.transform, net.backbone, net.roi_heads
        self.propose = propose

    def forward(
        self, images: list[torch.Tensor], targets: list[Target] | None = None
    ) -> dict[str, torch.Tensor] | list[Detections]:
        """Images (3, height, width) 0..1 to losses by name in training, detections otherwise."""
        proposals = [self.propose(_grey(image)).to(image.device) for image in images]
        batch, targets = self.transform(images, targets)
        maps = maps_by_name(self.backbone, batch.tensors)
        found, losses = self.roi_heads(maps, proposals, batch.image_sizes, targets)
        answer: dict[str, torch.Tensor] | list[Detections] = losses if self.training else found
        return answer


@dataclass(frozen=True)
class RCNN:
    """One linear classifier per class and one regression of edges on the features of every warped proposal."""

    #: Images (batch, 3, 227, 227) 0..1 to (batch, n).
    features: nn.Module
    propose: Propose
    #: (n + 1, classes): the last row is the bias. A positive value says yes.
    classifiers: torch.Tensor
    #: (n + 1, 4 x classes): to moves of the centre over the size, and logarithms of the size's growth.
    edges: torch.Tensor

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        """Images (3, height, width) 0..1 to detections; the scores are the margins as probabilities."""
        return [self._answer(image) for image in images]

    def _answer(self, image: torch.Tensor) -> Detections:
        boxes = self.propose(_grey(image)).to(image.device)
        seen = _with_one(_warped_features(self.features, image, boxes))
        margins = seen @ self.classifiers
        box, label = (margins > LEAST).nonzero(as_tuple=True)
        moves = (seen @ self.edges).reshape(len(boxes), -1, 4)
        moved = clip_boxes_to_image(_moved(boxes[box], moves[box, label]), (image.shape[1], image.shape[2]))
        scores = margins[box, label].sigmoid()
        kept = batched_nms(moved, scores, label, OVERLAP)
        return {"boxes": moved[kept], "labels": label[kept] + 1, "scores": scores[kept]}


def fit(
    features: nn.Module, propose: Propose, images: Sequence[torch.Tensor], targets: Sequence[Target], *, classes: int
) -> RCNN:
    """Learn classifiers and edges on fixed features: yes is a true box, no is what overlaps none of its class."""
    seen, answers, wanted = [], [], []
    for image, target in zip(images, targets, strict=True):
        boxes = torch.cat([target["boxes"], propose(_grey(image)).to(image.device)])
        seen.append(_with_one(_warped_features(features, image, boxes)))
        overlaps = _overlaps(boxes, target, classes)
        true = torch.arange(len(boxes), device=image.device) < len(target["boxes"])
        # One yes or no per class; 0 where neither is learnt.
        answers.append(torch.where(overlaps.amax(-1) < BACKGROUND, -1.0, 0.0))
        answers[-1][true] = torch.where(overlaps[true].amax(-1) > 1 - 1e-4, 1.0, answers[-1][true])
        wanted.append(_moves(boxes, target, overlaps))
    table = torch.cat(seen)
    moves, used = (torch.cat(parts) for parts in zip(*wanted, strict=True))
    edges = [_ridge(table[used[:, label]], moves[used[:, label], label]) for label in range(classes)]
    return RCNN(features, propose, _hinge(table, torch.cat(answers)), torch.cat(edges, 1))


def _hinge(table: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """(m, n + 1) and answers (m, classes) 1, -1 or 0 to weights (n + 1, classes): a linear support vector machine.

    Both answers weigh the same in each class: a true box has hundreds of proposals against it.
    """
    weights = torch.zeros(table.shape[1], answers.shape[1], device=table.device, requires_grad=True)
    share = sum((answers == sign) / (answers == sign).sum(0).clamp(min=1) for sign in (1, -1))
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = (relu(1 - answers * (table @ weights)).square() * share).sum() + HINGE_DECAY * weights.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _ridge(table: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(m, n + 1) and (m, 4) to (n + 1, 4): least squares with small weights, in closed form."""
    penalty = RIDGE * torch.eye(table.shape[1], device=table.device)
    weights: torch.Tensor = torch.linalg.solve(table.T @ table + penalty, table.T @ wanted)
    return weights


def _overlaps(boxes: torch.Tensor, target: Target, classes: int) -> torch.Tensor:
    """(boxes, classes, true boxes + 1): IoU with the true boxes of each class, and a column of zeros."""
    of_class = target["labels"] - 1 == torch.arange(classes, device=boxes.device)[:, None]
    iou = box_iou(boxes, target["boxes"])[:, None] * of_class
    return torch.cat([iou, iou.new_zeros(*iou.shape[:2], 1)], -1)


def _moves(boxes: torch.Tensor, target: Target, overlaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each box and class the way to the true box nearest to it (boxes, classes, 4), and whether it is near."""
    best, at = overlaps.max(-1)
    true = torch.cat([target["boxes"], boxes.new_tensor([[0, 0, 1, 1]])])[at]
    middle, size = box_convert(boxes, "xyxy", "cxcywh")[:, None].split(2, -1)
    there, extent = box_convert(true, "xyxy", "cxcywh").split(2, -1)
    return torch.cat([(there - middle) / size, (extent / size).log()], -1), best > REGRESSED


def _moved(boxes: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """The boxes after these moves."""
    middle, size = box_convert(boxes, "xyxy", "cxcywh").split(2, -1)
    moved: torch.Tensor = box_convert(
        torch.cat([middle + moves[:, :2] * size, size * moves[:, 2:].exp()], -1), "cxcywh", "xyxy"
    )
    return moved


def _warped_features(features: nn.Module, image: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Features (k, n) of what is in and around each box, stretched to a square."""
    middle, size = box_convert(boxes, "xyxy", "cxcywh").split(2, -1)
    wider = box_convert(torch.cat([middle, size * WARPED / (WARPED - 2 * CONTEXT)], -1), "cxcywh", "xyxy")

    def one_batch(some: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = features(roi_align(image[None], [some], WARPED, sampling_ratio=1, aligned=True))
        return found

    return engine.in_batches(one_batch, wider, device=image.device).clone()


def _with_one(table: torch.Tensor) -> torch.Tensor:
    return torch.cat([table, torch.ones_like(table[:, :1])], 1)


def _grey(image: torch.Tensor) -> np.ndarray:
    """The first colour of (3, height, width) 0..1, as 0..255."""
    return (image[0] * 255).cpu().numpy()
