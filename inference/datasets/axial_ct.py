"""An axial series in DICOM files, turned as every labelled case is: feet to head, front to back, right to left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pydicom.errors
from pydicom import Dataset

from inference.datasets.labelled import UnusableData
from inference.preprocess import orientation
from inference.preprocess.orientation import tilt_degrees, turn_degrees
from inference.volume import UnusableSeries, Volume, read_volume

MOST_TILT = 45.0  # degrees: beyond it flips alone cannot make a series axial, another plane lies closer


@dataclass(frozen=True)
class AxialCT:
    """One series as it was read, and its values in the order of a labelled case."""

    volume: Volume
    #: int16, (slices, rows, columns), modality units: HU for CT.
    array: np.ndarray
    #: Axes of the volume that were flipped.
    flipped: tuple[int, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Between voxel centres, mm, (slice, row, column)."""
        return self.volume.spacing

    @property
    def corners(self) -> np.ndarray:
        """Centres of the first and the last voxel of `array`, (2, 3), LPS in mm."""
        last = np.array(self.array.shape) - 1
        flips = np.isin(np.arange(3), self.flipped)
        indices = np.stack([np.where(flips, last, 0), np.where(flips, 0, last)])
        return np.asarray(indices @ self.volume.affine[:3, :3].T + self.volume.affine[:3, 3])

    def turned(self, array: np.ndarray) -> np.ndarray:
        """An array on the grid of the volume, flipped as the values were; a contiguous copy."""
        return np.ascontiguousarray(np.flip(array, self.flipped))


def read_axial(paths: Sequence[Path], where: str) -> AxialCT:
    """Read the files of one axial series.

    Raises UnusableData that begins with `where`, and names the file where one file is to blame.
    """
    try:
        volume = read_volume(paths)
    except UnusableSeries as error:
        raise UnusableData(f"{where}{_culprit(str(error), paths)}: {error}") from error
    degrees = max(turn_degrees(volume), tilt_degrees(volume))
    if degrees > MOST_TILT:
        raise UnusableData(f"{where}: its slices lie {degrees:.0f} degrees off axial; only axial series are read")
    axial = orientation.axial(volume)
    # Values beyond int16 are padding or metal; a wrap-around would turn metal into air.
    return AxialCT(volume, np.clip(np.rint(axial.array), -32768, 32767).astype(np.int16), axial.flipped)


def _culprit(message: str, paths: Sequence[Path]) -> str:
    """', file NAME' for the file whose SOP Instance UID or name is a word of the message."""
    words = {word.strip(":,") for word in message.split()}
    for path in paths:
        if path.name in words or _header(path, "SOPInstanceUID").get("SOPInstanceUID") in words:
            return f", file {path.name}"
    return ""


def _header(path: Path, *keywords: str) -> Dataset:
    """These attributes of a file; none where it is too damaged to say."""
    try:
        return pydicom.dcmread(path, specific_tags=list(keywords), stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, AttributeError, OSError, ValueError, TypeError, EOFError):
        return Dataset()
