"""One vertebra as network images: slices through it from feet to head, each with its neighbours and the outline.

The 2.5D input of the leading entries of the RSNA 2022 cervical fracture challenge (Lin et al. 2023, doi
10.1148/ryai.230034): 15 slices over the height of a vertebra, each with two neighbours on either side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate

from inference.preprocess import windows
from inference.preprocess.crop import PAD_HU

SLICES = 15
NEIGHBOURS = 2  # on either side
CHANNELS = 2 * NEIGHBOURS + 2
MARGIN = 0.15  # of the outline's longer side, on each side: a displaced fragment lies outside the outline

Box = tuple[slice, slice, slice]


def cut(
    volume: np.ndarray, box: Box, inside: np.ndarray, spacing: Sequence[float], size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """HU (15, 5, size, size) and outline 0..1 (15, size, size) of the vertebra `inside` (bool) a box of a volume.

    The volume is HU (slices, rows, columns); the square is around the box, and black outside the image.
    """
    planes = slice_numbers(box)
    around = np.clip(planes[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1), 0, len(volume) - 1)
    low, high = int(around.min()), int(around.max()) + 1
    top, left, side = _square(box, spacing)
    hu = torch.full((high - low, *side), PAD_HU)
    outline = torch.zeros(high - low, *side)
    rows, columns = _overlap(top, side[0], volume.shape[1]), _overlap(left, side[1], volume.shape[2])
    there = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    hu[:, *there] = torch.from_numpy(np.asarray(volume[low:high, rows, columns], np.float32))
    # The box lies inside the square, and inside the slices that are read.
    place = (box[0].start - low, box[1].start - top, box[2].start - left)
    target = tuple(slice(start, start + count) for start, count in zip(place, inside.shape, strict=True))
    outline[target] = torch.from_numpy(np.asarray(inside, np.float32))
    chosen = torch.from_numpy(around - low)
    return _resized(hu, size)[chosen], _resized(outline, size)[chosen[:, NEIGHBOURS]]


def slice_numbers(box: Box) -> np.ndarray:
    """The slices of the volume that are looked at: evenly from the lowest of the box to the highest."""
    return np.linspace(box[0].start, box[0].stop - 1, SLICES).round().astype(int)


def network_input(hu: torch.Tensor, outline: torch.Tensor) -> torch.Tensor:
    """(..., 5, size, size) HU and (..., size, size) outline to (..., 6, size, size)."""
    return torch.cat([windows.apply(hu, windows.STANDARD_BONE), outline[..., None, :, :]], -3)


def _square(box: Box, spacing: Sequence[float]) -> tuple[int, int, tuple[int, int]]:
    """First row, first column, and (rows, columns) of a square in mm around the box, with its margin."""
    extent = [(side.stop - side.start) * step for side, step in zip(box[1:], spacing[1:], strict=True)]
    longer = max(extent) * (1 + 2 * MARGIN)
    count = [max(round(longer / step), side.stop - side.start) for step, side in zip(spacing[1:], box[1:], strict=True)]
    first = [(side.start + side.stop - n) // 2 for side, n in zip(box[1:], count, strict=True)]
    return first[0], first[1], (count[0], count[1])


def _overlap(start: int, count: int, image: int) -> slice:
    return slice(max(start, 0), min(start + count, image))


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    return interpolate(images[:, None], size=(size, size), mode="bilinear", align_corners=False, antialias=True)[:, 0]
