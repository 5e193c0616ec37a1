"""Where fractures and vessel channels sit on a vertebra: draws them from the anatomy, in its coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from inference.phantom.anatomy import pillar_centre, spinolaminar
from inference.phantom.specification import Canal, Fracture, Point, Profile, Site, Vertebra

HEALED_GAP_MM = (1.0, 2.0)


def draw_fractures(
    rng: np.random.Generator, vertebrae: Sequence[Vertebra], profile: Profile, count: int
) -> tuple[Fracture, ...]:
    """`count` acute fractures at different cervical levels."""
    cervical = [v for v in vertebrae if v.level != "T1"]
    chosen = rng.choice(len(cervical), size=count, replace=False)
    return tuple(_draw(rng, cervical[int(index)], profile, healed=False) for index in chosen)


def draw_healed(rng: np.random.Generator, vertebrae: Sequence[Vertebra], profile: Profile) -> tuple[Fracture, ...]:
    """An old fracture or none: a mimic, drawn alike for phantoms with and without an acute fracture."""
    happens, index = rng.random() < profile.healed, int(rng.integers(1, 7))
    return (_draw(rng, vertebrae[index], profile, healed=True),) if happens else ()


def draw_canals(rng: np.random.Generator, vertebrae: Sequence[Vertebra], profile: Profile) -> tuple[Canal, ...]:
    """Basivertebral veins of every body below C2, and nutrient canals anywhere."""
    canals: list[Canal] = []
    for shape in vertebrae:
        if shape.level not in ("C1", "C2"):
            canals += _basivertebral(rng, shape)
        for _ in range(int(rng.poisson(profile.canals))):
            point, _, _ = _site(rng, shape, _any_site(rng, shape))
            step = _unit(rng.standard_normal(3) * (1, 1, 0.4)) * rng.uniform(2.0, 4.0)
            start, end = np.array(point) - step, np.array(point) + step
            canals.append(
                Canal(level=shape.level, start=_point(start), end=_point(end), radius_mm=float(rng.uniform(0.35, 0.7)))
            )
    return tuple(canals)


def _basivertebral(rng: np.random.Generator, shape: Vertebra) -> list[Canal]:
    radius, height = float(rng.uniform(0.5, 1.3)), float(rng.uniform(-1.0, 1.0))
    start = (0.0, shape.depth / 2, height)
    reach = float(rng.uniform(-0.1, 0.25)) * shape.depth
    ends = [(side * float(rng.uniform(0.05, 0.25)) * shape.width, reach, height) for side in (-1, 1)]
    return [Canal(level=shape.level, start=start, end=end, radius_mm=radius) for end in ends]


def _draw(rng: np.random.Generator, shape: Vertebra, profile: Profile, *, healed: bool) -> Fracture:
    site = _any_site(rng, shape)
    point, direction, reach = _site(rng, shape, site)
    normal = _unit(np.array(direction) + 0.35 * rng.standard_normal(3))
    along = np.cross(normal, rng.standard_normal(3))
    shift = _unit(along) * rng.uniform(*profile.displacement_mm) * (rng.random() < 0.6) * (not healed)
    a, b, c, d = (float(p) for p in rng.uniform(0, 2 * math.pi, 4))
    return Fracture(
        level=shape.level,
        site=site,
        point=point,
        normal=_point(normal),
        gap_mm=float(rng.uniform(*(HEALED_GAP_MM if healed else profile.gap_mm))),
        reach_mm=reach,
        shift=_point(shift),
        phases=(a, b, c, d),
        healed=healed,
    )


def _any_site(rng: np.random.Generator, shape: Vertebra) -> Site:
    sites: dict[str, tuple[Site, ...]] = {
        "C1": ("anterior arch", "posterior arch"),
        "C2": ("dens", "dens", "body", "pillar", "lamina"),
    }
    usual: tuple[Site, ...] = ("body", "body", "pillar", "lamina", "spinous process", "transverse process")
    options = sites.get(shape.level, usual)
    return options[int(rng.integers(len(options)))]


def _site(rng: np.random.Generator, shape: Vertebra, site: Site) -> tuple[Point, Point, float]:
    """(point, typical normal, reach in mm) of a break at this site."""
    side = float(rng.choice([-1.0, 1.0]))
    along = float(rng.uniform(0.2, 0.8))
    px, py = pillar_centre(shape)
    back = spinolaminar(shape)
    if site == "body":
        return _body_site(rng, shape)
    if site in ("anterior arch", "posterior arch"):
        angle = float(rng.uniform(0.2, 0.75)) * (1 if site == "posterior arch" else -1)
        x, y = math.cos(math.pi / 2 * angle), math.sin(math.pi / 2 * angle)
        point = (side * x * shape.width / 2, y * shape.depth / 2 + shape.depth / 2 - 9.5, 0.0)
        return point, (side * y, -x, 0.0), 9.0
    places: dict[str, tuple[Point, Point, float]] = {
        "dens": ((0.0, -0.5, shape.height / 2 - 2 + 11 * along), (0.0, 0.45, 0.9), 10.0),
        "pillar": ((side * px, py, float(rng.uniform(-3, 3))), (0.7, 0.7, side * 0.3), 9.0),
        "lamina": (
            (side * px * (1 - along), py + 3 + (back - py - 3) * along, -1 - 3 * along),
            (side * 0.7, -0.7, 0.0),
            8.0,
        ),
        "spinous process": ((0.0, back + shape.spinous * along, -4 - 0.45 * shape.spinous * along), (0, 0.95, -0.3), 9),
        "transverse process": ((side * (shape.width / 2 + 6), py - 5, -1.0), (side * 1.0, 0.3, 0.2), 8.0),
    }
    return places[site]


def _body_site(rng: np.random.Generator, shape: Vertebra) -> tuple[Point, Point, float]:
    """Sagittal split, teardrop-like corner, or transverse break of the body."""
    normals: tuple[Point, ...] = ((1.0, 0.1, 0.0), (0.0, 0.8, -0.6), (0.0, 0.25, 1.0), (0.5, 0.9, 0.1))
    point = rng.uniform(-0.35, 0.35, 3) * (shape.width, shape.depth, shape.height)
    return _point(point), normals[int(rng.integers(len(normals)))], float(rng.uniform(9, 16))


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.sqrt((vector * vector).sum()))


def _point(vector: np.ndarray) -> Point:
    x, y, z = (float(v) for v in vector)
    return x, y, z
