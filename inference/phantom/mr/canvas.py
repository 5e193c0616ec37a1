"""A label for every point of a stack of images, and the tissues that the labels stand for.

The points are all pairs of an x (n,) and of a place in the sagittal plane y, z (p,): sagittal images are such a
product, and so are axial ones, however they lean. Distances in the sagittal plane are computed once for all x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from inference.phantom import spine
from inference.phantom.anatomy import Points
from inference.phantom.mr.course import Course
from inference.phantom.mr.tissue import TISSUES, Tissue
from inference.phantom.specification import Vertebra

#: mm by which a shape shrinks in the sagittal plane, as a function of x from the middle of the spine.
Inset: TypeAlias = Callable[[np.ndarray], np.ndarray]
_TABLE_MM = 0.5
STRAIGHT_MM = 3.0  # soft tissue does not follow a spine that is crooked by less
_TABLE = np.arange(-400, 401, dtype=np.float32) * np.float32(_TABLE_MM)


@dataclass
class Canvas:
    """Painted from the back of the picture to the front: what is painted later covers what was there."""

    x: np.ndarray  # (n,) float32
    y: np.ndarray  # (p,) float32
    z: np.ndarray
    course: Course
    #: (n, p) uint8.
    labels: np.ndarray = field(init=False)
    #: mm along the canal and behind its middle, (p,), and the middle's x.
    s: np.ndarray = field(init=False)
    d: np.ndarray = field(init=False)
    middle: np.ndarray = field(init=False)
    #: By label: what it is made of, and the part of the truth it belongs to ("" for none).
    tissues: list[Tissue] = field(default_factory=lambda: [TISSUES["air"]])
    parts: list[str] = field(default_factory=lambda: [""])

    def __post_init__(self) -> None:
        self.labels = np.zeros((len(self.x), len(self.y)), np.uint8)
        self.s, self.d = self.course.coordinates(self.y, self.z)
        self.middle = np.interp(self.s, self.course.s, self.course.x).astype(np.float32)

    def label(self, tissue: str | Tissue, part: str = "") -> int:
        """The label of a tissue, by name or by its values, in a part."""
        values = TISSUES[tissue] if isinstance(tissue, str) else tissue
        for number, known in enumerate(zip(self.tissues, self.parts, strict=True)):
            if known == (values, part):
                return number
        self.tissues.append(values)
        self.parts.append(part)
        return len(self.tissues) - 1

    def fill(self, tissue: str | Tissue, distance: np.ndarray, inset: Inset | float = 0.0) -> None:
        """Paint where a distance in the sagittal plane (p,) is below minus the inset at that x, in mm."""
        number, shape = self.label(tissue), inset if callable(inset) else _constant(inset)
        straight = bool(np.abs(self.middle).max() < STRAIGHT_MM)
        aside = shape(self.x)
        near = np.flatnonzero(distance < -(aside.min() if straight else shape(_TABLE).min()))
        close = distance[near]
        if straight:
            for row, away in enumerate(aside):
                self.labels[row, near[close < -away]] = number
            return
        table, middle = shape(_TABLE), self.middle[near]
        for row, x in enumerate(self.x):  # the soft tissue follows a crooked spine
            at = np.clip(np.rint((x - middle) / _TABLE_MM).astype(np.intp) + len(_TABLE) // 2, 0, len(_TABLE) - 1)
            self.labels[row, near[close < -table[at]]] = number

    def near(self, low: np.ndarray, high: np.ndarray, shape: Vertebra) -> np.ndarray:
        """Points whose place in the sagittal plane is inside a box (y, z) of a vertebra's coordinates."""
        turn = spine.rotation(shape)
        y, z = self.y - np.float32(shape.centre[1]), self.z - np.float32(shape.centre[2])
        ly, lz = y * turn[1, 1] + z * turn[2, 1], y * turn[1, 2] + z * turn[2, 2]
        return np.flatnonzero((ly > low[0]) & (ly < high[0]) & (lz > low[1]) & (lz < high[1]))

    def local(self, where: np.ndarray, shape: Vertebra) -> Points:
        """Coordinates of some points in the axes of a vertebra, each (n, len(where))."""
        turn = spine.rotation(shape)
        x = (self.x - np.float32(shape.centre[0]))[:, None]
        y, z = self.y[where] - np.float32(shape.centre[1]), self.z[where] - np.float32(shape.centre[2])
        lx, ly, lz = (x * turn[0, k] + (y * turn[1, k] + z * turn[2, k])[None] for k in range(3))
        return lx, ly, lz

    def aside(self, where: np.ndarray) -> np.ndarray:
        """(n, len(where)): mm to the left of the middle of the canal."""
        return np.asarray(self.x[:, None] - self.middle[where][None])


def disc2d(y: np.ndarray, z: np.ndarray, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """Approximate distance to an ellipse in the sagittal plane."""
    squares = ((y - np.float32(centre[0])) / np.float32(radii[0])) ** 2
    squares = squares + ((z - np.float32(centre[1])) / np.float32(radii[1])) ** 2
    return np.asarray((np.sqrt(squares) - 1) * np.float32(min(radii)))


def rod2d(
    y: np.ndarray, z: np.ndarray, ends: tuple[float, float, float, float], radius: float | np.ndarray
) -> np.ndarray:
    """Distance to a thick line in the sagittal plane, from (y, z) to (y, z)."""
    y0, z0, y1, z1 = (np.float32(v) for v in ends)
    ay, az = y1 - y0, z1 - z0
    along = np.clip(((y - y0) * ay + (z - z0) * az) / (ay * ay + az * az), 0, 1)
    return np.asarray(np.sqrt((y - y0 - along * ay) ** 2 + (z - z0 - along * az) ** 2) - np.asarray(radius, np.float32))


def dome(half: float, depth: float, centre: float = 0.0) -> Inset:
    """A rounded shape of a half width: inset 0 in its middle, `depth` at its edge, so much beyond that it ends."""

    def inset(x: np.ndarray) -> np.ndarray:
        share = np.abs(x - np.float32(centre)) / np.float32(half)
        return np.asarray(np.where(share < 1, depth * share**2, 999), np.float32)

    return inset


def both(half: float, depth: float, centre: float) -> Inset:
    """The same shape at both sides."""
    one = dome(half, depth, centre)
    return lambda x: one(np.abs(x))


def wedge(slope: float) -> Inset:
    """Thinner by so much for every mm from the middle."""
    return lambda x: np.asarray(slope * np.abs(x), np.float32)


def _constant(value: float) -> Inset:
    return lambda x: np.full(x.shape, value, np.float32)
