"""Whether a mask lies on the voxels of its images."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from inference.datasets.labelled import UnusableData


class Grid(Protocol):
    """A volume in the order of a labelled case, and where it lies."""

    @property
    def array(self) -> np.ndarray:
        """(slices, rows, columns)."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Between voxel centres, mm, (slice, row, column)."""

    @property
    def corners(self) -> np.ndarray:
        """Centres of the first and the last voxel, (2, 3), LPS in mm."""


def refuse_another(where: str, mask: Grid, images: Grid) -> None:
    """Raise UnusableData unless both have one shape and one place, to half a voxel.

    Positions count, not only sizes: a mask of another scan of the patient may well be as large.
    """
    if mask.array.shape != images.array.shape:
        sizes = " and ".join(" x ".join(str(n) for n in grid.array.shape) for grid in (mask, images))
        raise UnusableData(f"{where}: mask and images differ in slices, rows or columns ({sizes})")
    off = float(np.abs(mask.corners - images.corners).max())
    if off > min(images.spacing) / 2:
        raise UnusableData(f"{where}: lies {off:.1f} mm beside the images; it belongs to another scan")
