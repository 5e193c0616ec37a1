"""Inception-ResNet-v2 (Szegedy et al. 2016, arXiv 1602.07261) as an encoder of any width: maps at five resolutions.

Width 1 and the default repeats are the published network. All convolutions keep the size of their input, so that a
decoder finds maps of exactly half the size at each step; the published ones lose a border.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

#: Blocks at 1/8, 1/16 and 1/32 of the resolution; the paper's Inception-ResNet-A, B and C.
REPEATS = (10, 20, 10)
Step = tuple[int, int | tuple[int, int], int]  # channels, kernel, stride


class Encoder(nn.Module):
    """Images (batch, channels, height, width), both multiples of 32, to maps at 1/2, 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, *, channels: int = 3, width: float = 1.0, repeats: Sequence[int] = REPEATS) -> None:
        super().__init__()
        self._width = width
        a, b, c = (self.scaled(count) for count in (320, 1088, 2080))
        self.stem = self._path(channels, (32, 3, 2), (32, 3, 1), (64, 3, 1))
        self.second = nn.Sequential(nn.MaxPool2d(3, 2, 1), self._path(self.scaled(64), (80, 1, 1), (192, 3, 1)))
        first = self.scaled(192)
        self.third = nn.Sequential(
            nn.MaxPool2d(3, 2, 1),
            _Branches(
                self._path(first, (96, 1, 1)),
                self._path(first, (48, 1, 1), (64, 5, 1)),
                self._path(first, (64, 1, 1), (96, 3, 1), (96, 3, 1)),
                nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), self._path(first, (64, 1, 1))),
            ),
            *(self._block_a(a) for _ in range(repeats[0])),
        )
        self.fourth = nn.Sequential(
            _Branches(
                self._path(a, (384, 3, 2)),
                self._path(a, (256, 1, 1), (256, 3, 1), (384, 3, 2)),
                nn.MaxPool2d(3, 2, 1),
            ),
            *(self._block_b(b) for _ in range(repeats[1])),
        )
        self.fifth = nn.Sequential(
            _Branches(
                self._path(b, (256, 1, 1), (384, 3, 2)),
                self._path(b, (256, 1, 1), (288, 3, 2)),
                self._path(b, (256, 1, 1), (288, 3, 1), (320, 3, 2)),
                nn.MaxPool2d(3, 2, 1),
            ),
            *(self._block_c(c, last=number == repeats[2] - 1) for number in range(repeats[2])),
            self._path(c, (1536, 1, 1)),
        )
        #: Channels of the maps, from the finest to the coarsest.
        self.channels = tuple(self.scaled(count) for count in (64, 192, 320, 1088, 1536))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The five maps, from the finest to the coarsest."""
        maps = []
        for stage in (self.stem, self.second, self.third, self.fourth, self.fifth):
            images = stage(images)
            maps.append(images)
        return maps

    def scaled(self, channels: int) -> int:
        """A published number of channels at this width; multiples of 16 stay whole down to a width of 1/16."""
        return max(1, int(channels * self._width))

    def _path(self, channels: int, *steps: Step) -> nn.Sequential:
        layers = []
        for out, kernel, stride in steps:
            layers.append(Conv2dNormActivation(channels, self.scaled(out), kernel, stride))
            channels = self.scaled(out)
        return nn.Sequential(*layers)

    def _block_a(self, channels: int) -> nn.Module:
        branches = _Branches(
            self._path(channels, (32, 1, 1)),
            self._path(channels, (32, 1, 1), (32, 3, 1)),
            self._path(channels, (32, 1, 1), (48, 3, 1), (64, 3, 1)),
        )
        return _Residual(branches, self.scaled(32) * 2 + self.scaled(64), channels, scale=0.17)

    def _block_b(self, channels: int) -> nn.Module:
        branches = _Branches(
            self._path(channels, (192, 1, 1)),
            self._path(channels, (128, 1, 1), (160, (1, 7), 1), (192, (7, 1), 1)),
        )
        return _Residual(branches, self.scaled(192) * 2, channels, scale=0.1)

    def _block_c(self, channels: int, *, last: bool) -> nn.Module:
        branches = _Branches(
            self._path(channels, (192, 1, 1)),
            self._path(channels, (192, 1, 1), (224, (1, 3), 1), (256, (3, 1), 1)),
        )
        inner = self.scaled(192) + self.scaled(256)
        if last:  # the last block adds without scaling and without ReLU
            return _Residual(branches, inner, channels, scale=1.0, activation=nn.Identity())
        return _Residual(branches, inner, channels, scale=0.2)


class _Branches(nn.ModuleList):
    """Several ways for one input, side by side in the output's channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self], 1)

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__(branches)


class _Residual(nn.Module):
    """The input plus a scaled correction: larger scales made the published training unstable (section 3.3)."""

    def __init__(
        self, branches: nn.Module, inner: int, channels: int, *, scale: float, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branches, self.scale = branches, scale
        self.project = nn.Conv2d(inner, channels, kernel_size=1)
        self.activation = nn.ReLU(inplace=True) if activation is None else activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.activation(x + self.scale * self.project(self.branches(x)))
        return out
