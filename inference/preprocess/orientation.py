"""Any volume in the one orientation that the networks were trained with, and back.

Axial: slices from feet to head, rows from front to back, columns from right to left of the patient. Sagittal: slices
from right to left, rows from head to feet, columns from front to back. Patients lie on their back or front, head or
feet first, and some scanners store columns for rows; masks and boxes go back to the volume as it came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference import geometry
from inference.findings import Voxel
from inference.volume import Volume


@dataclass(frozen=True)
class Oriented:
    """The axes of a volume in another order, some of them reversed."""

    #: float32.
    array: np.ndarray
    #: (4, 4): (slice, row, column) of a voxel of the array to LPS mm.
    affine: np.ndarray
    #: Axes of the array that were reversed.
    flipped: tuple[int, ...]
    #: Which axis of the volume each axis of the array is.
    order: tuple[int, int, int] = (0, 1, 2)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Between voxel centres in mm, (slice, row, column)."""
        return geometry.spacing(self.affine)

    def slices_back(self, values: np.ndarray) -> np.ndarray:
        """Values per slice in the order of the volume."""
        return values[::-1] if 0 in self.flipped else values

    def box_back(self, box: tuple[Voxel, Voxel]) -> tuple[Voxel, Voxel]:
        """A half-open box of this array as a box of the volume."""
        low, high = [0, 0, 0], [0, 0, 0]
        for axis, own in enumerate(self.order):
            first, end = box[0][axis], box[1][axis]
            size = self.array.shape[axis]
            low[own], high[own] = (size - end, size - first) if axis in self.flipped else (first, end)
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def array_back(self, array: np.ndarray) -> np.ndarray:
        """Voxels in the shape of this array, such as a mask, as voxels of the volume."""
        return np.flip(array, self.flipped).transpose(np.argsort(self.order))


def axial(volume: Volume) -> Oriented:
    """Axial slices: reverse the axes whose direction is opposite to (head, back, left)."""
    toward = (volume.affine[2, 0], volume.affine[1, 1], volume.affine[0, 2])
    return _oriented(volume, (0, 1, 2), toward)


def sagittal(volume: Volume) -> Oriented:
    """Sagittal slices: rows along the body, reversed towards (left, feet, back)."""
    rows = 1 if abs(volume.affine[2, 1]) >= abs(volume.affine[2, 2]) else 2
    toward = (volume.affine[0, 0], -volume.affine[2, rows], volume.affine[1, 3 - rows])
    return _oriented(volume, (0, rows, 3 - rows), toward)


def _oriented(volume: Volume, order: tuple[int, int, int], toward: tuple[float, ...]) -> Oriented:
    flipped = tuple(axis for axis, direction in enumerate(toward) if direction < 0)
    array = np.flip(volume.array.transpose(order), flipped)
    affine = volume.affine[:, [*order, 3]].astype(float)
    for axis in flipped:
        affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
        affine[:, axis] *= -1
    return Oriented(np.ascontiguousarray(array, dtype=np.float32), affine, flipped, order)


def turn_degrees(volume: Volume) -> float:
    """Angle between the rows and the left-right axis of the patient, 0..90: a patient on the side is at 90."""
    along = volume.affine[:3, 2]
    return float(np.degrees(np.arccos(min(1.0, abs(along[0]) / np.linalg.norm(along)))))


def tilt_degrees(volume: Volume, axis: int = 2) -> float:
    """Angle between the slice normal and an axis of the patient (LPS), 0..90: the long one for axial slices."""
    normal = np.cross(volume.affine[:3, 1], volume.affine[:3, 2])
    return float(np.degrees(np.arccos(min(1.0, abs(normal[axis]) / np.linalg.norm(normal)))))
