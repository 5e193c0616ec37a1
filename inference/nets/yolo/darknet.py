"""Darknet-53, the backbone of YOLOv3 (Redmon and Farhadi 2018, arXiv 1804.02767, table 1), at any width."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from inference.nets.yolo.backbone import Backbone

WIDTH = 32  # channels of the first convolution, as published
BLOCKS = (1, 2, 8, 8, 4)

#: Convolution, batch normalisation, leaky ReLU: every layer of YOLOv3 but the last.
Layer = partial(Conv2dNormActivation, activation_layer=partial(nn.LeakyReLU, 0.1))


class Darknet53(Backbone):
    """Five stages of residual blocks."""

    def __init__(self, *, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = Layer(3, width, 3)
        stages = []
        for number, blocks in enumerate(BLOCKS):
            channels = width * 2**number
            stages.append(
                nn.Sequential(Layer(channels, 2 * channels, 3, 2), *(_Block(channels) for _ in range(blocks)))
            )
        self.stages = nn.ModuleList(stages)
        self.channels = (8 * width, 16 * width, 32 * width)


class _Block(nn.Module):
    """Half the channels and back, added to the input."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.path = nn.Sequential(Layer(2 * half, half, 1), Layer(half, 2 * half, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.path(x)
        return out
