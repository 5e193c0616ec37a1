"""Everything in a neck but vertebrae, in HU: skin, fat, muscle, airway, cord, discs, rough skull and jaw.

Rendered on every second voxel and interpolated: none of it has detail finer than 1.5 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from inference.phantom.anatomy import Points, capsule, ellipsoid
from inference.phantom.specification import Fracture, Neck, PhantomSpec, Vertebra

AIR, FAT, MUSCLE, DISC, CORD, FLUID, SKIN, JAW, TOOTH = -1000, -95, 55, 90, 42, 12, 20, 900, 2200  # HU
SWELLING_REACH_MM = 14.0


@dataclass(frozen=True)
class _Spine:
    """Where the spine runs: arrays over z that broadcast with (slices, 1, 1)."""

    x: np.ndarray
    y: np.ndarray
    width: np.ndarray
    depth: np.ndarray
    canal: np.ndarray
    #: World z of each level's centre.
    levels: dict[str, float]


def soft_tissue(spec: PhantomSpec, points: Points, rng: np.random.Generator) -> np.ndarray:
    """HU (slices, rows, columns) for open-mesh world coordinates, before bone."""
    x, y, z = points
    spine = _spine(spec.vertebrae, z)
    dx, dy = x - spine.x, y - spine.y
    hu = _outline(spec.neck, spine, (dx, dy, z), rng)
    front = -spine.depth / 2 - _prevertebral(spec, spine, z)
    hu = _airway(hu, spec.neck, spine, (dx, dy - front, z))
    hu = _canal_and_discs(hu, spine, (dx, dy, z))
    return _head(hu, spec.neck, spine, (dx, dy, z))


def refine(coarse: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Interpolate a half-resolution volume linearly to `shape` (which may be odd)."""
    fine = coarse
    for axis, count in enumerate(shape):
        after = np.concatenate([np.delete(fine, 0, axis), np.take(fine, [-1], axis)], axis)
        pairs = np.stack([fine, (fine + after) / 2], axis + 1)
        merged = pairs.reshape(*fine.shape[:axis], -1, *fine.shape[axis + 1 :])
        fine = np.take(merged, range(count), axis)
    return np.asarray(fine)


def _spine(vertebrae: Sequence[Vertebra], z: np.ndarray) -> _Spine:
    upward = sorted(vertebrae, key=lambda v: v.centre[2])
    heights = [v.centre[2] for v in upward]

    def along(values: list[float]) -> np.ndarray:
        return np.asarray(np.interp(z, heights, values), np.float32)

    return _Spine(
        along([v.centre[0] for v in upward]),
        along([v.centre[1] for v in upward]),
        along([17.0 if v.level == "C1" else v.width for v in upward]),
        along([14.0 if v.level == "C1" else v.depth for v in upward]),
        along([v.canal_depth for v in upward]),
        {v.level: v.centre[2] for v in vertebrae},
    )


def _outline(neck: Neck, spine: _Spine, points: Points, rng: np.random.Generator) -> np.ndarray:
    dx, dy, z = points
    below = np.clip((spine.levels["C7"] + 8 - z) / 45, 0, 1)
    above = np.clip((z - spine.levels["C3"]) / 60, 0, 1)
    a = neck.half_width + neck.shoulders * below**1.5 + 14 * above
    b = neck.half_depth + 0.35 * neck.shoulders * below + 22 * above
    radius = np.sqrt((dx / a) ** 2 + ((dy - 4) / b) ** 2)
    depth = (1 - radius) * np.minimum(a, b)
    blobs = gaussian_filter(rng.standard_normal(depth.shape, dtype=np.float32), (5, 2.2, 2.2))
    blobs /= blobs.std()
    planes = np.clip((0.22 - np.abs(blobs)) / 0.12, 0, 1)  # fat between muscles
    hu = MUSCLE + 8 * np.roll(blobs, 7, 1) + (FAT - MUSCLE) * 0.8 * planes
    hu = np.where(depth < neck.fat + 1.5 * blobs, FAT + 6 * blobs, hu)
    hu = np.where(depth < 2.0, SKIN, hu)
    for side in (-1, 1):  # carotid sheath
        vessel = np.sqrt((dx - side * 27) ** 2 + ((dy + 16) / 1.3) ** 2)
        hu = np.where((vessel < 6.5) & (depth > 6), 48, hu)
    return np.asarray(np.where(depth < 0, AIR, hu), np.float32)


