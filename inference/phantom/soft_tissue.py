"""The soft neck around the vertebrae, in HU: skin, fat, muscle, vessels, airway, cord, discs.

Rendered on every second voxel and interpolated: none of it has detail finer than 1.5 mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from inference.phantom.anatomy import Points, foramen_centre
from inference.phantom.specification import Neck, PhantomSpec, Vertebra

AIR, FAT, MUSCLE, DISC, CORD, FLUID, SKIN = -1000, -95, 55, 90, 42, 12, 20  # HU
BLOOD, GAS, PLASTIC, COLLAR = 68, -350, 180, -40
SWELLING_REACH_MM, HAEMATOMA_REACH_MM = 14.0, 11.0
ARTERY_MM = 2.1


@dataclass(frozen=True)
class Course:
    """Where the spine runs: arrays over z that broadcast with (slices, 1, 1)."""

    x: np.ndarray
    y: np.ndarray
    width: np.ndarray
    depth: np.ndarray
    canal: np.ndarray
    #: The left transverse foramen relative to (x, y).
    foramen: tuple[np.ndarray, np.ndarray]
    #: World z of each level's centre.
    levels: dict[str, float]


def soft_tissue(spec: PhantomSpec, points: Points, rng: np.random.Generator) -> np.ndarray:
    """HU (slices, rows, columns) for open-mesh world coordinates, before bone."""
    x, y, z = points
    course = course_of(spec.vertebrae, z)
    dx, dy = x - course.x, y - course.y
    hu = _outline(spec.neck, course, (dx, dy, z), rng)
    front = -course.depth / 2 - _prevertebral(spec, course, z)
    hu = _airway(hu, spec.neck, course, (dx, dy - front, z))
    hu = _discs(hu, spec.vertebrae, course, (dx, dy, z))
    hu = _canal(hu, spec, course, (dx, dy, z))
    return _vertebral_arteries(hu, spec.neck, course, (dx, dy, z))


def refine(coarse: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Interpolate a half-resolution volume linearly to `shape` (which may be odd)."""
    fine = coarse
    for axis, count in enumerate(shape):
        after = np.concatenate([np.delete(fine, 0, axis), np.take(fine, [-1], axis)], axis)
        pairs = np.stack([fine, (fine + after) / 2], axis + 1)
        merged = pairs.reshape(*fine.shape[:axis], -1, *fine.shape[axis + 1 :])
        fine = np.take(merged, range(count), axis)
    return np.asarray(fine)


def course_of(vertebrae: Sequence[Vertebra], z: np.ndarray) -> Course:
    """The course of the spine at the heights `z`, linear between the vertebrae."""
    upward = sorted(vertebrae, key=lambda v: v.centre[2])
    heights = [v.centre[2] for v in upward]

    def along(value: Callable[[Vertebra], float]) -> np.ndarray:
        return np.asarray(np.interp(z, heights, [value(v) for v in upward]), np.float32)

    def foramen(v: Vertebra) -> tuple[float, float]:
        return (v.width / 2 + 7, 6.0) if v.level == "C1" else foramen_centre(v)

    return Course(
        x=along(lambda v: v.centre[0]),
        y=along(lambda v: v.centre[1]),
        width=along(lambda v: 17.0 if v.level == "C1" else v.width),
        depth=along(lambda v: 14.0 if v.level == "C1" else v.depth),
        canal=along(lambda v: v.canal_depth),
        foramen=(along(lambda v: foramen(v)[0]), along(lambda v: foramen(v)[1])),
        levels={v.level: v.centre[2] for v in vertebrae},
    )


