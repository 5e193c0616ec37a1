"""What breaks bone in a phantom: rough fracture planes, crushed endplates and vessel channels.

Everything is in the coordinates of one vertebra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.phantom.anatomy import Points, below_endplate, capsule
from inference.phantom.specification import Break, Canal, Vertebra

ROUGHNESS_MM = 0.7
RIM_MM = 1.5  # dense margin of an old fracture or a variant
CRUSHED_MM = (1.0, 4.5)  # below the endplate: where the trabeculae of a crushed body are pressed together


@dataclass(frozen=True)
class Plane:
    """A break evaluated at points: signed distance to its plane, and distance to its middle."""

    source: Break
    acute: bool
    distance: np.ndarray
    away: np.ndarray
    #: Width of one voxel across the plane, mm: thin gaps fade when the voxel is wider (partial volume).
    voxel_mm: float

    def gap(self) -> np.ndarray:
        """How much of each voxel is gap, 0..1; tapers to nothing at the reach."""
        taper = np.clip((self.source.reach_mm - self.away) / np.float32(2.0), 0, 1)
        half = self.source.gap_mm / 2 * taper
        return _covered(np.abs(self.distance), half, self.voxel_mm)

    def truth(self) -> np.ndarray:
        """Voxels that the gap passes through, before they are cut to the bone."""
        half = max(self.source.gap_mm / 2, self.voxel_mm / 2)
        return np.asarray((np.abs(self.distance) <= half) & (self.away < self.source.reach_mm - 1.0))

    def rim(self) -> np.ndarray:
        """0..1: sclerosis beside an old break, none beside an acute one."""
        if self.acute:
            return np.zeros_like(self.distance)
        near = np.abs(self.distance) < self.source.gap_mm / 2 + RIM_MM
        return np.asarray(near & (self.away < self.source.reach_mm), np.float32)

    def shifted(self, points: Points) -> Points:
        """Points seen from the unbroken bone: the fragment on the positive side moved by the shift."""
        moved = ((self.distance > 0) & (self.away < self.source.reach_mm)).astype(np.float32)
        x, y, z = (p - moved * np.float32(s) for p, s in zip(points, self.source.shift, strict=True))
        return x, y, z


def plane(points: Points, source: Break, voxel_mm: float, *, acute: bool) -> Plane:
    """Evaluate a break at points (x, y, z) of its vertebra."""
    x, y, z = (p - np.float32(c) for p, c in zip(points, source.point, strict=True))
    nx, ny, nz = (np.float32(n) for n in source.normal)
    away = np.sqrt(x * x + y * y + z * z)
    rough = np.float32(ROUGHNESS_MM / 2 if acute else 0.0)
    a, b, c, d = (np.float32(p) for p in source.phases)
    wave = np.sin(0.55 * x + a) + np.sin(0.6 * y + b) + np.sin(0.5 * z + c) + 0.6 * np.sin(1.3 * (x + y - z) + d)
    return Plane(source, acute, x * nx + y * ny + z * nz + rough * wave.astype(np.float32), away, voxel_mm)


def crushed(points: Points, shape: Vertebra) -> np.ndarray:
    """0..1: how much of the trabecular bone at each point is impacted under the upper endplate.

    Strongest in front, where a body that is bent forward loses most height.
    """
    depth = below_endplate(points, shape)
    low, high = CRUSHED_MM
    band = np.clip((depth - low) / 0.7, 0, 1) * np.clip((high - depth) / 1.0, 0, 1)
    front = np.clip(0.75 - points[1] / np.float32(shape.depth), 0, 1)
    in_body = np.clip((shape.depth / 2 + 1 - points[1]) / 1.0, 0, 1) * np.clip(
        shape.width / 2 - np.abs(points[0]), 0, 1
    )
    return np.asarray(band * front * in_body, np.float32)


def channel(points: Points, canal: Canal, voxel_mm: float) -> np.ndarray:
    """How much of each voxel is vessel channel, 0..1."""
    distance = capsule(points, canal.start, canal.end, 0.0)
    return _covered(distance, np.full_like(distance, canal.radius_mm), voxel_mm)


def _covered(distance: np.ndarray, half: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Share of a voxel of the given width that lies within `half` of the middle of a gap."""
    low = np.maximum(distance - voxel_mm / 2, -half)
    high = np.minimum(distance + voxel_mm / 2, half)
    return np.asarray(np.clip((high - low) / np.float32(voxel_mm), 0, 1), np.float32)
