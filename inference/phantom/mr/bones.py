"""Signed distance functions of lumbar, lower thoracic and sacral vertebrae, in their own coordinates, mm."""

from __future__ import annotations

import numpy as np

from inference.phantom import anatomy
from inference.phantom.anatomy import Points, blend, capsule, ellipsoid
from inference.phantom.specification import Vertebra

UPPER = ("T1", "T2", "T3", "T4", "T5")


def vertebra(points: Points, shape: Vertebra) -> np.ndarray:
    """Distance to the surface of any level from C1 to the coccyx."""
    if shape.level[0] == "C" and shape.level[1] != "o" or shape.level in UPPER:
        return anatomy.vertebra(points, shape)
    mirrored = (np.abs(points[0]), points[1], points[2])
    if shape.level[0] in "SC":
        return _sacral(mirrored, shape)
    return blend(anatomy.body(mirrored, shape), _arch(mirrored, shape), 2.5)


def extent(shape: Vertebra) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (y, z) of a box around the vertebra in the sagittal plane."""
    if shape.level[0] == "C" and shape.level[1] != "o" or shape.level in UPPER:
        low, high = anatomy.extent(shape)
        return np.array(low[1:]), np.array(high[1:])
    back = shape.depth / 2 + shape.canal_depth + shape.spinous + 8
    below = 24.0 if shape.level[0] in "TL" else 3.0
    return np.array([-shape.depth / 2 - 6, -shape.height / 2 - below]), np.array([back, shape.height / 2 + 9])


def _arch(points: Points, shape: Vertebra) -> np.ndarray:
    """Pedicles, articular processes, laminae, a broad spinous process, transverse processes."""
    x, pillar, back = points[0], shape.pillar, shape.depth / 2
    lamina_y = back + shape.canal_depth + 2.0
    pedicle = capsule(points, (shape.width * 0.32, back - 4, 5.5), (pillar, back + 7, 4.5), 4.0, flatten=1.7)
    upper = capsule(points, (pillar + 2, back + 8, 6), (pillar + 1, back + 9, shape.height / 2 + 4), 4.4)
    lower = capsule(points, (pillar - 3, lamina_y - 2, -6), (pillar - 2, back + 14, -shape.height / 2 - 8), 4.2)
    lamina = capsule(points, (pillar - 3, lamina_y - 3, -1), (0, lamina_y + 2, -6), 3.0, flatten=2.4)
    slope, tall = (-14.0, 2.0) if shape.level[0] == "T" else (-5.0, 3.2)
    tip = (0, lamina_y + shape.spinous, -6 + slope)
    spinous = np.maximum(capsule(points, (0, lamina_y + 2, -7), tip, 3.2, flatten=tall), x - 3.4)
    side = capsule(points, (pillar, back + 5, 3), (pillar + 22, back + 9, 3), 3.0)
    joints = np.minimum(np.minimum(upper, lower), np.minimum(pedicle, side))
    return blend(joints, blend(lamina, spinous), 2.0)


def _sacral(points: Points, shape: Vertebra) -> np.ndarray:
    """A body that tapers downwards, the wings at its sides, and the thin bone behind the sacral canal."""
    x, y, z = points
    taper = 1 + np.float32(0.13) * np.clip(z / np.float32(shape.height / 2), -1, 1)
    body = anatomy.body((x, y / taper, z), shape)
    if shape.level[0] == "C":
        return body
    back = shape.depth / 2 + shape.canal_depth
    wing = ellipsoid(points, (shape.width / 2 + 8, 5, -2), (24, 13, shape.height * 0.62))
    roof = capsule(points, (shape.width * 0.36, back - 3, 0), (0, back + 3, 0), 2.4, flatten=shape.height / 6)
    crest = capsule(points, (0, back + 3, -1), (0, back + 3 + shape.spinous, -3), 2.2, flatten=shape.height / 9)
    sides = ellipsoid(points, (shape.width * 0.42, back / 2 + 4, 0), (6, back / 2 + 4, shape.height * 0.5))
    return np.asarray(np.minimum(blend(body, wing, 3.0), np.minimum(blend(roof, crest), sides)))
