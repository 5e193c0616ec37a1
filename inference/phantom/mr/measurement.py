"""Decides what a disc is by measuring it, in mm on its sampled shape: normal, herniated or slipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from inference.disc_measures import HERNIATION_MM, SLIP_PERCENT, meyerding
from inference.phantom.mr import spines
from inference.phantom.mr.column import disc_distance, frame
from inference.phantom.mr.specification import INJURIES, Disc, MRPhantomSpec
from inference.phantom.specification import Vertebra

GRID_MM = 0.25
HALF_WIDTH_MM = 12.0  # of the canal, where a herniation counts


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One disc; lengths in mm, forward slips positive."""

    level: str
    label: Literal["disc", "herniation", "slip"]
    herniation_mm: float
    slip_mm: float
    slip_percent: float
    #: Meyerding grade, 0 for a slip that does not count.
    meyerding: int
    #: Between the middles of the endplates.
    height_mm: float
    #: Between the back of the disc and the back of the bony canal, in the middle.
    canal_mm: float


def measure(spec: MRPhantomSpec, disc: Disc) -> Measured:
    """Measure one disc: slip before herniation before normal, as in paper 004."""
    upper, lower = spec.vertebra(disc.upper), spec.vertebra(disc.lower)
    slip = -spines.offset(upper, lower)
    percent = 100 * slip / lower.depth
    out = float(excess(spec, disc, np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM + 0.1, 1.0)).max())
    slipped = mobile(disc) and abs(percent) >= SLIP_PERCENT
    canal = (upper.canal_depth + lower.canal_depth) / 2 * (1 - disc.stenosis)
    return Measured(
        level=disc.level,
        label="slip" if slipped else "herniation" if out >= HERNIATION_MM else "disc",
        herniation_mm=round(out, 2),
        slip_mm=round(slip, 2),
        slip_percent=round(percent, 2),
        meyerding=meyerding(percent) if slipped else 0,
        height_mm=round(frame(spec, disc)[1], 2),
        canal_mm=round(canal - max(out, 0.0) - max(disc.flavum_mm - 2.5, 0), 2),
    )


def mobile(disc: Disc) -> bool:
    """Can the vertebra above slip? Lumbar ones can; the sacrum is one bone."""
    return disc.upper[0] == "L" or disc.lower[0] == "L"


def excess(spec: MRPhantomSpec, disc: Disc, aside: np.ndarray) -> np.ndarray:
    """How far disc material lies behind the line between the back corners of the bodies at each x (n,), mm.

    `aside` is mm to the left of the middle of the disc; nothing is where the shape gives 0 or less.
    """
    body, gap, shear = frame(spec, disc)
    pushed = disc.herniation
    reach = gap / 2 + 4 + (pushed.height + abs(pushed.drift) if pushed else 0)
    y = np.arange(body.depth / 2 - 5, body.depth / 2 + 16, GRID_MM, dtype=np.float32)
    z = np.arange(-reach, reach, GRID_MM, dtype=np.float32)
    points = np.broadcast_arrays(aside.astype(np.float32)[:, None, None], y[None, :, None], z[None, None, :])
    distance, _ = disc_distance((points[0], points[1], points[2]), disc, body, shear)
    (uy, uz), (ly, lz) = (_in_frame(corner, body) for corner in spines.corners(*_pair(spec, disc)))
    line = np.interp(z, [lz, max(uz, lz + 0.1)], [ly, uy])
    behind = y[:, None] - line[None, :]
    return np.asarray(np.where(distance < 0, behind[None], 0).max((1, 2)))


def _pair(spec: MRPhantomSpec, disc: Disc) -> tuple[Vertebra, Vertebra]:
    return spec.vertebra(disc.upper), spec.vertebra(disc.lower)


def _in_frame(corner: tuple[float, float], body: Vertebra) -> tuple[float, float]:
    """A place (y, z) of the world in the coordinates of a disc."""
    y, z = corner[0] - body.centre[1], corner[1] - body.centre[2]
    sin, cos = np.sin(body.pitch), np.cos(body.pitch)
    return float(y * cos + z * sin), float(z * cos - y * sin)


def group(spec: MRPhantomSpec) -> Literal["injured", "disc", "normal"]:
    """The groups of paper 002: an injured cord before a herniated or slipped disc before neither."""
    if any(lesion.kind in INJURIES for lesion in spec.cord):
        return "injured"
    return "disc" if any(measure(spec, disc).label != "disc" for disc in spec.discs) else "normal"
