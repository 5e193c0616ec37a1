"""What one cervical CT phantom is made of: every sampled number, as plain frozen data.

Coordinates are millimetres: LPS (x to the patient's left, y to the back, z to the head) for the world; the
same axes, turned with the vertebra and centred on its body, for everything that belongs to one vertebra.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np

#: Part of every random seed and UID: raise it when the same seed would give other pixels.
GENERATOR_VERSION = 1
#: First seed and one past the last. Seeds from 9,000,000 belong to independent evaluation and are refused.
SEEDS = {"train": range(0, 900_000), "val": range(900_000, 950_000), "test": range(950_000, 1_000_000)}
FIRST_RESERVED_SEED = 9_000_000
#: From head to toe; the value in the label map of a rendered phantom is the position here plus one.
LEVELS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "T1")

Point: TypeAlias = tuple[float, float, float]
Site: TypeAlias = Literal[
    "body", "pillar", "lamina", "spinous process", "transverse process", "dens", "anterior arch", "posterior arch"
]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How difficult the phantoms are; ranges are (lowest, highest)."""

    gap_mm: tuple[float, float]
    displacement_mm: tuple[float, float]
    noise_hu: tuple[float, float]
    #: Mean number of nutrient canals per vertebra (dark lines that are no fracture).
    canals: float
    #: Chance per phantom of an old fracture with corticated margins, which counts as no fracture.
    healed: float


PROFILES = {
    "easy": Profile(gap_mm=(1.5, 3.0), displacement_mm=(0.0, 3.0), noise_hu=(10, 25), canals=0.3, healed=0.0),
    "standard": Profile(gap_mm=(0.6, 2.5), displacement_mm=(0.0, 2.0), noise_hu=(15, 40), canals=0.7, healed=0.15),
    "hard": Profile(gap_mm=(0.4, 1.5), displacement_mm=(0.0, 1.0), noise_hu=(25, 60), canals=1.4, healed=0.4),
}


@dataclass(frozen=True, kw_only=True)
class Vertebra:
    """Size and pose of one vertebra; lengths in mm, angles in radians."""

    level: str
    #: Centre of the body (of the dens for C1) in world coordinates.
    centre: Point
    #: Forward lean, head turn, side bend.
    pitch: float
    yaw: float
    roll: float
    width: float
    depth: float
    height: float
    canal_depth: float
    #: From the middle to the centre of the articular pillar.
    pillar: float
    #: From one facet joint to the next along the pillar.
    stacking: float
    spinous: float
    #: Half the distance between the tips of a bifid spinous process.
    bifid: float
    #: Phases of the low-frequency warp that makes left and right differ.
    warp: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Fracture:
    """A rough plane through a vertebra, in the vertebra's coordinates."""

    level: str
    site: Site
    point: Point
    normal: Point
    gap_mm: float
    #: The plane ends this far from `point`.
    reach_mm: float
    #: How far the fragment on the positive side moved, along the plane.
    shift: Point
    phases: tuple[float, float, float, float]
    #: Smooth with a sclerotic rim: an old fracture, a mimic rather than a finding.
    healed: bool


@dataclass(frozen=True, kw_only=True)
class Canal:
    """A vessel channel in a vertebra: dark and thin like a fracture, but round in cross-section."""

    level: str
    start: Point
    end: Point
    radius_mm: float


@dataclass(frozen=True, kw_only=True)
class Neck:
    """Soft tissue around the spine; lengths in mm."""

    half_width: float
    half_depth: float
    fat: float
    #: Neck radius gained below the shoulder line.
    shoulders: float
    prevertebral: float
    airway: float
    jaw: bool
    #: How far the jaw is in front of C3.
    jaw_gap: float
    filling: bool


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How the phantom is sampled and how its image is degraded."""

    shape: tuple[int, int, int]  # (slices, rows, columns)
    spacing: tuple[float, float, float]  # mm, (slice, row, column)
    #: World position of voxel (0, 0, 0), mm.
    origin: Point
    #: Added to every position in DICOM: the couch is never at zero.
    table: Point
    noise_hu: float
    shoulder_noise: float
    blur_mm: float
    cortical_hu: float
    trabecular_hu: float
    cortex_mm: float
    kvp: int
    kernel: str


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """Everything that `render` needs; the same spec gives the same voxels."""

    seed: int
    profile: str
    generator_version: int
    scan: Scan
    neck: Neck
    vertebrae: tuple[Vertebra, ...]
    fractures: tuple[Fracture, ...]
    canals: tuple[Canal, ...]

    @property
    def acute(self) -> tuple[Fracture, ...]:
        """The fractures that count, without healed ones."""
        return tuple(fracture for fracture in self.fractures if not fracture.healed)

    def to_json(self) -> str:
        """One JSON document with every sampled number."""
        return json.dumps(asdict(self), sort_keys=True)


def streams(seed: int, names: Sequence[str]) -> dict[str, np.random.Generator]:
    """One independent random stream per component, so that adding a component at the end moves no other."""
    if not 0 <= seed < FIRST_RESERVED_SEED:
        raise ValueError(f"seed {seed} is reserved: use 0 to {FIRST_RESERVED_SEED - 1}")
    children = np.random.SeedSequence([GENERATOR_VERSION, seed]).spawn(len(names))
    return {name: np.random.Generator(np.random.PCG64(child)) for name, child in zip(names, children, strict=True)}
