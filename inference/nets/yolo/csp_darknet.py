"""The CSP backbone of YOLOv5 (release 6) with its SPPF layer, at any depth and width.

Cross stage partial networks: Wang et al. 2019, arXiv 1911.11929. Layers as PaddleDetection (Apache-2.0) lists them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from inference.nets.yolo.backbone import Backbone

WIDTH = 64  # channels of the first convolution at width 1; YOLOv5n has a quarter
BLOCKS = (3, 6, 9, 3)  # at depth 1; YOLOv5n and s have a third

#: Convolution, batch normalisation (with YOLOv5's constants), SiLU: every layer of YOLOv5 but the last.
Layer = partial(
    Conv2dNormActivation,
    activation_layer=nn.SiLU,
    norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03),
)


class CSPDarknet(Backbone):
    """Four stages of cross-stage bottlenecks."""

    def __init__(self, *, width: int = WIDTH, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = Layer(3, width, 6, 2, padding=2)
        stages = []
        for number, blocks in enumerate(BLOCKS):
            channels = width * 2**number
            layers = [
                Layer(channels, 2 * channels, 3, 2),
                CrossStage(2 * channels, 2 * channels, round(blocks * depth), residual=True),
            ]
            stages.append(nn.Sequential(*layers))
        stages[-1].append(_PooledInARow(16 * width))
        self.stages = nn.ModuleList(stages)
        self.channels = (4 * width, 8 * width, 16 * width)


class CrossStage(nn.Module):
    """Half of the channels pass through bottlenecks, the other half beside them ("C3")."""

    def __init__(self, channels: int, out: int, blocks: int, *, residual: bool) -> None:
        super().__init__()
        half = out // 2
        bottlenecks = [_Bottleneck(half, residual=residual) for _ in range(blocks)]
        self.path = nn.Sequential(Layer(channels, half, 1), *bottlenecks)
        self.beside = Layer(channels, half, 1)
        self.join = Layer(out, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = self.join(torch.cat([self.path(x), self.beside(x)], 1))
        return joined


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.path, self.residual = nn.Sequential(Layer(channels, channels, 1), Layer(channels, channels, 3)), residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.path(x) + x if self.residual else self.path(x)
        return out


class _PooledInARow(nn.Module):
    """Spatial pyramid pooling (He et al. 2014) with windows of 5, 9 and 13, as three of 5 in a row ("SPPF")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.join = Layer(channels, channels // 2, 1), Layer(2 * channels, channels, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [self.enter(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        joined: torch.Tensor = self.join(torch.cat(maps, 1))
        return joined
