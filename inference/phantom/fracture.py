"""What breaks bone in a phantom: rough fracture planes and vessel channels, in a vertebra's coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.phantom.anatomy import Points, capsule
from inference.phantom.specification import Canal, Fracture

ROUGHNESS_MM = 0.7
RIM_MM = 1.5  # sclerotic margin of a healed fracture


@dataclass(frozen=True)
class Plane:
    """A fracture evaluated at points: signed distance to its rough plane, and distance to its middle."""

    fracture: Fracture
    distance: np.ndarray
    away: np.ndarray
    #: Width of one voxel across the plane, mm: thin gaps fade when the voxel is wider (partial volume).
    voxel_mm: float

    def gap(self) -> np.ndarray:
        """How much of each voxel is gap, 0..1; tapers to nothing at the reach."""
        taper = np.clip((self.fracture.reach_mm - self.away) / np.float32(2.0), 0, 1)
        half = self.fracture.gap_mm / 2 * taper
        return _covered(np.abs(self.distance), half, self.voxel_mm)

    def truth(self) -> np.ndarray:
        """Voxels that the gap passes through, before they are cut to the bone."""
        half = max(self.fracture.gap_mm / 2, self.voxel_mm / 2)
        return np.asarray((np.abs(self.distance) <= half) & (self.away < self.fracture.reach_mm - 1.0))

    def rim(self) -> np.ndarray:
        """0..1: sclerosis beside a healed fracture, none beside an acute one."""
        if not self.fracture.healed:
            return np.zeros_like(self.distance)
        near = np.abs(self.distance) < self.fracture.gap_mm / 2 + RIM_MM
        return np.asarray(near & (self.away < self.fracture.reach_mm), np.float32)

    def shifted(self, points: Points) -> Points:
        """Points seen from the unbroken bone: the fragment on the positive side moved by the shift."""
        moved = ((self.distance > 0) & (self.away < self.fracture.reach_mm)).astype(np.float32)
        x, y, z = (p - moved * np.float32(s) for p, s in zip(points, self.fracture.shift, strict=True))
        return x, y, z


def plane(points: Points, fracture: Fracture, voxel_mm: float) -> Plane:
    """Evaluate a fracture at points (x, y, z) of its vertebra."""
    x, y, z = (p - np.float32(c) for p, c in zip(points, fracture.point, strict=True))
    nx, ny, nz = (np.float32(n) for n in fracture.normal)
    away = np.sqrt(x * x + y * y + z * z)
    rough = np.float32(0.0 if fracture.healed else ROUGHNESS_MM / 2)
    a, b, c, d = (np.float32(p) for p in fracture.phases)
    wave = np.sin(0.55 * x + a) + np.sin(0.6 * y + b) + np.sin(0.5 * z + c) + 0.6 * np.sin(1.3 * (x + y - z) + d)
    return Plane(fracture, x * nx + y * ny + z * nz + rough * wave.astype(np.float32), away, voxel_mm)


def channel(points: Points, canal: Canal, voxel_mm: float) -> np.ndarray:
    """How much of each voxel is vessel channel, 0..1."""
    distance = capsule(points, canal.start, canal.end, 0.0)
    return _covered(distance, np.full_like(distance, canal.radius_mm), voxel_mm)


def _covered(distance: np.ndarray, half: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Share of a voxel of the given width that lies within `half` of the middle of a gap."""
    low = np.maximum(distance - voxel_mm / 2, -half)
    high = np.minimum(distance + voxel_mm / 2, half)
    return np.asarray(np.clip((high - low) / np.float32(voxel_mm), 0, 1), np.float32)
