"""Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) of papers 000 and 002, at any width.

Its parts are torchvision's; called like torchvision's: `net(images, targets)` gives the four losses in training and
`net(images)` the detections otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign, RoIPool

from inference.nets import vgg
from inference.nets.detector_images import ImagesAsGiven
from inference.nets.resnet import ResNet

#: Height over width of the anchors: paper 000 gives both, in these sections.
RATIOS = {"section 5.2": (0.5, 1.0, 2.0), "section 5.4.1": (1.0, 3.0)}
PROPOSALS = 300  # per image when answering, paper 000 section 5.2
SAMPLES = 128  # regions per image that the second stage learns from, as Ren et al.; torchvision takes 512
CELLS = 7  # rows and columns that a region is pooled to
VGG_STRIDE = 16


def resnet50_fpn(
    *,
    classes: int,
    width: int = 64,
    pyramid: int = 256,
    hidden: int = 1024,
    anchors: Sequence[int] = (32, 64, 128, 256, 512),
    ratios: str = "section 5.2",
) -> FasterRCNN:
    """ResNet-50 and a feature pyramid (Lin et al. 2016, arXiv 1612.03144) with RoI align; one anchor size per level.

    `width` is that of ResNet, `pyramid` the channels of each level, `hidden` the units of the two layers behind the
    pooling; anchor sizes are in pixels. At the default sizes it is torchvision's `fasterrcnn_resnet50_fpn`.
    """
    stages = {f"layer{n + 1}": str(n) for n in range(4)}
    backbone = BackboneWithFPN(ResNet(width=width), stages, [width * 2**n for n in range(2, 6)], pyramid)
    pool = MultiScaleRoIAlign([str(n) for n in range(4)], CELLS, sampling_ratio=2)
    return _assembled(backbone, pool, _generator([[size] for size in anchors], ratios), hidden, classes)


def vgg16(
    *,
    classes: int,
    width: int = 64,
    hidden: int = 4096,
    anchors: Sequence[int] = (128, 256, 512),
    ratios: str = "section 5.2",
) -> FasterRCNN:
    """VGG-16 up to its last convolution, one map at 1/16 of the resolution with RoI pooling; all anchors lie on it."""
    backbone = vgg.convolutions(width)[:-1]
    backbone.out_channels = 8 * width  # type: ignore[assignment] # what torchvision looks for
    return _assembled(backbone, OneMapPool(), _generator([list(anchors)], ratios), hidden, classes)


class OneMapPool(nn.Module):
    """RoI pooling (Girshick 2015, arXiv 1504.08083) in the form in which torchvision pools from several maps."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = RoIPool(CELLS, 1 / VGG_STRIDE)

    def forward(
        self, maps: dict[str, torch.Tensor], boxes: list[torch.Tensor], sizes: list[tuple[int, int]]
    ) -> torch.Tensor:
        """Boxes of every image to (all boxes, channels, 7, 7); in float32, there is no kernel for bfloat16."""
        (only,) = maps.values()
        pooled: torch.Tensor = self.pool(only.float(), [one.float() for one in boxes])
        return pooled


def maps_by_name(backbone: nn.Module, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
    """What torchvision's second stage and proposals take of a normalised batch, whichever backbone there is."""
    maps = backbone(images)
    return OrderedDict([("0", maps)]) if isinstance(maps, torch.Tensor) else maps


def _generator(sizes: Sequence[Sequence[int]], ratios: str) -> AnchorGenerator:
    """Anchors for each map."""
    return AnchorGenerator(tuple(tuple(some) for some in sizes), (RATIOS[ratios],) * len(sizes))


def _assembled(
    backbone: nn.Module, pool: nn.Module, generator: AnchorGenerator, hidden: int, classes: int
) -> FasterRCNN:
    net = FasterRCNN(
        backbone,
        rpn_anchor_generator=generator,
        rpn_post_nms_top_n_test=PROPOSALS,
        box_batch_size_per_image=SAMPLES,
        box_head=TwoMLPHead(backbone.out_channels * CELLS**2, hidden),  # type: ignore[operator]
        box_predictor=FastRCNNPredictor(hidden, 1 + classes),
    )
    net.roi_heads.box_roi_pool = pool  # the constructor takes RoI align only
    net.transform = ImagesAsGiven()
    return net