def _prevertebral(spec: PhantomSpec, spine: _Spine, z: np.ndarray) -> np.ndarray:
    """Thickness of the tissue in front of the bodies, mm, swollen in front of acute fractures."""
    low = 1 / (1 + np.exp((z - spine.levels["C5"]) / 4))
    thick = spec.neck.prevertebral + 9 * low
    for fracture in spec.acute:
        near = (z - spine.levels[fracture.level]) / SWELLING_REACH_MM
        thick = thick + _swelling(fracture) * np.exp(-near * near)
    return np.asarray(thick, np.float32)


def _swelling(fracture: Fracture) -> float:
    """mm of swelling: fractures in front bleed there, fractures of the arch hardly do."""
    return {"body": 5.0, "dens": 5.0, "anterior arch": 4.0}.get(fracture.site, 0.7)


def _airway(hu: np.ndarray, neck: Neck, spine: _Spine, points: Points) -> np.ndarray:
    dx, ahead, z = points
    lower = 1 / (1 + np.exp((z - spine.levels["C4"]) / 5))
    a, b = neck.airway * (1.3 - 0.35 * lower), neck.airway * (0.5 + 0.4 * lower)
    inside = (dx / a) ** 2 + ((ahead + b) / b) ** 2
    return np.where(inside < 1, AIR, hu)


def _canal_and_discs(hu: np.ndarray, spine: _Spine, points: Points) -> np.ndarray:
    dx, dy, z = points
    below_dens = z < spine.levels["C2"] + 9
    disc = (np.abs(dx / spine.width * 2) ** 3 + np.abs(dy / spine.depth * 2) ** 3 < 1.0) & below_dens
    hu = np.where(disc, DISC, hu)
    middle = dy - spine.depth / 2 - spine.canal / 2 - 1
    canal = (dx / 11) ** 2 + (middle / (spine.canal / 2)) ** 2
    hu = np.where(canal < 1, FLUID, hu)
    return np.where((dx / 6.5) ** 2 + (middle / 4.2) ** 2 < 1, CORD, hu)


def _head(hu: np.ndarray, neck: Neck, spine: _Spine, points: Points) -> np.ndarray:
    """A rough occiput above C1, and a jaw: enough for the crop and the eye, without detail."""
    dx, dy, z = points
    atlas, third = spine.levels["C1"], spine.levels["C3"]
    side: Points = (np.abs(dx), dy, z)
    squama = np.abs(ellipsoid(side, (0, 28, atlas + 66), (62, 72, 52))) - 2.5
    squama = np.maximum(squama, 15 - np.sqrt(dx**2 + (dy - 9) ** 2) + 0 * z)
    condyle = ellipsoid(side, (18, 3, atlas + 14), (6, 10, 6.5))
    bone = np.minimum(squama, condyle)
    if neck.jaw:
        chin, angle = -neck.jaw_gap - 42, -neck.jaw_gap
        body = capsule(side, (8, chin, third - 4), (40, angle, third + 4), 5.0, flatten=2.2)
        ramus = capsule(side, (40, angle, third + 6), (46, angle + 8, atlas + 12), 4.0)
        bone = np.minimum(bone, np.minimum(body, ramus))
        teeth = capsule(side, (8, chin + 3, third + 11), (30, angle - 8, third + 16), 4.0)
        hu = np.where(teeth < 0, TOOTH, hu)
    hyoid = capsule(side, (6, -neck.jaw_gap - 14, third - 22), (17, -neck.jaw_gap + 2, third - 18), 2.2)
    bone = np.minimum(bone, hyoid)
    shell = np.where(bone > -1.8, JAW, 350)
    return np.where(bone < 0, shell, hu)
