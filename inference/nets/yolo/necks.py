"""What the three YOLOs put between backbone and heads: maps at 1/8, 1/16 and 1/32 that know of each other.

All take and give maps from the finest to the coarsest. Layers as PaddleDetection (Apache-2.0) lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import interpolate
from torchvision.ops import Conv2dNormActivation, DropBlock2d

from inference.nets.yolo import csp_darknet, darknet

POOLS = (5, 9, 13)
DROPPED, DROPPED_CELLS = 0.1, 3
#: PP-YOLOv2 (arXiv 2104.10419, section 3.2) has Mish in its neck only.
MishLayer = partial(Conv2dNormActivation, activation_layer=nn.Mish)


class FeaturePyramid(nn.Module):
    """YOLOv3's neck, from the coarsest map down; the maps have `width`/2, `width` and 2 x `width` channels."""

    def __init__(self, channels: Sequence[int], *, width: int = 512) -> None:
        super().__init__()
        self.routes, self.tips, self.transitions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        above = 0
        for number, count in enumerate(reversed(channels)):
            inner = width // 2**number
            sizes = (count + above, inner, 2 * inner, inner, 2 * inner, inner)
            kernels = (1, 3, 1, 3, 1)
            layers = [darknet.Layer(a, b, kernel) for (a, b), kernel in zip(pairwise(sizes), kernels, strict=True)]
            self.routes.append(nn.Sequential(*layers))
            self.tips.append(darknet.Layer(inner, 2 * inner, 3))
            above = inner // 2
            if number < len(channels) - 1:
                self.transitions.append(darknet.Layer(inner, above, 1))
        self.channels = (width // 2, width, 2 * width)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The maps for the heads."""
        route = self.routes[0](maps[-1])
        found = [self.tips[0](route)]
        for number, transition in enumerate(self.transitions, start=1):
            route = self.routes[number](torch.cat([_doubled(transition(route)), maps[-1 - number]], 1))
            found.insert(0, self.tips[number](route))
        return found


class PathAggregation(nn.Module):
    """PP-YOLOv2's neck, down and up again; the maps have `width`/2, `width` and 2 x `width` channels."""

    def __init__(self, channels: Sequence[int], *, width: int = 512) -> None:
        super().__init__()
        finer, middle, coarser = channels
        half, quarter = width // 2, width // 4
        self.down = nn.ModuleList(
            [
                _CrossStageBlock(coarser, width, pooled=True),
                _CrossStageBlock(middle + width, half),
                _CrossStageBlock(finer + half, quarter),
            ]
        )
        self.enlarged = nn.ModuleList([MishLayer(2 * width, width, 1), MishLayer(width, half, 1)])
        self.reduced = nn.ModuleList([MishLayer(half, half, 3, 2), MishLayer(width, width, 3, 2)])
        self.up = nn.ModuleList([_CrossStageBlock(half + width, half), _CrossStageBlock(3 * width, width)])
        self.channels = (half, width, 2 * width)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The maps for the heads."""
        down = [self.down[0](maps[-1])]  # from the coarsest to the finest
        for block, enlarged, beside in zip(self.down[1:], self.enlarged, (maps[1], maps[0]), strict=True):
            down.append(block(torch.cat([_doubled(enlarged(down[-1])), beside], 1)))
        found = [down[-1]]
        for block, reduced, beside in zip(self.up, self.reduced, (down[1], down[0]), strict=True):
            found.append(block(torch.cat([reduced(found[-1]), beside], 1)))
        return found


class CrossStageAggregation(nn.Module):
    """YOLOv5's neck, down and up again; the maps keep their channels."""

    def __init__(self, channels: Sequence[int], *, depth: float = 1.0) -> None:
        super().__init__()
        finer, middle, coarser = channels
        blocks, layer = round(3 * depth), csp_darknet.Layer
        self.enlarged = nn.ModuleList([layer(coarser, middle, 1), layer(middle, finer, 1)])
        self.reduced = nn.ModuleList([layer(finer, finer, 3, 2), layer(middle, middle, 3, 2)])
        sizes = ((2 * middle, middle), (2 * finer, finer), (2 * finer, middle), (2 * middle, coarser))
        joins = [csp_darknet.CrossStage(count, out, blocks, residual=False) for count, out in sizes]
        self.down, self.up = nn.ModuleList(joins[:2]), nn.ModuleList(joins[2:])
        self.channels = tuple(channels)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The maps for the heads."""
        x, beside = maps[2], list[torch.Tensor]()
        for enlarged, join, finer in zip(self.enlarged, self.down, (maps[1], maps[0]), strict=True):
            beside.insert(0, enlarged(x))
            x = join(torch.cat([_doubled(beside[0]), finer], 1))
        found = [x]
        for reduced, join, coarser in zip(self.reduced, self.up, beside, strict=True):
            found.append(join(torch.cat([reduced(found[-1]), coarser], 1)))
        return found


class _CrossStageBlock(nn.Module):
    """Two branches of `inner` channels, three times 1 x 1 and 3 x 3 on one of them; 2 x `inner` channels out."""

    def __init__(self, channels: int, inner: int, *, pooled: bool = False) -> None:
        super().__init__()
        steps: list[nn.Module] = [MishLayer(inner, inner, kernel) for kernel in (1, 3, 1, 3, 1, 3)]
        if pooled:
            steps[3] = _Pooled(inner)
        steps.insert(4, DropBlock2d(DROPPED, DROPPED_CELLS))
        self.path = nn.Sequential(MishLayer(channels, inner, 1), *steps)
        self.beside = MishLayer(channels, inner, 1)
        self.join = MishLayer(2 * inner, 2 * inner, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = self.join(torch.cat([self.beside(x), self.path(x)], 1))
        return joined


class _Pooled(nn.Module):
    """Spatial pyramid pooling (He et al. 2014, arXiv 1406.4729)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList([nn.MaxPool2d(size, 1, size // 2) for size in POOLS])
        self.join = MishLayer((1 + len(POOLS)) * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = self.join(torch.cat([x, *(pool(x) for pool in self.pools)], 1))
        return joined


def _doubled(maps: torch.Tensor) -> torch.Tensor:
    return interpolate(maps, scale_factor=2.0, mode="nearest")
