"""Sagittal slices of an isotropic CT as network images: each with a neighbour on either side."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.datasets.labelled import CERVICAL
from inference.preprocess import windows

#: The vertebrae that the network tells apart; value n + 1 in its maps is the n-th.
LEVELS = (*CERVICAL, "T1")
#: Distance of the neighbours, in columns.
STEP = 2
#: From fat to cortical bone.
WINDOW = windows.Window(500, 1400)


def images(hu: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    """HU (columns, slices, rows) to (n, 3, slices, rows) of the wanted columns: right neighbour, slice, left."""
    at = torch.tensor([[column - STEP, column, column + STEP] for column in columns]).clamp(0, len(hu) - 1)
    return hu[at]


def network_input(hu: torch.Tensor) -> torch.Tensor:
    """HU images to 0..1, in the layout that is fastest."""
    return windows.apply(hu, WINDOW).contiguous(memory_format=torch.channels_last)
