"""The course of the spinal canal: a curve through the vertebrae, and coordinates along and across it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from inference.phantom import spine
from inference.phantom.specification import Vertebra

STEP_MM = 1.0
SMOOTH_MM = 5.0
BEYOND_MM = 90.0
ATLAS_CANAL_MM = 15.0  # from the dens to the middle of the canal


@dataclass(frozen=True)
class Course:
    """Points of the curve from the feet up, one every STEP_MM; arrays are (points,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    #: Direction upwards in the sagittal plane.
    ty: np.ndarray
    tz: np.ndarray
    s: np.ndarray
    #: Where along the curve each vertebra lies, mm.
    levels: Mapping[str, float]

    def coordinates(self, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(s, d) of points in the sagittal plane: mm along the curve, and mm behind it."""
        s = np.interp(z, self.z, self.s)
        for _ in range(5):  # walk to the foot of the perpendicular
            cy, cz, ty, tz = (np.interp(s, self.s, v) for v in (self.y, self.z, self.ty, self.tz))
            ahead = (y - cy) * ty + (z - cz) * tz
            s = np.clip(s + 0.8 * ahead, 0, self.s[-1])
        cy, cz, ty, tz = (np.interp(s, self.s, v) for v in (self.y, self.z, self.ty, self.tz))
        return s.astype(np.float32), ((y - cy) * tz - (z - cz) * ty).astype(np.float32)

    def along(self, vertebrae: Sequence[Vertebra], value: Callable[[Vertebra], float], s: np.ndarray) -> np.ndarray:
        """A property of vertebrae, interpolated along the curve."""
        known = sorted((self.levels[v.level], value(v)) for v in vertebrae)
        return np.asarray(np.interp(s, [k for k, _ in known], [v for _, v in known]), np.float32)

    def between(self, disc: str) -> float:
        """Where along the curve a disc such as "C5/C6" lies, mm."""
        upper, lower = disc.split("/")
        return (self.levels[upper] + self.levels[lower]) / 2


def canal_centre(shape: Vertebra) -> tuple[float, float, float]:
    """World position of the middle of the canal behind a vertebra."""
    back = ATLAS_CANAL_MM * shape.depth / 37 if shape.level == "C1" else (shape.depth + shape.canal_depth) / 2
    turn = spine.rotation(shape)
    x, y, z = (float(c + turn[i, 1] * np.float32(back)) for i, c in enumerate(shape.centre))
    return x, y, z


def course_of(vertebrae: Sequence[Vertebra]) -> Course:
    """The curve through the canal of vertebrae that are given from the head down."""
    knots = np.array([canal_centre(v) for v in reversed(vertebrae)])
    ends = [_extended(knots[0], knots[1]), _extended(knots[-1], knots[-2])]
    path = _even(np.vstack([ends[0], knots, ends[1]]))
    path = np.stack([gaussian_filter1d(path[:, i], SMOOTH_MM / STEP_MM, mode="nearest") for i in range(3)], 1)
    step = np.gradient(path[:, 1:], axis=0)
    length = np.sqrt((step**2).sum(1))
    s = np.concatenate([[0.0], np.cumsum((length[1:] + length[:-1]) / 2)])
    tangent = step / length[:, None]
    place = {}
    for v in vertebrae:
        _, y, z = canal_centre(v)
        place[v.level] = float(s[int(np.argmin((path[:, 1] - y) ** 2 + (path[:, 2] - z) ** 2))])
    return Course(path[:, 0], path[:, 1], path[:, 2], tangent[:, 0], tangent[:, 1], s, place)


def _extended(end: np.ndarray, inner: np.ndarray) -> np.ndarray:
    away = end - inner
    return np.asarray(end + away / np.sqrt((away**2).sum()) * BEYOND_MM)


def _even(knots: np.ndarray) -> np.ndarray:
    """Points about STEP_MM apart along a polyline."""
    length = np.concatenate([[0.0], np.cumsum(np.sqrt((np.diff(knots, axis=0) ** 2).sum(1)))])
    at = np.arange(0, length[-1], STEP_MM)
    return np.stack([np.interp(at, length, knots[:, i]) for i in range(3)], 1)
