"""The three display windows of the cervical fracture model: HU in, 0..1 out.

Paper 003, section 2.1 and figure 2: each window maps its lower end to 0 and its upper end to 1, linear in
between, `clip((hu - (centre - width / 2)) / width, 0, 1)` with centre and width in HU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Window:
    """Centre and width in HU."""

    centre: float
    width: float


SOFT_TISSUE = Window(80, 300)
STANDARD_BONE = Window(500, 1800)
GROSS_BONE = Window(400, 650)
#: Channel order of the paper.
CERVICAL_WINDOWS = (SOFT_TISSUE, STANDARD_BONE, GROSS_BONE)


def apply(hu: torch.Tensor, window: Window) -> torch.Tensor:
    """HU of any shape to 0..1 float32."""
    low = window.centre - window.width / 2
    return ((hu.float() - low) / window.width).clamp(0, 1)


def stack(hu: torch.Tensor, windows: tuple[Window, ...] = CERVICAL_WINDOWS) -> torch.Tensor:
    """(slices, rows, columns) HU to (slices, windows, rows, columns) 0..1."""
    return torch.stack([apply(hu, window) for window in windows], dim=1)
