"""U-Net with an Inception-ResNet-v2 encoder (paper 001): vertebrae, fractures, and which vertebrae an image shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import interpolate
from torchvision.ops import Conv2dNormActivation

from inference.nets.inception_resnet_v2 import REPEATS, Encoder

#: Channels of the decoder at 1/16, 1/8, 1/4, 1/2 and 1 of the resolution, at width 1.
DECODER = (256, 128, 64, 32, 16)
MIN_CHANNELS = 16


@dataclass(frozen=True)
class Maps:
    """Logits for a batch of images."""

    #: (batch, 1 + levels, height, width), softmax: background, then the levels.
    vertebrae: torch.Tensor
    #: (batch, height, width), sigmoid: acute fracture.
    fracture: torch.Tensor
    #: (batch, levels), sigmoid: does the image show the level?
    shown: torch.Tensor


class VertebraUNet(nn.Module):
    """Images (batch, channels, height, width), both multiples of 32, to `Maps`."""

    def __init__(
        self, *, levels: int = 8, channels: int = 3, width: float = 1.0, repeats: Sequence[int] = REPEATS
    ) -> None:
        super().__init__()
        self.encoder = Encoder(channels=channels, width=width, repeats=repeats)
        planes = [max(MIN_CHANNELS, self.encoder.scaled(count)) for count in DECODER]
        below = [self.encoder.channels[-1], *planes]
        beside = [*reversed(self.encoder.channels[:-1]), 0]
        self.decoder = nn.ModuleList(
            nn.Sequential(Conv2dNormActivation(a + b, c), Conv2dNormActivation(c, c))
            for a, b, c in zip(below, beside, planes, strict=False)
        )
        self.head = nn.Conv2d(planes[-1], 1 + levels + 1, kernel_size=3, padding=1)
        self.shown = nn.Linear(self.encoder.channels[-1], levels)

    def forward(self, images: torch.Tensor) -> Maps:
        *finer, x = self.encoder(images)
        shown = self.shown(x.mean((2, 3)))
        for number, step in enumerate(self.decoder):
            x = interpolate(x, scale_factor=2.0)
            if number < len(finer):
                x = torch.cat([x, finer[-1 - number]], 1)
            x = step(x)
        maps = self.head(x)
        return Maps(maps[:, :-1], maps[:, -1], shown)
