"""Bones around the cervical spine: skull base, jaw, hyoid, larynx, clavicles, bone in the nuchal ligament.

On the coarse grid of the soft tissue: enough for the crop and the eye, without fine detail.
"""

from __future__ import annotations

import math

import numpy as np

from inference.phantom.anatomy import Points, capsule, ellipsoid
from inference.phantom.soft_tissue import Course, course_of
from inference.phantom.specification import Neck, PhantomSpec

CORTEX, MARROW, TOOTH, AIR_CELLS = 900, 350, 2200, -500  # HU
SHELL_MM = 1.8


def head(hu: np.ndarray, spec: PhantomSpec, points: Points) -> np.ndarray:
    """Add the bones to HU (slices, rows, columns) at open-mesh world coordinates."""
    x, y, z = points
    course = course_of(spec.vertebrae, z)
    turn = spec.vertebrae[0].yaw  # the head turns with C1
    dx, dy = x - course.x, y - course.y
    turned: Points = (
        dx * math.cos(turn) + dy * math.sin(turn),
        dy * math.cos(turn) - dx * math.sin(turn),
        z,
    )
    hu = _skull(hu, course, turned)
    if spec.neck.jaw:
        hu = _jaw(hu, spec.neck, course, turned)
    hu = _larynx(hu, spec.neck, course, (dx, dy, z))
    return _girdle(hu, spec, (dx, dy, z))


def _bone(hu: np.ndarray, distance: np.ndarray) -> np.ndarray:
    shell = np.where(distance > -SHELL_MM, CORTEX, MARROW)
    return np.where(distance < 0, shell, hu)


def _skull(hu: np.ndarray, course: Course, points: Points) -> np.ndarray:
    """Occiput with its foramen, condyles on C1, clivus in front, mastoids with air cells at the sides."""
    dx, dy, z = points
    atlas = course.levels["C1"]
    side: Points = (np.abs(dx), dy, z)
    squama = np.abs(ellipsoid(side, (0, 28, atlas + 66), (62, 72, 52))) - 2.5
    squama = np.maximum(squama, 15 - np.sqrt(dx**2 + (dy - 9) ** 2) + 0 * z)
    condyle = ellipsoid(side, (18, 3, atlas + 14), (6, 10, 6.5))
    clivus = capsule(side, (0, -9, atlas + 18), (0, -24, atlas + 38), 5.0)
    mastoid = ellipsoid(side, (47, 8, atlas + 14), (9, 13, 18))
    cells = np.sin(dx * 1.1) * np.sin(dy * 1.3) * np.sin(z * 1.2) > 0.15
    hu = _bone(hu, np.minimum(np.minimum(squama, condyle), np.minimum(clivus, mastoid)))
    return np.where((mastoid < -2.5) & cells, AIR_CELLS, hu)


def _jaw(hu: np.ndarray, neck: Neck, course: Course, points: Points) -> np.ndarray:
    dx, dy, z = points
    side: Points = (np.abs(dx), dy, z)
    atlas, third = course.levels["C1"], course.levels["C3"]
    chin, angle = -neck.jaw_gap - 42, -neck.jaw_gap
    body = capsule(side, (8, chin, third - 4), (40, angle, third + 4), 5.0, flatten=2.2)
    ramus = capsule(side, (40, angle, third + 6), (46, angle + 8, atlas + 12), 4.0)
    teeth = capsule(side, (8, chin + 3, third + 11), (30, angle - 8, third + 16), 4.0)
    gaps = np.abs(np.sin(0.42 * (dx + dy))) > 0.25  # between single teeth
    hu = np.where((teeth < 0) & gaps, TOOTH, hu)
    return _bone(hu, np.minimum(body, ramus))


def _larynx(hu: np.ndarray, neck: Neck, course: Course, points: Points) -> np.ndarray:
    """Hyoid bone, thyroid and cricoid cartilage; the cartilages ossify with age."""
    dx, dy, z = points
    side: Points = (np.abs(dx), dy, z)
    third = course.levels["C3"]
    front = -neck.jaw_gap - 14
    hyoid = capsule(side, (6, front, third - 22), (17, front + 16, third - 18), 2.2)
    plate = capsule(side, (2, front - 4, third - 38), (16, front + 14, third - 36), 1.6, flatten=6.0)
    ring = np.sqrt((np.sqrt(dx**2 + (dy - front - 4) ** 2) - 10) ** 2 + ((z - third + 56) / 2.5) ** 2) - 2.0
    hu = np.where(np.minimum(plate, ring) < 0, neck.cartilage_hu, hu)
    return _bone(hu, hyoid)


def _girdle(hu: np.ndarray, spec: PhantomSpec, points: Points) -> np.ndarray:
    """Clavicles low in front, and ossicles in the nuchal ligament behind spinous processes."""
    dx, dy, z = points
    side: Points = (np.abs(dx), dy, z)
    chest = spec.vertebrae[-1]
    distance = capsule(side, (12, -52, chest.centre[2] - 8), (95, -26, chest.centre[2] + 14), 5.5)
    for shape in spec.vertebrae:
        if shape.level in spec.neck.nuchal:
            tip = shape.depth / 2 + shape.canal_depth + 2.5 + shape.spinous
            low = shape.centre[2] - 4 - 0.45 * shape.spinous
            distance = np.minimum(distance, ellipsoid(points, (1.0, tip + 9, low), (2.2, 4.5, 5.5)))
    return _bone(hu, distance)
