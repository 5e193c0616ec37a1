"""The four steps in which papers 000 (section 5.3) and Ren et al. 2015 (section 3.2) train Faster R-CNN.

Proposals and detection first learn apart, each with convolutions of its own; then both on those of the detection,
which no longer change. To learn all at once, give the net itself to `inference.training.detection.train`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops import box_iou

from inference.nets.detector_images import Detections, Target
from inference.nets.faster_rcnn import maps_by_name
from inference.training import detection, loop
from inference.training.detection import DetectionData, DetectionSettings

logger = logging.getLogger(__name__)

FOUND = 0.5  # IoU from which a proposal has found a box


class Step(nn.Module):
    """A Faster R-CNN of which only some parts learn; the others keep weights and statistics bit by bit.

    If "rpn" learns, the losses are those of the proposals, and answers are the proposals without scores. Otherwise
    the losses are those of the detection in the regions that `proposer` proposes, or the net itself.
    """

    def __init__(self, net: FasterRCNN, learning: Sequence[str], proposer: FasterRCNN | None = None) -> None:
        super().__init__()
        self.net, self.learning, self.proposer = net, tuple(learning), proposer
        self.requires_grad_(False)
        for part in self.learning:
            getattr(net, part).requires_grad_(True)

    def train(self, mode: bool = True) -> Step:
        """Only what learns goes into training mode: a normalisation would take statistics."""
        super().train(False)
        self.training = mode
        for part in self.learning:
            getattr(self.net, part).train(mode)
        return self

    def forward(
        self, images: list[torch.Tensor], targets: list[Target] | None = None
    ) -> dict[str, torch.Tensor] | list[Detections]:
        """Losses by name in training, detections otherwise."""
        batch, targets = self.net.transform(images, targets)
        maps = maps_by_name(self.net.backbone, batch.tensors)
        answer: list[Detections]
        losses: dict[str, torch.Tensor]
        if "rpn" in self.learning:
            proposals, losses = self.net.rpn(batch, maps, targets)
            answer = [{"boxes": boxes} for boxes in proposals]
        else:
            with torch.no_grad():
                if self.proposer is None:
                    proposals, _ = self.net.rpn(batch, maps)
                else:
                    proposals, _ = self.proposer.rpn(batch, maps_by_name(self.proposer.backbone, batch.tensors))
            answer, losses = self.net.roi_heads(maps, proposals, batch.image_sizes, targets)
        return losses if self.training else answer


def train(
    net: FasterRCNN,
    data: DetectionData,
    settings: DetectionSettings,
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None] = logger.info,
) -> tuple[FasterRCNN, dict[str, loop.History]]:
    """Train an untrained net in four steps of `settings.epochs` each; the net in eval mode, and the curves by step.

    Proposals are chosen by the share of boxes that they find, detections by `data.score`. Goes on exactly from the
    checkpoints in the folders of the steps.
    """
    curves: dict[str, loop.History] = {}

    def fit(step: Step) -> FasterRCNN:
        name = f"step-{len(curves) + 1}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        judged = replace(data, made_with={**data.made_with, "step": name})
        if "rpn" in step.learning:
            judged = replace(judged, score=share_found)
        trained, curves[name] = detection.train(
            step,
            judged,
            settings,
            folder=folder / name,
            device=device,
            progress=lambda text: progress(f"{name}: {text}"),
        )
        return trained.net

    proposer = fit(Step(copy.deepcopy(net), ["backbone", "rpn"]))
    detector = fit(Step(copy.deepcopy(net), ["backbone", "roi_heads"], proposer))
    detector.rpn = proposer.rpn
    detector = fit(Step(detector, ["rpn"]))
    detector = fit(Step(detector, ["roi_heads"]))
    return detector.requires_grad_(True).eval(), curves


def share_found(answers: Sequence[Detections], truths: Sequence[Target]) -> float:
    """Share of the boxes of all images that some proposal covers."""
    pairs = [box_iou(truth["boxes"], answer["boxes"]) for answer, truth in zip(answers, truths, strict=True)]
    found = torch.cat([(pair > FOUND).any(1) for pair in pairs])
    return float(found.double().mean())
