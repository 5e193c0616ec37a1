"""Metal in a neck: a plate with screws in front of fused bodies, or screws and rods at the back."""

from __future__ import annotations

from typing import Literal

import numpy as np

from inference.phantom.anatomy import Points, capsule, pillar_centre
from inference.phantom.specification import LEVELS, Implant, Profile, Vertebra

IMPLANTED = 0.05  # chance per phantom at an artefact factor of 1
SCREW_MM, ROD_MM, PLATE_MM = 1.9, 1.7, 1.2  # radii, and half the thickness of a plate


def draw_implant(rng: np.random.Generator, profile: Profile) -> Implant | None:
    """Two neighbouring levels between C3 and C7, or nothing."""
    happens = rng.random() < IMPLANTED * profile.artefacts
    upper = int(rng.integers(2, 6))
    kind: Literal["plate", "rods"] = "plate" if rng.random() < 0.7 else "rods"
    return Implant(kind=kind, levels=(LEVELS[upper], LEVELS[upper + 1])) if happens else None


def metal(points: Points, shape: Vertebra, implant: Implant) -> np.ndarray:
    """Distance to the part of the implant that sits on one vertebra, mm; large if it carries none."""
    if shape.level not in implant.levels:
        return np.full(np.broadcast_shapes(*(p.shape for p in points)), 99.0, np.float32)
    x, y, z = np.abs(points[0]), points[1], points[2]
    upper = shape.level == implant.levels[0]
    reach = shape.stacking * 0.5 * (-1 if upper else 1)  # towards the other level
    if implant.kind == "plate":
        front = -shape.depth / 2 - 1.5
        screw = capsule((x, y, z), (5.0, front, 0.0), (3.5, front + 13, 0.0), SCREW_MM)
        low, high = sorted((-3.5 * np.sign(reach), reach))
        plate = np.maximum(np.maximum(x - 8, np.abs(y - front) - PLATE_MM), np.maximum(low - z, z - high))
        return np.asarray(np.minimum(screw, plate))
    px, py = pillar_centre(shape)
    screw = capsule((x, y, z), (px - 2, py + 9, -2.0), (px + 3, py - 3, 3.0), SCREW_MM)
    rod = capsule((x, y, z), (px - 2, py + 10, -np.sign(reach) * 4.0), (px - 2, py + 10, reach), ROD_MM)
    return np.asarray(np.minimum(screw, rod))
