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
GENERATOR_VERSION = 2
#: First seed and one past the last. Seeds from 9,000,000 belong to independent evaluation and are refused.
SEEDS = {"train": range(0, 900_000), "val": range(900_000, 950_000), "test": range(950_000, 1_000_000)}
FIRST_RESERVED_SEED = 9_000_000
#: From head to toe; the value in the label map of a rendered phantom is the position here plus one.
LEVELS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "T1")

Point: TypeAlias = tuple[float, float, float]
Phases: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How difficult the phantoms are; ranges are (lowest, highest)."""

    gap_mm: tuple[float, float]
    displacement_mm: tuple[float, float]
    #: Share of its height that a crushed vertebra loses in front.
    loss: tuple[float, float]
    noise_hu: tuple[float, float]
    #: Mean number of nutrient canals per vertebra (dark lines that are no fracture).
    canals: float
    #: Mean number of old fractures and normal variants per phantom, which count as no fracture.
    variants: float
    #: Mean wear of the joints: 0 a young neck, 1 an old one.
    wear: float
    #: Factor on the chance of every artefact, implant and limited coverage.
    artefacts: float


PROFILES = {
    "easy": Profile(
        gap_mm=(1.4, 3.0),
        displacement_mm=(0.5, 3.0),
        loss=(0.25, 0.5),
        noise_hu=(10, 25),
        canals=0.3,
        variants=0.1,
        wear=0.2,
        artefacts=0.2,
    ),
    "standard": Profile(
        gap_mm=(0.6, 2.2),
        displacement_mm=(0.0, 2.0),
        loss=(0.15, 0.45),
        noise_hu=(15, 40),
        canals=0.7,
        variants=0.5,
        wear=0.5,
        artefacts=1.0,
    ),
    "hard": Profile(
        gap_mm=(0.4, 1.3),
        displacement_mm=(0.0, 1.0),
        loss=(0.1, 0.3),
        noise_hu=(25, 60),
        canals=1.4,
        variants=1.2,
        wear=0.9,
        artefacts=2.0,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Vertebra:
    """Size, pose and wear of one vertebra; lengths in mm, angles in radians."""

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
    warp: Phases
    #: Lip of worn bone around the endplates.
    osteophyte: float = 0.0
    #: Ossified to the vertebra below along its front.
    bridged: bool = False
    #: HU added beside worn facet joints.
    sclerosis: float = 0.0
    #: Gas in the disc below.
    gas: bool = False
    #: Share of its height that the body has lost in front and at the back, acutely or long ago.
    front_loss: float = 0.0
    back_loss: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Break:
    """A plane through a vertebra, in the vertebra's coordinates."""

    point: Point
    normal: Point
    gap_mm: float
    #: The plane ends this far from `point`.
    reach_mm: float
    #: How far the fragment on the positive side moved.
    shift: Point
    phases: Phases


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A fractured vertebra, or one that only looks so: an old fracture or a normal variant."""

    level: str
    #: Mechanism of an acute fracture, or name of the variant.
    name: str
    #: Rough and sharp, and counted. Otherwise smooth with a dense rim, and no fracture in the truth.
    acute: bool
    breaks: tuple[Break, ...]
    #: Thickness of swelling in front of the spine and of blood in the canal, mm.
    swelling_mm: float = 0.0
    haematoma_mm: float = 0.0


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
    #: Swelling without a fracture: (level, mm), or nothing.
    swelling: tuple[str, float] | None
    airway: float
    jaw: bool
    #: How far the jaw is in front of C3.
    jaw_gap: float
    filling: bool
    #: HU of the arteries: about 45, or 250 and more with contrast medium.
    vessel_hu: float
    #: HU of the cartilages of the larynx, which ossify with age.
    cartilage_hu: float
    #: Levels with bone in the nuchal ligament behind their spinous process.
    nuchal: tuple[str, ...]
    collar: bool
    tube: bool


@dataclass(frozen=True, kw_only=True)
class Implant:
    """Metal in the neck: a plate in front of two bodies, or screws in their pillars with rods."""

    kind: Literal["plate", "rods"]
    #: Upper and lower level.
    levels: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Motion:
    """The patient moved while some slices were acquired: those show everything twice."""

    #: First and last slice.
    slices: tuple[int, int]
    #: Pixels, (row, column).
    offset: tuple[int, int]


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
    #: Whose habits the DICOM files follow.
    vendor: Literal["siemens", "ge", "philips", "canon"]
    motion: Motion | None
    #: HU of concentric rings from a badly calibrated detector, 0 for none.
    rings_hu: float
    #: Axial images are numbered from the feet up, not from the head down.
    upwards: bool


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """Everything that `render` needs; the same spec gives the same voxels."""

    seed: int
    profile: str
    generator_version: int
    scan: Scan
    neck: Neck
    vertebrae: tuple[Vertebra, ...]
    lesions: tuple[Lesion, ...]
    canals: tuple[Canal, ...]
    implant: Implant | None

    @property
    def product(self) -> str:
        return "cervical-ct"

    @property
    def acute(self) -> tuple[Lesion, ...]:
        """The fractures that count, without old ones and variants."""
        return tuple(lesion for lesion in self.lesions if lesion.acute)

    def to_json(self) -> str:
        """One JSON document with every sampled number."""
        return json.dumps(asdict(self), sort_keys=True)


def streams(
    seed: int, names: Sequence[str], product: Sequence[int] = (GENERATOR_VERSION,)
) -> dict[str, np.random.Generator]:
    """One independent random stream per component, so that adding a component at the end moves no other.

    `product` tells kinds of phantoms apart: its numbers go into every stream. Raises ValueError for a reserved seed.
    """
    if not 0 <= seed < FIRST_RESERVED_SEED:
        raise ValueError(f"seed {seed} is reserved: use 0 to {FIRST_RESERVED_SEED - 1}")
    children = np.random.SeedSequence([*product, seed]).spawn(len(names))
    return {name: np.random.Generator(np.random.PCG64(child)) for name, child in zip(names, children, strict=True)}
