"""Draws the soft neck around a spine, and how a scanner samples it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from inference.phantom.mechanisms import as_point
from inference.phantom.specification import LEVELS, Motion, Neck, Profile, Scan, Vertebra

_VENDORS: tuple[Literal["siemens", "ge", "philips", "canon"], ...] = ("siemens", "ge", "philips", "canon")
#: Chances per phantom at an artefact factor of 1.
MOTION, RINGS, LIMITED, CONTRAST, COLLAR, TUBE, SWELLING = 0.12, 0.08, 0.10, 0.2, 0.35, 0.06, 0.08
UPWARDS = 0.2  # share of studies scanned from the feet up: a minority, as in the RSNA 2022 challenge
MARGIN_MM = 9.0  # a level counts as visible when this much above and below its centre is in the field of view


def draw_neck(rng: np.random.Generator, profile: Profile) -> Neck:
    """Soft tissue, vessels, cartilage, and what a trauma patient wears."""
    chance = rng.random(7)
    age = float(rng.uniform(0, 1))
    swollen = (str(rng.choice(LEVELS[:7])), float(rng.uniform(2, 6)))
    nuchal = tuple(level for level in ("C5", "C6", "C7") if rng.random() < 0.15 * profile.wear * 2)
    return Neck(
        half_width=float(rng.uniform(55, 70)),
        half_depth=float(rng.uniform(55, 66)),
        fat=float(rng.uniform(3, 9)),
        shoulders=float(rng.uniform(60, 110)),
        prevertebral=float(rng.uniform(3.5, 6)),
        swelling=swollen if chance[0] < SWELLING * profile.artefacts else None,
        airway=float(rng.uniform(8, 11)),
        jaw=bool(chance[1] < 0.85),
        jaw_gap=float(rng.uniform(16, 24)),
        filling=bool(chance[2] < 0.3),
        vessel_hu=float(rng.uniform(220, 420) if chance[3] < CONTRAST else rng.uniform(38, 52)),
        cartilage_hu=60 + 500 * age**2,
        nuchal=nuchal,
        collar=bool(chance[4] < COLLAR),
        tube=bool(chance[5] < TUBE * profile.artefacts),
    )


def draw_scan(rng: np.random.Generator, profile: Profile, vertebrae: Sequence[Vertebra]) -> Scan:
    """Field of view, sampling, noise and artefacts; reads of the spine only where it lies, never whether it broke."""
    top = vertebrae[0].centre[2] + float(rng.uniform(12, 30))
    bottom = vertebrae[-1].centre[2] - float(rng.uniform(2, 14))
    limited, end, cut = rng.random() < LIMITED * profile.artefacts, rng.random() < 0.5, float(rng.uniform(0.15, 0.4))
    if limited:
        top, bottom = (top - cut * (top - bottom), bottom) if end else (top, bottom + cut * (top - bottom))
    pixel, slice_mm = round(float(rng.uniform(0.62, 0.8)), 4), float(rng.choice([1.0, 1.0, 1.25, 1.25, 1.5]))
    side = int(rng.choice([208, 224, 240]))
    middle = np.mean([v.centre for v in vertebrae], axis=0) + rng.uniform(-8, 8, 3)
    slices = int(round((top - bottom) / slice_mm))
    chance = rng.random(2)
    first = int(rng.integers(0, max(slices - 30, 1)))
    motion = Motion(
        slices=(first, first + int(rng.integers(8, 30))),
        offset=(int(rng.integers(-2, 3)), int(rng.choice([-3, -2, 2, 3]))),
    )
    return Scan(
        shape=(slices, side, side),
        spacing=(slice_mm, pixel, pixel),
        origin=(float(middle[0]) - side / 2 * pixel, float(middle[1]) + 4 - side / 2 * pixel, bottom),
        table=as_point(np.round(rng.uniform((-20, 100, -900), (20, 220, 400)), 1)),
        noise_hu=float(rng.uniform(*profile.noise_hu)),
        shoulder_noise=float(rng.uniform(0.6, 2.2)),
        blur_mm=float(rng.uniform(0.3, 0.5)),
        cortical_hu=float(rng.uniform(750, 1350)),
        trabecular_hu=float(np.exp(rng.uniform(np.log(90), np.log(420)))),  # from osteoporotic to young
        cortex_mm=float(rng.uniform(0.9, 1.7)),
        kvp=int(rng.choice([100, 120, 120, 140])),
        vendor=_VENDORS[int(rng.integers(len(_VENDORS)))],
        motion=motion if chance[0] < MOTION * profile.artefacts else None,
        rings_hu=float(rng.uniform(8, 25)) if chance[1] < RINGS * profile.artefacts else 0.0,
        upwards=bool(rng.random() < UPWARDS),
    )


def visible_levels(scan: Scan, vertebrae: Sequence[Vertebra]) -> tuple[str, ...]:
    """Levels that lie well inside the field of view."""
    low = scan.origin[2] + MARGIN_MM
    high = scan.origin[2] + scan.spacing[0] * scan.shape[0] - MARGIN_MM
    return tuple(shape.level for shape in vertebrae if low <= shape.centre[2] <= high)
