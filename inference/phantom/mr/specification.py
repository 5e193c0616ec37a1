"""What one MR phantom is made of: every sampled number, as plain frozen data.

Coordinates as in `inference.phantom.specification`: LPS millimetres for the world; the same axes, turned with the
vertebra and centred on its body, for what belongs to one vertebra.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from inference.phantom.specification import Phases, Point, Vertebra

#: Part of every random seed and UID: raise it when the same seed would give other pixels.
GENERATOR_VERSION = 1

Region: TypeAlias = Literal["cervical", "lumbar"]
REGIONS: tuple[Region, Region] = ("cervical", "lumbar")
VendorName: TypeAlias = Literal["siemens", "ge", "philips", "canon"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How difficult the phantoms are; ranges are (lowest, highest)."""

    #: How far a herniation reaches beyond the line between the corners of the bodies.
    herniation_mm: tuple[float, float]
    #: How far a whole disc bulges at most; below 3 mm, what counts as a herniation.
    bulge_mm: float
    #: Slip as a share of the endplate, where there is one; and at most where there is none that counts.
    slip: tuple[float, float]
    small_slip: float
    #: Length of a cord lesion, and how much of its difference from the cord it keeps.
    lesion_mm: tuple[float, float]
    conspicuity: tuple[float, float]
    #: Noise as a share of the signal of cerebrospinal fluid.
    noise: tuple[float, float]
    #: Mean wear: 0 a young spine, 1 an old one.
    wear: float
    #: Factor on the chance of everything that only looks like an injury, and of every artefact.
    mimics: float
    artefacts: float


