"""Draws the poses and sizes of the vertebrae of one neck, from a child's to an old man's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inference.phantom.mechanisms import phases
from inference.phantom.specification import LEVELS, Vertebra

#: Average adult size in mm: width, depth, height, disc below, canal depth, pillar, spinous length, bifid.
_SIZES = {
    "C2": (19.0, 15.0, 17.0, 5.0, 17.0, 19.0, 16.0, 5.0),
    "C3": (19.5, 15.0, 13.5, 5.0, 15.5, 19.5, 13.0, 4.0),
    "C4": (20.5, 15.5, 13.0, 5.0, 15.0, 20.0, 13.0, 4.0),
    "C5": (22.0, 16.0, 13.0, 5.0, 15.0, 20.5, 15.0, 4.0),
    "C6": (24.0, 16.5, 13.5, 5.5, 15.0, 21.5, 20.0, 2.5),
    "C7": (26.5, 17.0, 15.0, 5.5, 15.0, 22.0, 29.0, 0.0),
    "T1": (28.0, 17.5, 17.0, 5.5, 15.5, 21.0, 31.0, 0.0),
}
ADULT, CHILD = (0.88, 1.14), (0.74, 0.88)  # size against the average adult
CHILDREN, KYPHOTIC, TURNED = 0.06, 0.15, 0.15  # shares of all necks


def draw_spine(rng: np.random.Generator) -> tuple[Vertebra, ...]:
    """From T1 upwards along a lordotic or, sometimes, kyphotic curve; returned from C1 down."""
    size = float(rng.uniform(*(CHILD if rng.random() < CHILDREN else ADULT)))
    low, high = (rng.uniform(0, 10), rng.uniform(8, 24)) if rng.random() < KYPHOTIC else _lordosis(rng)
    lean = np.linspace(low, high, 7) + rng.normal(0, 1.5, 7)  # degrees, T1 first
    bend, turn = rng.uniform(-8, 8, 2) / 7
    head = rng.uniform(-28, 28) if rng.random() < TURNED else rng.normal(0, 4)
    centre, below = np.zeros(3), 0.0
    spine: list[Vertebra] = []
    for index, level in enumerate(reversed(LEVELS[1:])):
        width, depth, height, disc, canal, pillar, spinous, bifid = (
            float(v) for v in np.array(_SIZES[level]) * size * rng.normal(1, 0.03, 8)
        )
        pitch = math.radians(lean[index])
        upward = np.array([math.sin(math.radians(bend * index)), -math.sin(pitch), math.cos(pitch)])
        centre = centre + (below + height / 2) * upward
        below = height / 2 + float(_SIZES[LEVELS[6 - index]][3] if index < 6 else 5.0) * size
        spine.append(
            Vertebra(
                level=level,
                centre=(float(centre[0]), float(centre[1]), float(centre[2])),
                pitch=pitch,
                yaw=math.radians(turn * index + rng.normal(0, 1.0)),
                roll=math.radians(bend * index + rng.normal(0, 1.0)),
                width=width,
                depth=depth,
                height=height,
                canal_depth=canal,
                pillar=pillar,
                stacking=height + disc,
                spinous=spinous * (0.7 if level == "C2" else 1.0),
                bifid=bifid,
                warp=phases(rng),
            )
        )
    return (_atlas(rng, spine[-1], size, math.radians(head)), *reversed(spine))


def slipped(vertebrae: Sequence[Vertebra], level: str, millimetres: float) -> tuple[Vertebra, ...]:
    """Everything above a level moved forward on it."""
    above = LEVELS.index(level)
    return tuple(
        replace(shape, centre=(shape.centre[0], shape.centre[1] - millimetres, shape.centre[2]))
        if LEVELS.index(shape.level) < above
        else shape
        for shape in vertebrae
    )


def rotation(shape: Vertebra) -> np.ndarray:
    """Columns are the vertebra's axes in world coordinates: side bend, then turn, then forward lean."""
    sp, cp, sy, cy = math.sin(shape.pitch), math.cos(shape.pitch), math.sin(shape.yaw), math.cos(shape.yaw)
    sr, cr = math.sin(shape.roll), math.cos(shape.roll)
    lean = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    bend = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return np.asarray(lean @ turn @ bend, np.float32)


def _lordosis(rng: np.random.Generator) -> tuple[float, float]:
    """Forward lean of T1 and of C2, degrees."""
    return float(rng.uniform(8, 28)), float(rng.uniform(-16, 4))


def _atlas(rng: np.random.Generator, axis: Vertebra, size: float, head: float) -> Vertebra:
    """C1 sits around the dens of C2 and turns with the head."""
    up = rotation(axis)[:, 2] * np.float32(axis.height / 2 + 8 * size)
    x, y, z = (float(c + u) for c, u in zip(axis.centre, up, strict=True))
    return Vertebra(
        level="C1",
        centre=(x, y, z),
        pitch=axis.pitch + math.radians(rng.normal(0, 3)),
        yaw=axis.yaw + head,
        roll=axis.roll,
        width=40 * size,
        depth=37 * size,
        height=10 * size,
        canal_depth=17 * size,
        pillar=18 * size,
        stacking=16 * size,
        spinous=0,
        bifid=0,
        warp=phases(rng),
    )
