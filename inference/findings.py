"""What an analysis found: plain frozen data that every other part can read without torch or DICOM libraries.

Regions are in voxels of the Volume that was analysed, in the order (slice, row, column).
Only the `sr` package turns them into patient coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

Voxel: TypeAlias = tuple[int, int, int]  # (slice, row, column)


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept (PS3.3 section 8): scheme designator, value, meaning."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A number with a coded name and a UCUM unit, such as a volume in cm3."""

    name: Code
    value: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Mask:
    """One segment: a boolean array in the shape of the Volume, and what it stands for."""

    #: Shown to people in the viewer's list of segments.
    label: str
    #: (slices, rows, columns), bool.
    array: np.ndarray
    #: What the voxels are (segmented property type), such as a fracture.
    kind: Code
    #: Links this segment with the Finding of the same tracking identifier.
    tracking_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing seen in the volume, with where it is and how sure the model is."""

    #: Unique inside its Analysis, such as "fracture-1"; shared with the Mask it belongs to.
    tracking_id: str
    #: What was found: a morphology, such as SCT 72704001 Fracture.
    code: Code
    #: Where, as a coded anatomical structure: a vertebra if `level` is known, else the region.
    site: Code
    #: "C1".."C7", "T1".., "L1".., "S1"; None where the pipeline does not name levels.
    level: str | None
    #: Calibrated, 0..1.
    probability: float
    #: As it left the network, 0..1.
    raw_probability: float
    #: Standard deviation of the probability over repeated runs; None where it is not estimated.
    uncertainty: float | None
    #: First voxel and one past the last: ((s0, r0, c0), (s1, r1, c1)).
    box: tuple[Voxel, Voxel]
    #: The slice that shows it best: viewers jump there.
    key_slice: int
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model answered; written into every result object."""

    name: str
    version: str
    #: SHA-256 of the weights file, hexadecimal.
    sha256: str
    manufacturer: str
    #: One sentence about the training data, shown to readers of the result.
    trained_on: str
    #: Shown in every result as long as the weights are not cleared for clinical use.
    notice: str


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The answer of one pipeline about one series."""

    pipeline: str
    state: Literal["done", "not_applicable"]
    #: Plain words: why it does not apply, or what limits it; empty for a full analysis.
    reason: str
    model: ModelIdentity
    #: The question that was answered, such as SCT 72704001 Fracture, for "present" or "absent".
    target: Code
    #: Region that was examined, such as SCT 122494005 Cervical spine.
    site: Code
    #: Calibrated probability that the target is present anywhere in the volume; None if not applicable.
    case_probability: float | None
    #: At or above this case probability the answer is "present".
    threshold: float
    #: One per slice of the Volume; empty where the pipeline does not score slices.
    slice_probabilities: tuple[float, ...] = ()
    #: {"C1": 0.02, ...}; empty where the pipeline does not name levels.
    level_probabilities: Mapping[str, float] = field(default_factory=dict)
    #: Where the pipeline puts a study into one of a few groups: its name, such as "injured".
    group: str = ""
    findings: tuple[Finding, ...] = ()
    masks: tuple[Mask, ...] = ()
    #: Where the network looked: (slices, rows, columns) float32, 0..1 of the highest value in the same slice, 0 in
    #: slices that were not looked at; None where the pipeline does not say.
    heat_map: np.ndarray | None = None
    #: What a reader must know about the input: a gap, a tilt, a partial field of view.
    quality: tuple[str, ...] = ()
    #: Seconds by stage.
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def limited(self) -> bool:
        """Whether there is something that a reader must know before relying on the answer."""
        return bool(self.reason or self.quality)

    @property
    def positive(self) -> bool:
        """Whether the answer is "present"."""
        return self.case_probability is not None and self.case_probability >= self.threshold
