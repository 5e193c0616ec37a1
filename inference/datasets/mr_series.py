"""MR series turned as they are read on a screen, each with its own affine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
import SimpleITK

from inference import geometry
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import Plane

#: Where slices, rows and columns run to, LPS: sagittal from right to left, head to feet, front to back; axial from
#: feet to head, front to back, right to left.
DIRECTIONS: Mapping[Plane, np.ndarray] = {
    "sagittal": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "axial": np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]),
}


@dataclass(frozen=True)
class Placed:
    """A volume and where it lies; a Grid."""

    #: (slices, rows, columns).
    array: np.ndarray
    #: (4, 4): (slice, row, column) of a voxel's centre to LPS mm.
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Between voxel centres, mm, (slice, row, column)."""
        return geometry.spacing(self.affine)

    @property
    def corners(self) -> np.ndarray:
        """Centres of the first and the last voxel, (2, 3), LPS in mm."""
        ends = np.array([np.zeros(3), np.array(self.array.shape) - 1])
        return np.asarray(ends @ self.affine[:3, :3].T + self.affine[:3, 3])

    def turned(self, plane: Plane) -> Placed:
        """The same voxels, axes permuted and flipped to the nearest of DIRECTIONS."""
        along = DIRECTIONS[plane] @ (self.affine[:3, :3] / self.spacing)  # wanted axis by own axis
        order = max(permutations(range(3)), key=lambda one: float(np.abs(along[range(3), one]).sum()))
        flipped = [axis for axis, own in enumerate(order) if along[axis, own] < 0]
        affine = self.affine[:, [*order, 3]].copy()
        array = self.array.transpose(order)
        for axis in flipped:
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
        return Placed(np.ascontiguousarray(np.flip(array, tuple(flipped))), affine)


def placed(image: SimpleITK.Image) -> Placed:
    """The voxels of an ITK image, which stores columns first."""
    affine = np.eye(4)
    columns = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, :3], affine[:3, 3] = columns[:, ::-1], image.GetOrigin()
    return Placed(SimpleITK.GetArrayFromImage(image), affine)


def plane_of(affine: np.ndarray) -> Plane | Literal["coronal"]:
    """The plane of the patient that the slices lie nearest to."""
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    planes: tuple[Plane | Literal["coronal"], ...] = ("sagittal", "coronal", "axial")
    return planes[int(np.abs(normal).argmax())]


def renamed(labels: np.ndarray, values: Mapping[int, int], where: str) -> np.ndarray:
    """A map of structures, uint8, from the labels of a data set; 0 stays.

    Raises UnusableData that begins with `where` for a label that is not in `values`, and for what is no label.
    """
    known = np.isin(labels, [0, *values])
    if not known.all():
        raise UnusableData(f"{where}: {labels[~known].flat[0]:g} is no label of this data set; fetch the map again")
    table = np.zeros(max(values) + 1, np.uint8)
    table[list(values)] = list(values.values())
    return np.asarray(table[labels.astype(np.intp)])
