"""The detectors of paper 004: PP-YOLOv2 (arXiv 2104.10419), YOLOv3 (arXiv 1804.02767) and YOLOv5 (release 6).

READ FIRST of this package. Called like torchvision's detectors: `net(images, targets)` gives losses in training and
`net(images)` the detections otherwise. Nothing here is taken from AGPL or GPL sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torchvision.ops import clip_boxes_to_image

from inference.nets.detector_images import Detections, ImagesAsGiven, Target
from inference.nets.yolo import losses, suppression
from inference.nets.yolo.anchors import MAPS, PER_MAP, PUBLISHED
from inference.nets.yolo.boxes import CLASSES, OBJECT, Code, in_a_row, places, quality
from inference.nets.yolo.csp_darknet import CSPDarknet
from inference.nets.yolo.darknet import Darknet53
from inference.nets.yolo.necks import CrossStageAggregation, FeaturePyramid, PathAggregation
from inference.nets.yolo.resnet_vd import ResNetVD

#: Objectness of an untrained net: most places are empty, and have to be told so otherwise for many steps.
RARE = 0.01

Anchors = Sequence[Sequence[int]]
Neck = FeaturePyramid | PathAggregation | CrossStageAggregation


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What sets one YOLO apart from another behind the neck."""

    code: Code
    loss: Callable[[losses.Said, Sequence[Target]], dict[str, torch.Tensor]]
    suppress: Callable[[torch.Tensor, torch.Tensor], Detections]
    #: Share of the IoU that the net expects in the score; 0 where it expects none.
    expected_overlap: float = 0.0


PPYOLOV2 = Recipe(
    code=Code(stretch=1.05, extent="exponential"),
    loss=partial(losses.paddle, overlap=True),
    suppress=suppression.matrix,
    expected_overlap=0.5,
)
YOLOV3 = Recipe(
    code=Code(stretch=1.0, extent="exponential"),
    loss=partial(losses.paddle, overlap=False),
    suppress=suppression.greedy,
)
YOLOV5 = Recipe(code=Code(stretch=2.0, extent="square"), loss=losses.yolov5, suppress=suppression.greedy)


class YOLO(nn.Module):
    """Images (3, height, width) 0..1 of any sizes to losses or detections."""

    anchors: torch.Tensor

    def __init__(self, backbone: nn.Module, neck: Neck, recipe: Recipe, *, classes: int, anchors: Anchors) -> None:
        super().__init__()
        self.transform, self.backbone, self.neck = ImagesAsGiven(), backbone, neck
        self.recipe, self.classes = recipe, classes
        values = CLASSES + classes + bool(recipe.expected_overlap)
        self.heads = nn.ModuleList(_head(count, values) for count in neck.channels)
        sizes = torch.tensor(anchors, dtype=torch.float32).reshape(MAPS, PER_MAP, 2)
        self.register_buffer("anchors", sizes, persistent=False)  # an argument, not something learnt

    def forward(
        self, images: list[torch.Tensor], targets: list[Target] | None = None
    ) -> dict[str, torch.Tensor] | list[Detections]:
        """Losses by name in training; otherwise boxes, labels from 1, and scores for each image."""
        batch, targets = self.transform(images, targets)
        said = self._say(batch.tensors)
        if not self.training:
            return self._answer(said, batch.image_sizes)
        if targets is None:
            raise ValueError("a detector in training needs targets")
        return self.recipe.loss(said, targets)

    def _say(self, images: torch.Tensor) -> losses.Said:
        maps = [head(one) for head, one in zip(self.heads, self.neck(self.backbone(images)), strict=True)]
        shapes = [(one.shape[2], one.shape[3]) for one in maps]
        values = in_a_row(maps, PER_MAP).float()  # a coordinate in bfloat16 would be wrong by pixels
        where = places(shapes, self.anchors)
        size = (images.shape[2], images.shape[3])
        return losses.Said(values, where, shapes, self.anchors, self.recipe.code, self.classes, size)

    def _answer(self, said: losses.Said, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        boxes = self.recipe.code.decode(said.values, said.places)
        scores = quality(said.values, self.classes, share=self.recipe.expected_overlap)
        inside = [clip_boxes_to_image(some, size) for some, size in zip(boxes, sizes, strict=True)]
        return [self.recipe.suppress(*both) for both in zip(inside, scores, strict=True)]


def _head(channels: int, values: int) -> nn.Conv2d:
    """What a map says at each of its anchors; at the start that there is nothing."""
    head = nn.Conv2d(channels, PER_MAP * values, 1)
    assert head.bias is not None
    with torch.no_grad():
        head.bias.view(PER_MAP, values)[:, OBJECT] = math.log(RARE / (1 - RARE))
    return head


def ppyolov2(*, classes: int, width: int = 64, neck: int = 512, anchors: Anchors = PUBLISHED) -> YOLO:
    """PP-YOLOv2 with ResNet50vd-DCN; `width` of the backbone's first stage, `neck` channels of the coarsest branch."""
    backbone = ResNetVD(width=width)
    return YOLO(backbone, PathAggregation(backbone.channels, width=neck), PPYOLOV2, classes=classes, anchors=anchors)


def yolov3(*, classes: int, width: int = 32, neck: int = 512, anchors: Anchors = PUBLISHED) -> YOLO:
    """YOLOv3 with Darknet-53; `width` of the first convolution, `neck` channels of the coarsest branch."""
    backbone = Darknet53(width=width)
    return YOLO(backbone, FeaturePyramid(backbone.channels, width=neck), YOLOV3, classes=classes, anchors=anchors)


def yolov5(*, classes: int, width: int = 16, depth: float = 1 / 3, anchors: Anchors = PUBLISHED) -> YOLO:
    """YOLOv5; the default sizes are those of YOLOv5n, "s" has a width of 32, "m" 48 and depth 2/3, "l" 64 and 1."""
    backbone = CSPDarknet(width=width, depth=depth)
    neck = CrossStageAggregation(backbone.channels, depth=depth)
    return YOLO(backbone, neck, YOLOV5, classes=classes, anchors=anchors)
