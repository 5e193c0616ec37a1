"""One labelled spine MR study, whatever data set it comes from: what training and evaluation of detectors read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

#: Values in a map of structures, as in SPINEPS 2.1: vertebrae as in VerSe, and a disc is 100 + the vertebra above it.
VERTEBRAE = {
    **{f"C{n}": n for n in range(1, 8)},
    **{f"T{n}": n + 7 for n in range(1, 13)},
    **{f"L{n}": n + 19 for n in range(1, 7)},
    "S1": 26,
}
CORD, CANAL, DISC = 60, 61, 100

#: Patients whom papers 000 and 004 leave out: what a detector was not validated for.
EXCLUSIONS = ("surgery", "tumour", "scoliosis", "motion")

Weighting = Literal["T1", "T2", "STIR"]
Plane = Literal["sagittal", "axial"]


@dataclass(frozen=True, kw_only=True)
class ImageBox:
    """What is to be found in one image. Edges in pixels: (0, 0) is the upper left corner of the first pixel."""

    slice: int
    left: float
    top: float
    right: float
    bottom: float
    #: "oedema", "haemorrhage", "mixed", "herniation" (papers 000 and 002); "disc", "herniation", "slip" (paper 004).
    label: str
    #: A vertebra such as "C5", or a disc such as "L4/L5"; None where the data set does not say.
    level: str | None = None


@dataclass(frozen=True, kw_only=True)
class MRSeries:
    """One series of the study."""

    #: STIR stands for every T2 image with suppressed fat.
    sequence: Weighting
    plane: Plane
    #: (slices, rows, columns) float32, in arbitrary units.
    values: np.ndarray
    #: (4, 4): (slice, row, column) of a voxel's centre to LPS mm.
    affine: np.ndarray
    #: None where nobody has marked this series; empty where it was read and nothing found.
    boxes: tuple[ImageBox, ...] | None
    #: uint8 (slices, rows, columns): values of VERTEBRAE, CORD, CANAL, DISC + vertebra; None where not outlined.
    structures: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class LabelledMR:
    """A study of one region and what is known about it."""

    #: Unique in its data set, and fit for a file name.
    name: str
    #: Studies of one patient never part over folds.
    patient: str
    region: Literal["cervical", "lumbar"]
    series: tuple[MRSeries, ...]
    #: By disc ("L4/L5"): "slip_mm", "slip_percent", "herniation_mm" as far as the data set gives them.
    measurements: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: Which of EXCLUSIONS the patient meets, as far as the data set says.
    exclusions: tuple[str, ...] = ()
    #: What the data are and who may use them, for model cards.
    source: str
    licence: str


class MRDataSet(Protocol):
    """Studies by name; nothing is read before it is asked for."""

    @property
    def names(self) -> Sequence[str]:
        """Every usable study, in a fixed order."""

    def load(self, name: str) -> LabelledMR:
        """Read one study. Raises UnusableData."""
