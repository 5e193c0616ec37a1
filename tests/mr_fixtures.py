"""Miniature public MR data sets: the layouts and quirks of the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK

from inference.datasets.labelled_mr import MRSeries

SHAPE = (5, 40, 24)  # slices from right to left, rows from head to feet, columns from front to back
SPACING = (4.0, 1.5, 1.0)  # slice, row, column; mm; all different so that swapped axes show
ORIGIN = (-8.0, -30.0, 120.0)  # of the first voxel, LPS in mm
#: Columns, rows and slices of a sagittal series, as ITK wants them.
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.int16)


def write_sagittal(
    path: Path, array: np.ndarray, *, axes: str = "PIL", origin: Sequence[float] = ORIGIN, compress: bool = True
) -> None:
    """Write an array that runs right to left, head to feet, front to back, stored in another order of axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(origin)
    image.SetDirection(SAGITTAL)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, axes), str(path), compress)


def write_csv(path: Path, header: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def column_of(labels: Mapping[int, tuple[int, int]], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return a map with each label in these rows, columns 6 to 14 and slices 1 to 3."""
    found = np.zeros(shape, np.uint8)
    for label, (top, bottom) in labels.items():
        found[1:4, top:bottom, 6:14] = label
    return found


def point(series: MRSeries, voxel: Sequence[float]) -> list[float]:
    """Return where a voxel lies, LPS in mm."""
    return [float(value) for value in (series.affine @ [*voxel, 1])[:3]]
