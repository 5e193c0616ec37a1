"""ResNet50vd with deformable convolutions in its last stage: the backbone of PP-YOLO and PP-YOLOv2, at any width.

ResNet-D of He et al. 2018 (arXiv 1812.01187); deformable convolutions of Zhu et al. 2018 (arXiv 1811.11168); both put
together as in PP-YOLO (arXiv 2007.12099, section 3.1). Facts of the layers from PaddleDetection (Apache-2.0).
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation, DeformConv2d

from inference.nets.resnet import BLOCKS
from inference.nets.yolo.backbone import Backbone

WIDTH = 64
POINTS = 9  # of a 3 x 3 kernel: two offsets and one weight each


class ResNetVD(Backbone):
    """Four stages of bottlenecks."""

    def __init__(self, *, width: int = WIDTH) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Sequential(
            Conv2dNormActivation(3, half, 3, 2),
            Conv2dNormActivation(half, half, 3),
            Conv2dNormActivation(half, width, 3),
            nn.MaxPool2d(3, 2, 1),
        )
        stages, channels = [], width
        for number, blocks in enumerate(BLOCKS):
            planes, deformable = width * 2**number, number == len(BLOCKS) - 1
            stage = [_Bottleneck(channels, planes, 1 if number == 0 else 2, deformable=deformable)]
            channels = 4 * planes
            stage += [_Bottleneck(channels, planes, 1, deformable=deformable) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.channels = (8 * width, 16 * width, 32 * width)


class ModulatedDeformConv(nn.Module):
    """A 3 x 3 convolution whose points move and weigh by what lies below (DCNv2); starts as an ordinary one at half."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 3 * POINTS, 3, stride, 1)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        self.conv = DeformConv2d(channels, channels, 3, stride, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # torchvision has no kernel for bfloat16 on a CPU.
        with torch.autocast(x.device.type, enabled=False):
            moves = self.offset(x.float())
            moved: torch.Tensor = self.conv(x.float(), moves[:, : 2 * POINTS], moves[:, 2 * POINTS :].sigmoid())
        return moved


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1; the short cut is made smaller by averaging."""

    def __init__(self, channels: int, planes: int, stride: int, *, deformable: bool) -> None:
        super().__init__()
        out = 4 * planes
        if deformable:
            middle = nn.Sequential(ModulatedDeformConv(planes, stride), nn.BatchNorm2d(planes), nn.ReLU(inplace=True))
        else:
            middle = Conv2dNormActivation(planes, planes, 3, stride)
        self.path = nn.Sequential(
            Conv2dNormActivation(channels, planes, 1),
            middle,
            Conv2dNormActivation(planes, out, 1, activation_layer=None),
        )
        short: list[nn.Module] = []
        if stride > 1:
            short.append(nn.AvgPool2d(2, ceil_mode=True))
        if channels != out:
            short.append(Conv2dNormActivation(channels, out, 1, activation_layer=None))
        self.short = nn.Sequential(*short)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(x) + self.short(x))
