"""Sagittal slices of an isotropic volume as network images: each with a neighbour on either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from inference.datasets.labelled import CERVICAL
from inference.preprocess import windows
from inference.preprocess.crop import PAD_HU

#: Distance of the neighbours, in columns.
STEP = 2


@dataclass(frozen=True, kw_only=True)
class View:
    """What a network sees from the side, and what it tells apart."""

    #: Value n + 1 in maps of labels is the n-th.
    levels: tuple[str, ...]
    #: What each of them is to the network: itself, or what it has in common with others.
    kinds: tuple[str, ...]
    #: Values that are black and white to it.
    window: windows.Window
    #: Beyond the edge of the volume.
    outside: float
    #: Random changes in training: share of the values, and what is added to all of them and to each.
    gain: float
    offset: float
    noise: float

    @property
    def outputs(self) -> tuple[str, ...]:
        """Value n + 1 in maps of the network is the n-th."""
        return tuple(dict.fromkeys(self.kinds))

    @property
    def is_counted(self) -> bool:
        """Whether the network leaves it to counting which vertebra is which."""
        return len(self.outputs) < len(self.levels)

    def outputs_of(self, labels: np.ndarray) -> np.ndarray:
        """A map of labels as the network's map should be; what is none of the levels is background."""
        table = np.zeros(256, np.uint8)
        table[1 : 1 + len(self.kinds)] = [1 + self.outputs.index(kind) for kind in self.kinds]
        return np.asarray(table[labels])


#: The vertebrae of the network for CT.
LEVELS = (*CERVICAL, "T1")
#: From fat to cortical bone, in HU.
CT = View(
    levels=LEVELS,
    kinds=LEVELS,
    window=windows.Window(500, 1400),
    outside=PAD_HU,
    gain=0.05,
    offset=20.0,
    noise=30.0,
)


def images(hu: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    """Values (columns, slices, rows) to (n, 3, slices, rows) of the wanted columns: right neighbour, slice, left."""
    at = torch.tensor([[column - STEP, column, column + STEP] for column in columns]).clamp(0, len(hu) - 1)
    return hu[at]


def network_input(hu: torch.Tensor, view: View = CT) -> torch.Tensor:
    """Images to 0..1, in the layout that is fastest."""
    return windows.apply(hu, view.window).contiguous(memory_format=torch.channels_last)
