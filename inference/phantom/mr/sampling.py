"""Draws a phantom from a seed: the patient, what is wrong, what only looks wrong, and the examination.

Every component has a random stream of its own, and only injuries, herniations and slips depend on the label: the same
seed with `positive` true and false gives the same patient, the same mimics and the same scanner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inference.phantom.mechanisms import phases
from inference.phantom.mr import spines
from inference.phantom.mr.examination import draw_scan
from inference.phantom.mr.specification import (
    GENERATOR_VERSION,
    PROFILES,
    REGIONS,
    Body,
    CordKind,
    CordLesion,
    Disc,
    Herniation,
    MRPhantomSpec,
    Profile,
    Region,
    Spot,
    Swelling,
    SwellingPlace,
)
from inference.phantom.specification import Vertebra, streams

STREAMS = (
    *("label", "spine", "wear", "body", "mimics", "spots", "injury", "herniation", "slip", "scan", "implant"),
    *("sagittal T1", "sagittal T2", "sagittal STIR", "axial T2"),
    *("axial", "axial T1", "axial STIR"),
)
POSITIVE_SHARE = 0.5
#: Discs that wear and herniate, with how often each herniates, and those that slip (usual surgical series, rounded).
HERNIATES = {
    "cervical": {"C3/C4": 0.15, "C4/C5": 0.2, "C5/C6": 0.4, "C6/C7": 0.25},
    "lumbar": {"L2/L3": 0.06, "L3/L4": 0.12, "L4/L5": 0.44, "L5/S1": 0.38},
}
INJURED, BOTH, SLIPPED = 0.6, 0.5, 0.35  # of positives: cord injured; and a herniation as well; lumbar slip
SYRINX, TUMOUR, SWOLLEN = 0.07, 0.05, 0.05  # chances at a mimics factor of 1
HAEMANGIOMA, SCHMORL, IMPLANTED = 0.1, 0.2, 0.03
#: Place, chance and thickness in mm of the blood and swelling that come with an injury.
ACCOMPANY: tuple[tuple[SwellingPlace, float, tuple[float, float]], ...] = (
    ("epidural", 0.3, (1.5, 4.0)),
    ("prevertebral", 0.5, (3.0, 9.0)),
    ("posterior", 0.4, (4.0, 9.0)),
)
WHERE = ("C3", "C4", "C5", "C6", "C7")


def generators(spec: MRPhantomSpec) -> dict[str, np.random.Generator]:
    """The random streams of a phantom, as `sample_spec` opened them."""
    return _streams(spec.seed, spec.region)


def sample_spec(seed: int, region: Region, profile: str = "standard", *, positive: bool | None = None) -> MRPhantomSpec:
    """Draw a phantom; `positive` forces the label (half of all seeds are positive otherwise).

    Raises ValueError for a reserved seed, KeyError for an unknown profile.
    """
    rng, difficulty = _streams(seed, region), PROFILES[profile]
    drawn = bool(rng["label"].random() < POSITIVE_SHARE)
    wanted = drawn if positive is None else positive
    column = spines.draw_cervical(rng["spine"]) if region == "cervical" else spines.draw_lumbar(rng["spine"])
    discs = _draw_discs(rng["wear"], column, region, difficulty)
    vertebrae = spines.narrowed(column, discs)
    scan = draw_scan(rng["scan"], rng["axial"], difficulty, region, vertebrae)
    mimics = _draw_mimics(rng["mimics"], region, difficulty)
    swellings = _draw_swellings(rng["mimics"], region, vertebrae, difficulty)
    injury, blood = _draw_injury(rng["injury"], difficulty, mimics)
    injured = region == "cervical" and rng["label"].random() < INJURED
    both = bool(rng["label"].random() < BOTH)
    slips = region == "lumbar" and rng["label"].random() < SLIPPED
    herniates = (both if injured or slips else True) and wanted
    discs = _herniated(rng["herniation"], discs, region, difficulty) if herniates else discs
    vertebrae = _slipped(rng["slip"], vertebrae, discs, difficulty, slips=slips and wanted)
    return MRPhantomSpec(
        seed=seed,
        region=region,
        profile=profile,
        generator_version=GENERATOR_VERSION,
        scan=scan,
        body=_draw_body(rng["body"], region, difficulty),
        vertebrae=vertebrae,
        discs=discs,
        cord=mimics + ((injury,) if injured and wanted else ()),
        swellings=swellings + (blood if injured and wanted else ()),
        spots=_draw_spots(rng["spots"], vertebrae, discs, difficulty),
        implant=_draw_implant(rng["implant"], region, difficulty),
    )


def _streams(seed: int, region: Region) -> dict[str, np.random.Generator]:
    return streams(seed, STREAMS, (GENERATOR_VERSION, 1 + REGIONS.index(region)))


def _uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(rng.uniform(*limits))


def _draw_discs(rng: np.random.Generator, column: spines.Column, region: Region, profile: Profile) -> tuple[Disc, ...]:
    """All discs between bodies that are not fused, worn most where a spine moves most."""
    age = float(np.clip(rng.normal(profile.wear, 0.25), 0, 1))
    levels, discs = [v.level for v in column.vertebrae], []
    for upper, lower in zip(levels, levels[1:], strict=False):
        chance, size = rng.random(5), rng.uniform(size=5)
        if upper in ("C1", "S3", "S4", "S5") or upper[:2] == "Co":
            continue
        level = f"{upper}/{lower}"
        fused = upper in ("S1", "S2") and column.heights[upper] < 4
        moves = 0.5 + HERNIATES[region].get(level, 0.0) if upper[0] in "CL" else 0.25
        grade = 1 if fused else int(np.clip(np.rint(1 + 4 * age * moves * 1.6 * (0.4 + size[0])), 1, 5))
        worn = (grade - 1) / 4
        discs.append(
            Disc(
                level=level,
                grade=5 if fused else grade,
                bulge_mm=0.0 if fused else profile.bulge_mm * worn * float(size[1]),
                modic=int(1 + size[2] * 2.5) if grade >= 4 and chance[0] < 0.18 * (1 + profile.mimics) else 0,
                flavum_mm=0.0 if fused else 2.2 + 2.5 * worn * float(size[3]),
                stenosis=0.05 + 0.28 * float(size[4]) if grade >= 3 and chance[1] < 0.25 * profile.mimics else 0.0,
                osteophyte_mm=3.0 * worn * float(size[3]) if chance[2] < 0.7 and not fused else 0.0,
            )
        )
    return tuple(discs)


def _herniated(rng: np.random.Generator, discs: Sequence[Disc], region: Region, profile: Profile) -> tuple[Disc, ...]:
    """One or two discs pushed out of their space, sooner a worn one."""
    usual = HERNIATES[region]
    last = next((d.level for d in reversed(discs) if d.lower == "S1"), None)
    weights = np.array([usual.get("L5/S1" if d.level == last else d.level, 0.0) * (0.5 + d.grade) for d in discs])
    number = 1 + int(rng.random() < 0.25)
    chosen = rng.choice(len(discs), number, replace=False, p=weights / weights.sum())
    result = list(discs)
    scale = 0.75 if region == "cervical" else 1.0
    for index in chosen:
        height = float(rng.uniform(3.2, 5.5) if region == "cervical" else rng.uniform(4.5, 8.5))
        size = max(_uniform(rng, profile.herniation_mm) * scale, profile.herniation_mm[0]) - result[index].bulge_mm
        pushed = Herniation(
            size=max(size, 0.8),
            side=float(rng.normal(0, 3.0 * scale)),
            drift=float(
                rng.normal(0, 1.0) if rng.random() < 0.75 else rng.choice([-1, 1]) * rng.uniform(2, 0.8 * height)
            ),
            width=float(rng.uniform(6.0, 11.0)) * scale,
            height=height,
        )
        result[index] = replace(result[index], herniation=pushed)
    return tuple(result)


def _slipped(
    rng: np.random.Generator, vertebrae: tuple[Vertebra, ...], discs: Sequence[Disc], profile: Profile, *, slips: bool
) -> tuple[Vertebra, ...]:
    """Small offsets everywhere that count as none, and one that counts, forwards or (one in four) backwards."""
    mobile = [d for d in discs if d.upper[0] in "CTL"]
    low = [d for d in mobile if d.upper[0] == "L"][-3:]
    small = rng.uniform(-profile.small_slip, profile.small_slip, len(mobile))
    share = _uniform(rng, profile.slip)
    backwards, place = bool(rng.random() < 0.25), int(rng.choice(3, p=[0.2, 0.5, 0.3]))
    share = -min(0.5 * share + 0.04, 0.2) if backwards else share
    for disc, little in zip(mobile, small, strict=True):
        lower = next(v for v in vertebrae if v.level == disc.lower)
        upper = next(v for v in vertebrae if v.level == disc.upper)
        wanted = share if slips and disc is low[place] else float(little)
        vertebrae = spines.slipped(vertebrae, disc, wanted * lower.depth + spines.offset(upper, lower))
    return vertebrae


def _draw_injury(
    rng: np.random.Generator, profile: Profile, mimics: Sequence[CordLesion]
) -> tuple[CordLesion, tuple[Swelling, ...]]:
    """A lesion of the cord away from what is already in it, and the blood and swelling that come with it."""
    weights = np.array([0.15, 0.25, 0.3, 0.2, 0.1])
    taken = np.array([any(abs(WHERE.index(m.level) - i) < 2 for m in mimics if m.level in WHERE) for i in range(5)])
    weights = np.where(taken, 0, weights) if not taken.all() else weights
    level = str(rng.choice(WHERE, p=weights / weights.sum()))
    kind: CordKind = ("oedema", "haemorrhage", "mixed")[int(rng.choice(3, p=[0.45, 0.3, 0.25]))]
    lesion = CordLesion(
        kind=kind,
        level=level,
        offset=float(rng.uniform(-6, 6)),
        length=_uniform(rng, profile.lesion_mm),
        radius=float(rng.uniform(0.62, 0.98)),
        conspicuity=_uniform(rng, profile.conspicuity),
        phases=phases(rng),
    )
    around = []
    for place, chance, thick in ACCOMPANY:
        happens, length, size = rng.random() < chance, float(rng.uniform(25, 60)), _uniform(rng, thick)
        if happens:
            around.append(Swelling(place=place, level=level, length=length, thickness=size))
    return lesion, tuple(around)


def _draw_mimics(rng: np.random.Generator, region: Region, profile: Profile) -> tuple[CordLesion, ...]:
    """A syrinx or a tumour of the cord: bright like an injury, and none."""
    chance, level = rng.random(), str(rng.choice(WHERE)) if region == "cervical" else "T12"
    kind: CordKind = "syrinx" if chance < SYRINX * profile.mimics else "tumour"
    length = float(rng.uniform(25, 80) if kind == "syrinx" else rng.uniform(22, 50))
    lesion = CordLesion(
        kind=kind,
        level=level,
        offset=float(rng.uniform(-8, 8)),
        length=length,
        radius=float(rng.uniform(0.2, 0.42) if kind == "syrinx" else rng.uniform(0.8, 1.05)),
        conspicuity=float(rng.uniform(0.7, 1.1)),
        phases=phases(rng),
    )
    return (lesion,) if chance < (SYRINX + TUMOUR) * profile.mimics * (1 if region == "cervical" else 0.3) else ()


def _draw_swellings(
    rng: np.random.Generator, region: Region, vertebrae: Sequence[Vertebra], profile: Profile
) -> tuple[Swelling, ...]:
    """Swollen ligaments behind the spine without any injury of the cord."""
    happens = rng.random() < SWOLLEN * profile.mimics
    levels = [v.level for v in vertebrae if v.level[0] == region[0].upper()]
    spot = Swelling(
        place="posterior",
        level=str(rng.choice(levels)),
        length=float(rng.uniform(20, 40)),
        thickness=float(rng.uniform(4, 8)),
    )
    return (spot,) if happens else ()


def _draw_spots(
    rng: np.random.Generator, vertebrae: Sequence[Vertebra], discs: Sequence[Disc], profile: Profile
) -> tuple[Spot, ...]:
    """Haemangiomas inside bodies and Schmorl nodes at endplates."""
    spots: list[Spot] = []
    bodies = [v for v in vertebrae if v.level[0] in "CTL" and v.level not in ("C1", "C2") and v.level[:2] != "Co"]
    for _ in range(int(rng.poisson(HAEMANGIOMA * 4 * min(profile.mimics, 1.5)))):
        v = bodies[int(rng.integers(len(bodies)))]
        radius = float(rng.uniform(0.15, 0.32)) * v.height
        room = v.height / 2 - radius - 1.5
        place = (float(rng.uniform(-6, 6)), float(rng.uniform(-0.25, 0.2)) * v.depth, float(rng.uniform(-room, room)))
        spots.append(Spot(kind="haemangioma", level=v.level, centre=place, radius=radius))
    for _ in range(int(rng.poisson(SCHMORL * 4 * min(profile.mimics, 1.5)))):
        v = bodies[int(rng.integers(len(bodies)))]
        end = float(rng.choice([-1.0, 1.0])) * v.height / 2
        place = (float(rng.uniform(-6, 6)), float(rng.uniform(-0.25, 0.15)) * v.depth, end)
        spots.append(Spot(kind="schmorl", level=v.level, centre=place, radius=float(rng.uniform(0.1, 0.22)) * v.height))
    return tuple(spots)


def _draw_body(rng: np.random.Generator, region: Region, profile: Profile) -> Body:
    cervical = region == "cervical"
    old = float(np.clip(rng.normal(profile.wear, 0.3), 0, 1))
    return Body(
        back=float(rng.uniform(50, 62) if cervical else rng.uniform(68, 92)),
        fat=float(rng.uniform(5, 14) if cervical else rng.uniform(8, 25)),
        front=float(rng.uniform(4.5, 6.5)),
        size=float(rng.uniform(0.92, 1.08)),
        muscle_fat=0.03 + 0.22 * old * float(rng.uniform(0.3, 1)),
        marrow_fat=0.28 + 0.3 * old,
        slow_vessels=bool(rng.random() < 0.35),
        cord=float(rng.uniform(0.92, 1.08)),
        conus=("L1", float(rng.normal(4, 9))),
        phases=phases(rng),
    )


def _draw_implant(rng: np.random.Generator, region: Region, profile: Profile) -> tuple[str, str] | None:
    happens, pick = rng.random() < IMPLANTED * profile.artefacts, int(rng.integers(2))
    pairs = (("C5", "C6"), ("C6", "C7")) if region == "cervical" else (("L3", "L4"), ("L4", "L5"))
    return pairs[pick] if happens else None