PROFILES = {
    "easy": Profile(
        herniation_mm=(5.0, 9.0),
        bulge_mm=1.2,
        slip=(0.15, 0.35),
        small_slip=0.01,
        lesion_mm=(14, 35),
        conspicuity=(0.9, 1.2),
        noise=(0.01, 0.02),
        wear=0.3,
        mimics=0.3,
        artefacts=0.2,
    ),
    "standard": Profile(
        herniation_mm=(3.8, 8.0),
        bulge_mm=2.0,
        slip=(0.08, 0.32),
        small_slip=0.025,
        lesion_mm=(7, 32),
        conspicuity=(0.55, 1.1),
        noise=(0.015, 0.045),
        wear=0.5,
        mimics=1.0,
        artefacts=1.0,
    ),
    "hard": Profile(
        herniation_mm=(3.3, 5.5),
        bulge_mm=2.2,
        slip=(0.06, 0.18),
        small_slip=0.03,
        lesion_mm=(4, 20),
        conspicuity=(0.3, 0.7),
        noise=(0.03, 0.07),
        wear=0.8,
        mimics=2.0,
        artefacts=2.0,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Herniation:
    """Disc material behind the bodies; all in mm, in the coordinates of the disc."""

    #: How far it was pushed beyond the back of the disc.
    size: float
    #: Where its middle is (x left, z head), and its half width and half height.
    side: float
    drift: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Disc:
    """A disc and what wear made of it and of the bone, the ligament and the canal around it."""

    #: Such as "C5/C6": the vertebrae above and below.
    level: str
    #: Pfirrmann grade, 1 (young) to 5.
    grade: int
    bulge_mm: float
    #: Modic type of the bone on both sides, 0 for none.
    modic: int
    #: Thickness of the ligamentum flavum behind the canal.
    flavum_mm: float
    #: Share of its width that the canal has lost here.
    stenosis: float
    #: Osteophytes at the back and front corners.
    osteophyte_mm: float
    herniation: Herniation | None = None

    @property
    def upper(self) -> str:
        return self.level.split("/")[0]

    @property
    def lower(self) -> str:
        return self.level.split("/")[1]


CordKind: TypeAlias = Literal["oedema", "haemorrhage", "mixed", "syrinx", "tumour"]
INJURIES = ("oedema", "haemorrhage", "mixed")


@dataclass(frozen=True, kw_only=True)
class CordLesion:
    """Changed signal in the cord: an injury, or a syrinx or a tumour, which is none."""

    kind: CordKind
    #: The vertebra behind which its middle lies.
    level: str
    #: mm above the middle of that vertebra; length along the cord.
    offset: float
    length: float
    #: Radius as a share of that of the cord.
    radius: float
    #: How much of the difference from the cord is kept: 1 is that of `TISSUES`.
    conspicuity: float
    phases: Phases


SwellingPlace: TypeAlias = Literal["epidural", "prevertebral", "posterior"]


@dataclass(frozen=True, kw_only=True)
class Swelling:
    """Fluid or blood along the spine: behind the sac (haematoma), in front of the bodies or behind the laminae."""

    place: SwellingPlace
    level: str
    length: float
    thickness: float


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A round change in the bone of a vertebra, in its coordinates."""

    kind: Literal["haemangioma", "schmorl"]
    level: str
    centre: Point
    radius: float


@dataclass(frozen=True, kw_only=True)
class Body:
    """Soft tissue around the spine; lengths in mm."""

    #: From the canal back to the skin, and the fat under it.
    back: float
    fat: float
    #: From the front of the bodies to the airway, or to the aorta.
    front: float
    #: Scales and shifts everything without a better rule.
    size: float
    #: Share of fat in the muscles of the back.
    muscle_fat: float
    marrow_fat: float
    #: Blood that gives signal instead of a void.
    slow_vessels: bool
    cord: float
    #: Lowest end of the cord: (level, mm above its middle).
    conus: tuple[str, float]
    phases: Phases


@dataclass(frozen=True, kw_only=True)
class Motion:
    """The patient moved while a part of k-space was acquired."""

    #: Shares of the phase-encoding steps, (first, last).
    during: tuple[float, float]
    #: mm, (down, across the image).
    shift: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """One series: the sequence and what degrades its image. Times in ms."""

    #: Tells it from the others of the study, in UIDs.
    kind: str
    sequence: Literal["T1", "T2", "STIR"]
    plane: Literal["sagittal", "axial"]
    tr: float
    te: float
    #: None for spin echo.
    ti: float | None
    echo_train: int
    bandwidth: float  # Hz per pixel
    #: Phase encoding runs along the rows' direction ("ROW") or down the columns ("COL"), as in DICOM.
    phase: Literal["ROW", "COL"]
    #: Share of the matrix that is acquired, in phase and in readout direction.
    acquired: tuple[float, float]
    averages: int
    #: Where the patient had moved to since the first series, mm (down, across).
    shift: tuple[float, float]
    noise: float
    #: Strength of the ghosts of pulsating fluid, and their distance as a share of the field of view.
    ghost: float
    ghost_spacing: float
    #: Share of the field of view beyond each edge that folds in.
    fold: float
    motion: Motion | None


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Parallel images: all sagittal series share one, all axial ones another."""

    shape: tuple[int, int, int]  # (slices, rows, columns)
    #: mm, (slice, row, column), and how thick a slice is.
    spacing: tuple[float, float, float]
    thickness: float
    #: World position of the middle of the stack.
    centre: Point
    #: Forward lean of axial slices, radians; 0 for sagittal ones.
    pitch: float


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The scanner and how it sees the patient."""

    #: 1.5 or 3 tesla.
    field: float
    vendor: VendorName
    sagittal: Stack
    axial: Stack
    acquisitions: tuple[Acquisition, ...]
    #: Added to every position in DICOM.
    table: Point
    #: Depth in mm at which the coil has lost half its sensitivity; strength of its ripple along the body.
    coil: tuple[float, float]
    #: Signal that CSF flow takes away behind or in front of the cord, 0 for none.
    flow: float
    #: Images are numbered from the patient's left and from the feet.
    reversed: bool


@dataclass(frozen=True, kw_only=True)
class MRPhantomSpec:
    """Everything that `render` needs; the same specification gives the same voxels."""

    seed: int
    region: Region
    profile: str
    generator_version: int
    scan: Scan
    body: Body
    vertebrae: tuple[Vertebra, ...]
    discs: tuple[Disc, ...]
    cord: tuple[CordLesion, ...]
    swellings: tuple[Swelling, ...]
    spots: tuple[Spot, ...]
    #: Levels joined by metal, or nothing.
    implant: tuple[str, str] | None

    @property
    def product(self) -> str:
        return f"{self.region}-mr"

    def vertebra(self, level: str) -> Vertebra:
        return next(v for v in self.vertebrae if v.level == level)

    def to_json(self) -> str:
        """One JSON document with every sampled number."""
        return json.dumps(asdict(self), sort_keys=True)
