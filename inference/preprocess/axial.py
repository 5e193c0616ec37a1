"""Any axial volume in the one orientation that the networks were trained with, and back.

Networks see slices from feet to head, rows from front to back, columns from right to left of the patient.
Prone patients and feet-first scans differ by flips, which are undone for masks and boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.findings import Voxel
from inference.volume import Volume


@dataclass(frozen=True)
class Axial:
    """A flipped view of a volume."""

    #: (slices, rows, columns): feet to head, front to back, right to left; float32.
    array: np.ndarray
    #: Axes that were flipped.
    flipped: tuple[int, ...]

    def slices_back(self, values: np.ndarray) -> np.ndarray:
        """Values per slice in the order of the volume."""
        return values[::-1] if 0 in self.flipped else values

    def box_back(self, box: tuple[Voxel, Voxel]) -> tuple[Voxel, Voxel]:
        """A half-open box of this array as a box of the volume."""
        low, high = list(box[0]), list(box[1])
        for axis in self.flipped:
            size = self.array.shape[axis]
            low[axis], high[axis] = size - high[axis], size - low[axis]
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def orient(volume: Volume) -> Axial:
    """Flip the axes whose direction is opposite to (head, back, left)."""
    toward = (volume.affine[2, 0], volume.affine[1, 1], volume.affine[0, 2])
    flipped = tuple(axis for axis, direction in enumerate(toward) if direction < 0)
    array = np.flip(volume.array, flipped) if flipped else volume.array
    return Axial(np.ascontiguousarray(array, dtype=np.float32), flipped)


def turn_degrees(volume: Volume) -> float:
    """Angle between the rows and the left-right axis of the patient, 0..90: a patient on the side is at 90."""
    along = volume.affine[:3, 2]
    return float(np.degrees(np.arccos(min(1.0, abs(along[0]) / np.linalg.norm(along)))))


def tilt_degrees(volume: Volume) -> float:
    """Angle between the slice normal and the long axis of the patient, 0..90."""
    normal = np.cross(volume.affine[:3, 1], volume.affine[:3, 2])
    return float(np.degrees(np.arccos(min(1.0, abs(normal[2]) / np.linalg.norm(normal)))))
