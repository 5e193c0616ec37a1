"""What looks like a fracture and is none: vessel channels, old fractures, unfused parts, worn joints.

Drawn alike for phantoms with and without an acute fracture. Coordinates are those of the vertebra, mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inference.phantom.anatomy import pillar_centre, spinolaminar
from inference.phantom.mechanisms import as_point, phases, unit
from inference.phantom.specification import Break, Canal, Lesion, Profile, Vertebra

#: Name and levels of every variant.
VARIANTS = {
    "os odontoideum": ("C2",),
    "open posterior arch": ("C1",),
    "limbus vertebra": ("C3", "C4", "C5", "C6", "C7"),
    "unfused spinous tip": ("C6", "C7", "T1"),
    "unfused transverse tip": ("C7", "T1"),
    "old lamina fracture": ("C2", "C3", "C4", "C5", "C6", "C7"),
    "old facet fracture": ("C3", "C4", "C5", "C6", "C7"),
    "old compression": ("C3", "C4", "C5", "C6", "C7", "T1"),
}
OLD_LOSS = (0.1, 0.35)  # share of the height that an old compression has lost in front
SMOOTH_GAP_MM = (1.0, 2.2)


def draw_variants(
    rng: np.random.Generator, vertebrae: Sequence[Vertebra], profile: Profile, *, broken: Sequence[str]
) -> tuple[tuple[Vertebra, ...], tuple[Lesion, ...]]:
    """Old fractures and variants at levels that are not acutely broken, and the vertebrae with them."""
    shapes = {shape.level: shape for shape in vertebrae}
    lesions: list[Lesion] = []
    for _ in range(int(rng.poisson(profile.variants))):
        name = str(rng.choice(list(VARIANTS)))
        level = str(rng.choice(VARIANTS[name]))
        loss = float(rng.uniform(*OLD_LOSS))
        lesion = variant(rng, shapes[level], name)
        if level in broken or level in [other.level for other in lesions]:
            continue
        if name == "old compression":
            shapes[level] = replace(shapes[level], front_loss=loss, back_loss=0.1 * loss)
        lesions.append(lesion)
    return tuple(shapes.values()), tuple(lesions)


def variant(rng: np.random.Generator, shape: Vertebra, name: str) -> Lesion:
    """One variant by name: smooth gaps with a dense rim, or an old compression without any gap."""
    side, along = float(rng.choice([-1.0, 1.0])), float(rng.uniform(0.2, 0.6))
    px, py = pillar_centre(shape)
    back = spinolaminar(shape)
    front, low = -shape.depth / 2, -shape.height / 2
    tip = (0.0, back + shape.spinous * 0.75, -4 - 0.45 * shape.spinous * 0.75)
    places: dict[str, tuple[Sequence[float], Sequence[float], float]] = {
        "os odontoideum": ((0, -0.5, shape.height / 2 + 4), (0, 0.1, 1), 9.0),
        "open posterior arch": ((0, shape.depth - 9.5, 0), (1, 0, 0), 7.0),
        "limbus vertebra": ((0, front + 3.0, low + 3.0), (0, -0.7, -0.7), 7.0),
        "unfused spinous tip": (tip, (0, 0.9, -0.45), 7.0),
        "unfused transverse tip": ((side * (shape.width / 2 + 9), py - 2, -2), (side, 0.2, 0), 7.0),
        "old lamina fracture": (
            (side * px * (1 - along), py + 3 + (back - py - 3) * along, -1 - 3 * along),
            (side * 0.7, -0.7, 0),
            7.0,
        ),
        "old facet fracture": ((side * px, py, float(rng.uniform(-3, 3))), (0.3 * side, 0.6, 0.7), 8.0),
    }
    breaks: tuple[Break, ...] = ()
    if name in places:
        point, normal, reach = places[name]
        direction = unit(np.array(normal, float) + 0.1 * rng.standard_normal(3))
        gap = float(rng.uniform(*SMOOTH_GAP_MM)) * (1.5 if name in ("os odontoideum", "open posterior arch") else 1)
        breaks = (
            Break(
                point=as_point(point),
                normal=as_point(direction),
                gap_mm=gap,
                reach_mm=reach,
                shift=(0.0, 0.0, 0.0),
                phases=phases(rng),
            ),
        )
    return Lesion(level=shape.level, name=name, acute=False, breaks=breaks)


def wear(rng: np.random.Generator, vertebrae: Sequence[Vertebra], amount: float) -> tuple[Vertebra, ...]:
    """Age the joints: osteophytes, facet sclerosis, gas in discs, bridges; most at C5 to C7."""
    age = float(rng.uniform(0, 2)) * amount
    stiff = rng.random() < 0.08 * age  # hyperostosis bridges several levels
    fused = int(rng.integers(1, 6)) if rng.random() < 0.04 else -1  # born with two vertebrae in one
    worn = []
    for index, shape in enumerate(vertebrae):
        draw = rng.random(4)
        here = age * (1.3 if shape.level in ("C5", "C6", "C7") else 0.6)
        below_disc = shape.level not in ("C1", "T1")
        worn.append(
            replace(
                shape,
                osteophyte=float(4.0 * here * draw[0] * (draw[0] > 0.5)),
                sclerosis=float(500 * here * draw[1] * (draw[1] > 0.5)),
                gas=bool(below_disc and draw[2] < 0.12 * here),
                bridged=bool(below_disc and (index == fused or (stiff and draw[3] < 0.7))),
            )
        )
    return tuple(worn)


def draw_canals(rng: np.random.Generator, vertebrae: Sequence[Vertebra], profile: Profile) -> tuple[Canal, ...]:
    """Basivertebral veins of every body below C2, and nutrient canals anywhere."""
    canals: list[Canal] = []
    for shape in vertebrae:
        if shape.level not in ("C1", "C2"):
            canals += _basivertebral(rng, shape)
        for _ in range(int(rng.poisson(profile.canals))):
            step = unit(rng.standard_normal(3) * (1, 1, 0.4)) * rng.uniform(2.0, 4.0)
            middle = _somewhere(rng, shape)
            canals.append(
                Canal(
                    level=shape.level,
                    start=as_point(middle - step),
                    end=as_point(middle + step),
                    radius_mm=float(rng.uniform(0.35, 0.7)),
                )
            )
    return tuple(canals)


def _somewhere(rng: np.random.Generator, shape: Vertebra) -> np.ndarray:
    """A point in the body, a pillar or a lamina."""
    px, py = pillar_centre(shape)
    side, along = float(rng.choice([-1.0, 1.0])), float(rng.uniform(0.1, 0.9))
    places = (
        rng.uniform(-0.35, 0.35, 3) * (shape.width, shape.depth, shape.height),
        np.array([side * px, py, float(rng.uniform(-4, 4))]),
        np.array([side * px * (1 - along), py + 3 + (spinolaminar(shape) - py - 3) * along, -1 - 3 * along]),
    )
    return np.asarray(places[int(rng.integers(len(places)))])


def _basivertebral(rng: np.random.Generator, shape: Vertebra) -> list[Canal]:
    radius, height = float(rng.uniform(0.5, 1.3)), float(rng.uniform(-1.0, 1.0))
    start = (0.0, shape.depth / 2, height)
    reach = float(rng.uniform(-0.1, 0.25)) * shape.depth
    ends = [(side * float(rng.uniform(0.05, 0.25)) * shape.width, reach, height) for side in (-1, 1)]
    return [Canal(level=shape.level, start=start, end=end, radius_mm=radius) for end in ends]