def _outline(neck: Neck, course: Course, points: Points, rng: np.random.Generator) -> np.ndarray:
    dx, dy, z = points
    below = np.clip((course.levels["C7"] + 8 - z) / 45, 0, 1)
    above = np.clip((z - course.levels["C3"]) / 60, 0, 1)
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
    for side in (-1, 1):  # carotid artery, and the jugular vein beside it
        artery = np.sqrt((dx - side * 25) ** 2 + (dy + 16) ** 2)
        vein = np.sqrt((dx - side * 33) ** 2 + ((dy + 13) / 1.3) ** 2)
        hu = np.where((vein < 5.5) & (depth > 6), 0.5 * (neck.vessel_hu + 45), hu)
        hu = np.where((artery < 3.6) & (depth > 6), neck.vessel_hu, hu)
    hu = np.where(depth < 0, AIR, hu)
    if neck.collar:
        shell = np.abs(depth + 9 - 1.5 * blobs) < 2.2
        hu = np.where(shell & (z < course.levels["C2"]) & (z > course.levels["C7"] - 10), COLLAR, hu)
    return np.asarray(hu, np.float32)


def _prevertebral(spec: PhantomSpec, course: Course, z: np.ndarray) -> np.ndarray:
    """Thickness of the tissue in front of the bodies, mm, swollen in front of acute fractures, or by itself."""
    low = 1 / (1 + np.exp((z - course.levels["C5"]) / 4))
    thick = spec.neck.prevertebral + 9 * low
    swollen = [(lesion.level, lesion.swelling_mm) for lesion in spec.acute]
    for level, millimetres in swollen + ([spec.neck.swelling] if spec.neck.swelling else []):
        near = (z - course.levels[level]) / SWELLING_REACH_MM
        thick = thick + millimetres * np.exp(-near * near)
    return np.asarray(thick, np.float32)


def _airway(hu: np.ndarray, neck: Neck, course: Course, points: Points) -> np.ndarray:
    dx, ahead, z = points
    lower = 1 / (1 + np.exp((z - course.levels["C4"]) / 5))
    a, b = neck.airway * (1.3 - 0.35 * lower), neck.airway * (0.5 + 0.4 * lower)
    inside = (dx / a) ** 2 + ((ahead + b) / b) ** 2
    hu = np.where(inside < 1, AIR, hu)
    if neck.tube:
        radius = np.sqrt(dx**2 + (ahead + b) ** 2)
        hu = np.where(radius < 5.6, np.where(radius < 4.0, AIR, PLASTIC), hu)
    return hu


def _discs(hu: np.ndarray, vertebrae: Sequence[Vertebra], course: Course, points: Points) -> np.ndarray:
    dx, dy, z = points
    below_dens = z < course.levels["C2"] + 9
    disc = (np.abs(dx / course.width * 2) ** 3 + np.abs(dy / course.depth * 2) ** 3 < 1.0) & below_dens
    hu = np.where(disc, DISC, hu)
    for shape in vertebrae:
        if shape.gas:
            middle = shape.centre[2] - shape.stacking / 2 - (dy + 2) * np.float32(np.tan(shape.pitch))
            slit = disc & (np.abs(z - middle) < 1.3) & (dy < 0.25 * course.depth)
            hu = np.where(slit, GAS, hu)
    return hu


def _canal(hu: np.ndarray, spec: PhantomSpec, course: Course, points: Points) -> np.ndarray:
    dx, dy, z = points
    middle = dy - course.depth / 2 - course.canal / 2 - 1
    canal = (dx / 11) ** 2 + (middle / (course.canal / 2)) ** 2 < 1
    hu = np.where(canal, FLUID, hu)
    hu = np.where((dx / 6.5) ** 2 + (middle / 4.2) ** 2 < 1, CORD, hu)
    for lesion in spec.acute:
        near = (z - course.levels[lesion.level]) / HAEMATOMA_REACH_MM
        thick = lesion.haematoma_mm * np.exp(-near * near)
        hu = np.where(canal & (middle + course.canal / 2 < thick), BLOOD, hu)
    return hu


def _vertebral_arteries(hu: np.ndarray, neck: Neck, course: Course, points: Points) -> np.ndarray:
    """Through the transverse foramina from C6 to C1, in front of that of C7."""
    dx, dy, z = points
    fx, fy = course.foramen
    entering = 6 * np.clip((course.levels["C6"] - 8 - z) / 10, 0, 1)
    artery = np.sqrt((np.abs(dx) - fx) ** 2 + (dy - fy + entering) ** 2)
    return np.asarray(np.where(artery < ARTERY_MM, neck.vessel_hu, hu), np.float32)
