"""Draws the examination: field strength, coil, where the images lie, and the timing and the flaws of each series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from inference.phantom.mechanisms import as_point
from inference.phantom.mr.signal import FIELDS, null_time
from inference.phantom.mr.specification import Acquisition, Motion, Profile, Region, Scan, Stack, VendorName
from inference.phantom.mr.tissue import FAT_T1
from inference.phantom.specification import Vertebra

_VENDORS: tuple[VendorName, ...] = ("siemens", "ge", "philips", "canon")
#: Chances per series (motion, fold-over) and per phantom at an artefact factor of 1.
MOTION, FOLD, FLOW, TRUNCATED, REVERSED = 0.05, 0.05, 0.45, 0.12, 0.25
#: TR and TE in ms, (shortest, longest), and echoes per excitation.
TIMES = {"T1": ((450, 720), (8, 13), 3), "T2": ((3400, 5400), (90, 122), 17), "STIR": ((3600, 5200), (42, 68), 11)}
SAGITTAL: tuple[tuple[str, Literal["T1", "T2", "STIR"]], ...] = (
    ("sagittal T1", "T1"),
    ("sagittal T2", "T2"),
    ("sagittal STIR", "STIR"),
)
#: Beside axial T2, over the same discs.
ALSO_AXIAL: tuple[tuple[str, Literal["T1", "T2", "STIR"]], ...] = (("axial T1", "T1"), ("axial STIR", "STIR"))


def draw_scan(
    rng: np.random.Generator,
    also: np.random.Generator,
    profile: Profile,
    region: Region,
    vertebrae: Sequence[Vertebra],
) -> Scan:
    """The scanner and six series; reads of the spine only where it lies, before anything slipped.

    `also` draws axial T1 and STIR.
    """
    at = {v.level: np.array(v.centre) for v in vertebrae}
    field = 1.5 if rng.random() < 0.6 else 3.0
    sagittal, axial = _sagittal(rng, region, at), _axial(rng, region, vertebrae)
    vendor = _VENDORS[int(rng.integers(len(_VENDORS)))]
    down: Literal["ROW", "COL"] = "COL" if rng.random() < 0.6 else "ROW"
    truncated = bool(rng.random() < TRUNCATED * profile.artefacts)
    series = [_acquisition(rng, profile, (kind, sequence, "sagittal"), field) for kind, sequence in SAGITTAL]
    series = [replace(one, phase="ROW" if truncated else down) for one in series]
    if truncated:  # so few steps from front to back that the cord gets a bright line in its middle
        short = float(rng.uniform(0.36, 0.46))
        series = [replace(one, acquired=(short, one.acquired[1])) for one in series]
    across = [_acquisition(rng, profile, ("axial T2", "T2", "axial"), field)]
    across += [_acquisition(also, profile, (kind, sequence, "axial"), field) for kind, sequence in ALSO_AXIAL]
    phase: Literal["ROW", "COL"] = "COL" if rng.random() < 0.5 else "ROW"
    return Scan(
        field=field,
        vendor=vendor,
        sagittal=sagittal,
        axial=axial,
        acquisitions=(*series, *(replace(one, phase=phase, fold=across[0].fold) for one in across)),
        table=as_point(np.round(rng.uniform((-15, -120, -250), (15, 60, 250)), 1)),
        coil=(float(rng.uniform(28, 60)), float(rng.uniform(0.02, 0.12))),
        flow=float(rng.uniform(0.3, 1.0)) if rng.random() < FLOW * min(profile.artefacts, 1.6) else 0.0,
        reversed=bool(rng.random() < REVERSED),
    )


def _sagittal(rng: np.random.Generator, region: Region, at: dict[str, np.ndarray]) -> Stack:
    size, shift = int(rng.choice([320, 352, 384])), rng.uniform(-1, 1, 3)
    if region == "cervical":
        view, step, count = float(rng.uniform(225, 255)), float(rng.uniform(3.0, 3.6)), int(rng.choice([13, 15]))
        middle = 0.5 * at["C5"] + 0.5 * at["C6"] + (0, -12, 8) + shift * (1.2, 8, 8)
    else:
        view, step, count = float(rng.uniform(275, 320)), float(rng.uniform(4.0, 4.6)), int(rng.choice([13, 15, 17]))
        middle = 0.6 * at["L3"] + 0.4 * at["S1"] + (0, 22, 12) + shift * (1.5, 10, 10)
    pixel = round(view / size, 4)
    step = round(step, 2)
    return Stack(
        shape=(count, size, size),
        spacing=(step, pixel, pixel),
        thickness=round(step * float(rng.choice([0.9, 1.0])), 2),
        centre=as_point(middle),
        pitch=0.0,
    )


def _axial(rng: np.random.Generator, region: Region, vertebrae: Sequence[Vertebra]) -> Stack:
    """One block over the discs where herniations are usual, parallel to their mean."""
    names = ("C3", "C7") if region == "cervical" else ("L3", "S1")
    first = next(i for i, v in enumerate(vertebrae) if v.level == names[0])
    last = next(i for i, v in enumerate(vertebrae) if v.level == names[1])
    block = vertebrae[first : last + 1]
    step, side = (3.5, 180.0) if region == "cervical" else (4.5, 190.0)
    top, bottom = np.array(block[0].centre), np.array(block[-1].centre)
    length = float(np.sqrt(((top - bottom) ** 2).sum())) + (8 if region == "cervical" else 4)
    step = round(step * float(rng.uniform(0.9, 1.1)), 2)
    size = int(rng.choice([224, 256]))
    pixel = round(side * float(rng.uniform(0.95, 1.1)) / size, 4)
    middle = (top + bottom) / 2 + (0, 12 if region == "cervical" else 22, 0) + rng.uniform(-4, 4, 3)
    return Stack(
        shape=(round(length / step), size, size),
        spacing=(step, pixel, pixel),
        thickness=round(0.9 * step, 2),
        centre=as_point(middle),
        pitch=round(float(np.mean([v.pitch for v in block])), 4),
    )


def _acquisition(
    rng: np.random.Generator,
    profile: Profile,
    what: tuple[str, Literal["T1", "T2", "STIR"], Literal["sagittal", "axial"]],
    field: float,
) -> Acquisition:
    kind, sequence, plane = what
    (short, long), (early, late), train = TIMES[sequence]
    tr, te = round(float(rng.uniform(short, long))), round(float(rng.uniform(early, late)), 1)
    null = null_time(FAT_T1[FIELDS.index(field)], tr) * float(rng.uniform(0.94, 1.03))
    start = float(rng.uniform(0.1, 0.8))
    motion = Motion(
        during=(start, start + float(rng.uniform(0.03, 0.12))),
        shift=(float(rng.normal(0, 1.5)), float(rng.normal(0, 1.5))),
    )
    chance = rng.random(2)
    return Acquisition(
        kind=kind,
        sequence=sequence,
        plane=plane,
        tr=tr,
        te=te,
        ti=round(null) if sequence == "STIR" else None,
        echo_train=train,
        bandwidth=round(float(rng.uniform(150, 260)) * field / 1.5),
        phase="COL",
        acquired=(round(float(rng.uniform(0.55, 0.78)), 2), round(float(rng.uniform(0.68, 0.9)), 2)),
        averages=int(rng.integers(1, 4)),
        shift=as_pair(rng.normal(0, 0.35, 2)),
        noise=float(rng.uniform(*profile.noise)) * (1.5 if sequence == "STIR" else 1.0),
        ghost=float(rng.uniform(0.0, 0.05)) * min(profile.artefacts, 1.5),
        ghost_spacing=float(rng.uniform(0.09, 0.3)),
        fold=0.08 if chance[0] < FOLD * profile.artefacts else 0.0,
        motion=motion if chance[1] < MOTION * profile.artefacts else None,
    )


def as_pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])
