"""Draws the vertebrae of a cervical or lumbar spine with their discs, and moves what lies above a slip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from inference.phantom import spine
from inference.phantom.mechanisms import phases
from inference.phantom.mr.specification import Disc
from inference.phantom.specification import Vertebra

#: Average adult size in mm: width, depth, height, disc below, canal depth, pillar, spinous length.
_LUMBAR = {
    "T10": (31.0, 29.0, 22.0, 5.5, 15.5, 13.0, 24.0),
    "T11": (34.0, 30.0, 23.0, 6.0, 16.0, 13.0, 24.0),
    "T12": (38.0, 31.0, 25.0, 7.0, 17.0, 13.5, 26.0),
    "L1": (41.0, 32.0, 26.5, 8.0, 17.0, 14.5, 29.0),
    "L2": (43.0, 33.0, 27.0, 9.0, 16.5, 15.0, 31.0),
    "L3": (45.0, 34.0, 27.0, 10.0, 16.0, 16.0, 32.0),
    "L4": (47.0, 34.5, 27.0, 11.0, 16.0, 17.5, 29.0),
    "L5": (50.0, 34.5, 26.5, 10.5, 16.5, 20.0, 23.0),
    "S1": (50.0, 32.0, 29.0, 2.5, 15.0, 22.0, 9.0),
    "S2": (44.0, 22.0, 25.0, 1.5, 11.0, 20.0, 7.0),
    "S3": (38.0, 16.0, 21.0, 1.0, 8.0, 18.0, 5.0),
    "S4": (32.0, 12.5, 18.0, 1.0, 6.0, 15.0, 3.0),
    "S5": (26.0, 10.0, 15.0, 2.0, 4.0, 12.0, 1.0),
    "Co1": (16.0, 8.5, 10.0, 1.5, 1.0, 8.0, 0.0),
    "Co2": (10.0, 7.0, 9.0, 1.0, 1.0, 5.0, 0.0),
    "Co3": (8.0, 6.0, 8.0, 1.0, 1.0, 4.0, 0.0),
}
#: Forward lean against the top of the sacrum, degrees, for a lordosis of 1; below S1 as it is.
_LEAN = {"T10": -53, "T11": -54, "T12": -54, "L1": -52, "L2": -48, "L3": -41, "L4": -31, "L5": -16, "S1": 0}
_SACRUM = {"S2": 7.0, "S3": 2.0, "S4": -18.0, "S5": -40.0, "Co1": -58.0, "Co2": -72.0, "Co3": -84.0}
#: The same for the thoracic vertebrae below a cervical spine.
_THORACIC = {
    "T2": (29.0, 18.0, 17.5, 4.5, 15.5, 19.0, 32.0),
    "T3": (29.0, 19.0, 18.0, 4.5, 15.5, 17.0, 32.0),
    "T4": (29.0, 20.5, 18.5, 4.5, 15.5, 16.0, 33.0),
    "T5": (29.0, 22.0, 19.0, 4.5, 15.5, 15.0, 33.0),
}
SIX_LUMBAR, FOUR_LUMBAR, TRANSITIONAL = 0.05, 0.03, 0.06
SCOLIOSIS = 0.12
WEAR_SHARE = {1: 0.0, 2: 0.03, 3: 0.15, 4: 0.32, 5: 0.5}  # of its height that a disc of a Pfirrmann grade has lost


@dataclass(frozen=True)
class Column:
    """Vertebrae from the head down, and the height of the disc under each but the last, mm."""

    vertebrae: tuple[Vertebra, ...]
    heights: dict[str, float]


def draw_cervical(rng: np.random.Generator) -> Column:
    """C1 to T1 as in the CT phantom, and T2 to T5 under them."""
    neck = spine.draw_spine(rng)
    size = neck[-1].height / 17.0
    lean = math.degrees(neck[-1].pitch) + np.array([1.0, 0.0, -2.5, -5.0]) + rng.normal(0, 1, 4)
    chest = [
        _vertebra(rng, level, np.array(_THORACIC[level]) * size, math.radians(pitch), 0.0)
        for level, pitch in zip(_THORACIC, lean, strict=True)
    ]
    heights = {v.level: v.stacking - v.height for v in (*neck, *chest)} | {"T1": 4.5 * size}
    vertebrae = list(neck)
    for v in chest:
        vertebrae.append(_placed(v, vertebrae[-1], heights[vertebrae[-1].level], down=True))
    return Column(tuple(_straightened(v) for v in vertebrae), heights)


def _straightened(shape: Vertebra) -> Vertebra:
    """Heads lie still and nearly straight in a coil."""
    x, y, z = shape.centre
    return replace(shape, centre=(0.25 * x, y, z), yaw=0.25 * shape.yaw, roll=0.25 * shape.roll)


def draw_lumbar(rng: np.random.Generator) -> Column:
    """T10 to the coccyx on a lordotic curve; sometimes six or four lumbar vertebrae, or a transitional S1."""
    size, chance = float(rng.uniform(0.9, 1.1)), float(rng.random())
    slope, lordosis = math.radians(float(rng.uniform(28, 48))), float(rng.uniform(0.75, 1.15))
    bent = float(rng.uniform(4, 14)) * float(rng.choice([-1, 1])) if rng.random() < SCOLIOSIS else 0.0
    transitional = bool(rng.random() < TRANSITIONAL)
    sizes = {level: np.array(values) for level, values in _LUMBAR.items()}
    if transitional:  # the first sacral body is square and has a disc under it
        sizes["S1"] = np.array([50.0, 33.0, 27.0, 6.0, 15.0, 21.0, 12.0])
        sizes["S2"] = np.array([46.0, 29.0, 26.0, 1.5, 12.0, 20.0, 8.0])
    vertebrae, heights = [], {}
    levels = list(_LUMBAR)
    for index, level in enumerate(levels):
        lean = _SACRUM.get(level, _LEAN.get(level, 0) * lordosis)
        roll = math.radians(bent * math.sin(math.pi * (index - 2) / 7)) if index < 9 else 0.0
        scale = size * rng.normal(1, 0.025, 7)
        shape = _vertebra(rng, level, sizes[level] * scale, slope + math.radians(lean + rng.normal(0, 1)), roll)
        vertebrae.append(shape)
        heights[level] = shape.stacking - shape.height
    if chance < SIX_LUMBAR + FOUR_LUMBAR:
        vertebrae, heights = _counted(vertebrae, heights, six=chance < SIX_LUMBAR)
    start = next(i for i, v in enumerate(vertebrae) if v.level == "S1")
    placed = [vertebrae[start]]
    for v in vertebrae[:start][::-1]:
        placed.insert(0, _placed(v, placed[0], heights[v.level], down=False))
    for v in vertebrae[start + 1 :]:
        placed.append(_placed(v, placed[-1], heights[placed[-1].level], down=True))
    return Column(tuple(placed), heights)


def _counted(
    vertebrae: Sequence[Vertebra], heights: dict[str, float], *, six: bool
) -> tuple[list[Vertebra], dict[str, float]]:
    """The same bones counted from above when there are six or four lumbar vertebrae; S1 stays where it is."""
    sacrum = [v for v in vertebrae if v.level[0] in "SC"]
    above = [v for v in vertebrae if v.level[0] in "TL"]
    names = [f"T{n}" for n in range(9, 13)] + [f"L{n}" for n in range(1, 7 if six else 5)]
    renamed = [replace(v, level=name) for v, name in zip(above, names[-len(above) :], strict=True)]
    moved = {new.level: heights[old.level] for new, old in zip(renamed, above, strict=True)}
    return [*renamed, *sacrum], moved | {v.level: heights[v.level] for v in sacrum}


def narrowed(column: Column, discs: Sequence[Disc]) -> tuple[Vertebra, ...]:
    """What lies above a worn disc comes down by the height that the disc has lost."""
    vertebrae = column.vertebrae
    for disc in discs:
        lower = next(v for v in vertebrae if v.level == disc.lower)
        lost = column.heights[disc.upper] * WEAR_SHARE[disc.grade]
        down = (0.0, math.sin(lower.pitch) * lost, -math.cos(lower.pitch) * lost)
        vertebrae = moved_above(vertebrae, disc.lower, down)
    return vertebrae


def slipped(vertebrae: Sequence[Vertebra], disc: Disc, millimetres: float) -> tuple[Vertebra, ...]:
    """Everything above a disc moved forwards (or backwards, if negative) along the endplate of the vertebra below."""
    lower = next(v for v in vertebrae if v.level == disc.lower)
    shift = (0.0, -math.cos(lower.pitch) * millimetres, -math.sin(lower.pitch) * millimetres)
    return moved_above(vertebrae, disc.lower, shift)


def moved_above(vertebrae: Sequence[Vertebra], level: str, shift: tuple[float, float, float]) -> tuple[Vertebra, ...]:
    """Everything above a level moved by a vector."""
    above = next(i for i, v in enumerate(vertebrae) if v.level == level)
    x, y, z = shift
    return tuple(
        replace(v, centre=(v.centre[0] + x, v.centre[1] + y, v.centre[2] + z)) if i < above else v
        for i, v in enumerate(vertebrae)
    )


def _vertebra(rng: np.random.Generator, level: str, sizes: np.ndarray, pitch: float, roll: float) -> Vertebra:
    width, depth, height, disc, canal, pillar, spinous = (float(v) for v in sizes)
    return Vertebra(
        level=level,
        centre=(0.0, 0.0, 0.0),
        pitch=pitch,
        yaw=0.0,
        roll=roll,
        width=width,
        depth=depth,
        height=height,
        canal_depth=canal,
        pillar=pillar,
        stacking=height + disc,
        spinous=spinous,
        bifid=0.0,
        warp=phases(rng),
    )


def corners(upper: Vertebra, lower: Vertebra) -> tuple[tuple[float, float], tuple[float, float]]:
    """(y, z) of the lower back corner of a body and of the upper back corner of the body below it, world mm."""
    places = []
    for shape, sign in ((upper, -1.0), (lower, 1.0)):
        sin, cos, half, back = math.sin(shape.pitch), math.cos(shape.pitch), sign * shape.height / 2, shape.depth / 2
        places.append((shape.centre[1] + back * cos - half * sin, shape.centre[2] + back * sin + half * cos))
    return places[0], places[1]


def offset(upper: Vertebra, lower: Vertebra) -> float:
    """How far the upper body lies behind the lower one, along the upper endplate of the lower one, mm."""
    (uy, uz), (ly, lz) = corners(upper, lower)
    return (uy - ly) * math.cos(lower.pitch) + (uz - lz) * math.sin(lower.pitch)


def _placed(shape: Vertebra, other: Vertebra, disc: float, *, down: bool) -> Vertebra:
    """A vertebra above or below a placed one, a disc between them and their back corners in line."""
    sign = -1.0 if down else 1.0
    x, y, z = other.centre
    for length, pitch in (
        (other.height / 2, other.pitch),
        (disc, (shape.pitch + other.pitch) / 2),
        (shape.height / 2, shape.pitch),
    ):
        y -= sign * math.sin(pitch) * length
        z += sign * math.cos(pitch) * length
    x += sign * (math.sin(shape.roll) + math.sin(other.roll)) / 2 * (shape.height + disc)
    placed = replace(shape, centre=(x, y, z))
    lower = placed if down else other
    off = sign * offset(*((other, placed) if down else (placed, other)))
    return replace(placed, centre=(x, y - off * math.cos(lower.pitch), z - off * math.sin(lower.pitch)))
