"""Signed distance functions of cervical and upper thoracic vertebrae: millimetres to the bone, negative inside.

Points are three float32 arrays (x left, y back, z head) in the vertebra's own coordinates. Shapes are
mirrored in |x|; the caller bends the coordinates so that left and right differ. Sizes follow the usual
anatomical tables only roughly: the aim is a shape that reads as a cervical vertebra.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from inference.phantom.specification import Point, Vertebra

Points: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

BLEND_MM = 1.5  # radius of the fillet where two parts of a vertebra meet
FACET_SLOPE = 0.707  # facet joints fall backwards at about 45 degrees
JOINT_MM = 1.3  # facet joint space
UNCUS_MM = 2.5  # height of the uncinate lip
FORAMEN_MM = 2.8  # radius of the transverse foramen


def vertebra(points: Points, shape: Vertebra) -> np.ndarray:
    """Distance to the surface of any cervical or upper thoracic level."""
    x, y, z = points
    mirrored = (np.abs(x), y, z)
    if shape.level == "C1":
        return _atlas(mirrored, shape)
    bone = blend(body(mirrored, shape), _arch(mirrored, shape))
    if shape.bridged:
        bone = blend(bone, _bridge(mirrored, shape))
    if shape.level.startswith("T"):
        return blend(bone, _thoracic_sides(mirrored, shape))
    bone = blend(bone, _transverse(mirrored, shape))
    if shape.level == "C2":
        bone = blend(bone, _dens(mirrored, shape))
    return np.asarray(np.maximum(bone, _outside_foramen(mirrored, shape)))


def extent(shape: Vertebra) -> tuple[Point, Point]:
    """Lowest and highest corner of a box around the vertebra, in its own coordinates."""
    if shape.level == "C1":
        return (-44.0, -16.0, -14.0), (44.0, 36.0, 14.0)
    side = 50.0 if shape.level.startswith("T") else shape.width / 2 + 16
    top = shape.height / 2 + (24.0 if shape.level == "C2" else 8.0)
    back = shape.depth / 2 + shape.canal_depth + shape.spinous + 9
    return (-side, -shape.depth / 2 - 5, -shape.height / 2 - 7 - 0.45 * shape.spinous), (side, back, top)


def capsule(points: Points, start: Point, end: Point, radius: float, flatten: float = 1.0) -> np.ndarray:
    """Distance to a rod with round ends; `flatten` > 1 stretches its cross-section along z."""
    axis = np.array(end, np.float32) - np.array(start, np.float32)
    axis[2] /= flatten
    x, y, z = points[0] - start[0], points[1] - start[1], (points[2] - start[2]) / np.float32(flatten)
    along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / np.float32(axis @ axis), 0, 1)
    squares = (x - along * axis[0]) ** 2 + (y - along * axis[1]) ** 2 + (z - along * axis[2]) ** 2
    return np.asarray(np.sqrt(squares) - np.float32(radius))


def ellipsoid(points: Points, centre: Point, radii: Point) -> np.ndarray:
    """Approximate distance to an ellipsoid (exact on its surface)."""
    squares = sum(((p - c) / r) ** 2 for p, c, r in zip(points, centre, radii, strict=True))
    return np.asarray((np.sqrt(squares) - 1) * np.float32(min(radii)))


def blend(a: np.ndarray, b: np.ndarray, radius: float = BLEND_MM) -> np.ndarray:
    """Union with a fillet (polynomial smooth minimum)."""
    nearness = np.maximum(np.float32(radius) - np.abs(a - b), 0) / np.float32(radius)
    return np.asarray(np.minimum(a, b) - nearness * nearness * np.float32(radius / 4))


def pillar_centre(shape: Vertebra) -> tuple[float, float]:
    """(x, y) of the left articular pillar."""
    return shape.pillar, shape.depth / 2 + 4.5


def spinolaminar(shape: Vertebra) -> float:
    """y where the laminae meet."""
    return shape.depth / 2 + shape.canal_depth + 2.5


def foramen_centre(shape: Vertebra) -> tuple[float, float]:
    """(x, y) of the left transverse foramen."""
    return shape.width / 2 + 4.0, shape.depth / 2 - 6.5


def below_endplate(points: Points, shape: Vertebra) -> np.ndarray:
    """mm below the upper endplate of the body, along z; what the body has lost in height is lost at the top."""
    x, y, z = np.abs(points[0]), points[1], points[2]
    front = np.clip(0.5 - y / np.float32(shape.depth), 0, 1)
    lost = np.float32(shape.height) * (shape.back_loss + (shape.front_loss - shape.back_loss) * front)
    return np.asarray(np.float32(shape.height / 2) + _uncus(x, shape) - _hollow(x, y, shape) - lost - z)


def beside_facet(points: Points, shape: Vertebra) -> np.ndarray:
    """Distance to the nearer joint surface of the articular pillars, mm; large away from the pillars."""
    x, y, z = np.abs(points[0]), points[1], points[2]
    px, py = pillar_centre(shape)
    height = np.abs((y - py) * np.float32(FACET_SLOPE) + z * np.float32(FACET_SLOPE))
    inside = np.sqrt((x - px) ** 2 + (y - py) ** 2) < 9
    return np.where(inside, np.abs(np.float32((shape.stacking * FACET_SLOPE - JOINT_MM) / 2) - height), 99)


def _uncus(x: np.ndarray, shape: Vertebra) -> np.ndarray:
    """Height of the uncinate lip at the sides of the upper endplate; the lower one is cut out to match."""
    height = np.float32(UNCUS_MM if shape.level.startswith("C") else 0)
    return np.asarray(height * np.clip((x / np.float32(shape.width / 2) - 0.6) / 0.3, 0, 1))


def _hollow(x: np.ndarray, y: np.ndarray, shape: Vertebra) -> np.ndarray:
    """How far both endplates sink in towards the middle of the disc."""
    radial = np.cbrt((x / np.float32(shape.width / 2)) ** 3 + (np.abs(y) / np.float32(shape.depth / 2)) ** 3)
    return np.asarray(1.2 * (1 - np.minimum(radial, 1) ** 2))


def _bridge(points: Points, shape: Vertebra) -> np.ndarray:
    """Flowing bone in front of the disc below, as in diffuse idiopathic skeletal hyperostosis."""
    front, disc = -shape.depth / 2 - 0.5, shape.stacking - shape.height
    return capsule(points, (3.0, front, 0.0), (3.0, front - 0.5, -shape.height / 2 - disc - 2), 2.6)


def body(points: Points, shape: Vertebra) -> np.ndarray:
    """The vertebral body alone: waist, flat back wall, hollow endplates."""
    x, y, z = points
    waist = 1 - 0.07 * (1 - np.clip(2 * np.abs(z) / shape.height, 0, 1) ** 2)
    a, b = shape.width / 2 * waist, shape.depth / 2 * waist
    radial = np.cbrt((x / a) ** 3 + (np.abs(y) / b) ** 3)  # superellipse: flat back wall, round corners
    wall: np.ndarray = (radial - 1) * np.float32(shape.depth / 2)
    if shape.osteophyte:
        rim = np.exp(-(((shape.height / 2 - np.abs(z)) / 1.8) ** 2)) * np.clip(0.6 - y / np.float32(shape.depth), 0, 1)
        wall = wall - np.float32(shape.osteophyte) * rim
    top = -below_endplate(points, shape)
    bottom = -z - (np.float32(shape.height / 2) - _uncus(x, shape) - _hollow(x, y, shape))
    return -blend(-wall, -np.maximum(top, bottom), 1.0)


def _arch(points: Points, shape: Vertebra) -> np.ndarray:
    """Pedicles, pillars with sloping facets, laminae, and the spinous process."""
    x, y, z = points
    px, py = pillar_centre(shape)
    back = spinolaminar(shape)
    pedicle = capsule(points, (shape.width / 2 - 3, shape.depth / 2 - 3, 1.5), (px, py - 1, 1.0), 3.0)
    column = (np.sqrt(((x - px) / 6.2) ** 2 + ((y - py) / 6.0) ** 2) - 1) * np.float32(6)
    facets = np.abs((y - py) * np.float32(FACET_SLOPE) + z * np.float32(FACET_SLOPE))
    pillar = np.maximum(column, facets - np.float32((shape.stacking * FACET_SLOPE - JOINT_MM) / 2))
    lamina = capsule(points, (px - 1, py + 3, -1.0), (0, back, -4.0), 2.5, flatten=2.0)
    tip = (shape.bifid, back + shape.spinous, -4.0 - 0.45 * shape.spinous)
    spinous = capsule(points, (0, back, -4.0), tip, 2.7, flatten=1.6)
    return blend(blend(pedicle, pillar), blend(lamina, spinous))


def _transverse(points: Points, shape: Vertebra) -> np.ndarray:
    """Anterior and posterior bar around the transverse foramen."""
    px, py = pillar_centre(shape)
    fx, fy = foramen_centre(shape)
    tip = fx + 6.0
    front = capsule(points, (shape.width / 2 - 2, fy - 4.0, -1.0), (tip, fy - 3.0, -3.0), 2.2)
    back = capsule(points, (px, py - 4.0, -1.0), (tip, fy + 3.0, -3.0), 2.4)
    bridge = capsule(points, (tip - 1, fy - 3.0, -3.0), (tip - 1, fy + 3.0, -3.0), 2.0)
    return np.asarray(np.minimum(np.minimum(front, back), bridge))


def _outside_foramen(points: Points, shape: Vertebra) -> np.ndarray:
    fx, fy = foramen_centre(shape)
    return np.asarray(np.float32(FORAMEN_MM) - np.sqrt((points[0] - fx) ** 2 + (points[1] - fy) ** 2))


def _dens(points: Points, shape: Vertebra) -> np.ndarray:
    top = shape.height / 2
    peg = capsule(points, (0, -1.0, top - 2), (0, 0.5, top + 14), 4.6)
    shoulder = ellipsoid(points, (13.5, 3.0, top - 4), (8.0, 8.0, 4.8))
    return blend(peg, shoulder)


def _thoracic_sides(points: Points, shape: Vertebra) -> np.ndarray:
    px, py = pillar_centre(shape)
    process = capsule(points, (px, py, 0), (px + 15, py + 9, 3.0), 4.0)
    rib = capsule(points, (shape.width / 2 + 3, shape.depth / 2 - 4, 3.0), (px + 26, py + 8, -5.0), 3.6)
    return np.asarray(np.minimum(process, rib))


def _atlas(points: Points, shape: Vertebra) -> np.ndarray:
    """C1: a ring around dens and cord, two lateral masses, transverse processes with their foramina."""
    x, y, z = points
    half_width, half_depth = shape.width / 2, shape.depth / 2
    around = np.sqrt((x / half_width) ** 2 + ((y - half_depth + 9.5) / half_depth) ** 2)
    ring = np.sqrt(((around - 1) * np.float32(half_depth)) ** 2 + (z / 1.7) ** 2) - np.float32(2.9)
    mass = ellipsoid(points, (half_width - 3, 4.0, 0.0), (7.0, 9.5, 6.3))
    process = capsule(points, (half_width + 2, 5.0, -1.0), (half_width + 15, 8.0, -2.0), 3.8)
    hole = np.float32(FORAMEN_MM) - np.sqrt((x - half_width - 7) ** 2 + (y - 6) ** 2)
    return np.asarray(np.maximum(blend(blend(ring, mass), process), hole))
