"""What the backbones of the YOLO family share: a stem, and stages of which each halves the resolution."""

from __future__ import annotations

import torch
from torch import nn


class Backbone(nn.Module):
    """Images (batch, 3, height, width), multiples of 32, to maps at 1/8, 1/16 and 1/32 of the resolution."""

    stem: nn.Module
    stages: nn.ModuleList
    #: Of the maps, from the finest to the coarsest.
    channels: tuple[int, int, int]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps from the finest to the coarsest."""
        maps, x = [], self.stem(images)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-3:]
