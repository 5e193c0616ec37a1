"""Which volumes a model may see by their headers: refused, or analysed with a remark.

The limits come from the `input` part of the model's manifest. Age, kernel and the attributes of _ATTRIBUTES are judged
where both the manifest and the header name them. Scouts and secondary captures are kept away by the selection of
series, gaps and duplicates by the volume gate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import numpy as np
from pydicom import Dataset

from inference.preprocess.orientation import tilt_degrees, turn_degrees
from inference.volume import Volume

MAX_TILT = 45.0  # degrees; beyond it these are slices of another plane
MAX_TURN = 45.0  # degrees; beyond it flips alone cannot put the patient's front up
BONE_HU = 300

#: By plane: the axis of the patient (LPS) along which slices follow each other.
_NORMALS = {"sagittal": 0, "axial": 2}
#: In a header, in the manifest, in a sentence, and the unit.
_ATTRIBUTES = (
    ("SliceThickness", "slice_thickness_mm", "slice thickness", "mm"),  # less than the spacing leaves gaps, more blurs
    ("MagneticFieldStrength", "field_tesla", "field strength", "T"),
    ("EchoTime", "echo_time_ms", "echo time", "ms"),  # tells T2 from T1 and most STIR
)
_DAYS = {"D": 1, "W": 7, "M": 30.44, "Y": 365.25}  # by the unit of an Age String (PS3.5 section 6.2)
#: Families of reconstruction kernels by name: Siemens until and since Force, GE, Philips, Canon. Kernels in between,
#: and names that are not here, belong to neither.
_KERNELS = {
    "sharp": r"[BHIU][6-9]\d[a-z]?|[BHQU][a-z][5-9]\d|(HD )?(BONE|BONEPLUS|EDGE|LUNG|ULTRA)|D|E|L|Y[A-E]|FC[358]\d",
    "smooth": r"[BHI][1-4]\d[a-z]?|[BHQU][a-z][1-4]\d|(HD )?(SOFT|STANDARD|STND)|A|B|U[AB]|FC[012]\d",
}


def refuse(volume: Volume, limits: Mapping[str, Any]) -> str:
    """Why the model cannot say anything about this volume; empty if it can."""
    modality = volume.headers[0].get("Modality")
    if modality != limits["modality"]:
        return f"modality {modality}: the model reads {limits['modality']}"
    slices = len(volume.array)
    if slices < limits["min_slices"]:
        return f"{slices} slices: the model needs at least {limits['min_slices']}"
    age, youngest = age_years(volume.headers[0]), limits.get("min_age_years")
    if age is not None and youngest is not None and age < youngest:
        return f"the patient is {age:.0f} years old: the model reads patients from {youngest} years"
    plane = limits["plane"]
    tilt = tilt_degrees(volume, _NORMALS[plane])
    if tilt > MAX_TILT:
        return f"slices are tilted {tilt:.0f} degrees from {plane}: the model reads {plane} slices"
    turn = turn_degrees(volume)
    if plane == "axial" and turn > MAX_TURN:
        return f"slices are turned {turn:.0f} degrees in their plane: the model reads patients on their back or front"
    if modality == "CT" and not np.any(volume.array > BONE_HU):
        return f"no bone was found in this series: no voxel above {BONE_HU} HU"
    return ""


def outside(volume: Volume, limits: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence for everything in which the volume differs from what the model was validated with."""
    sentences = [
        f"outside the validated range: {name} {value:.2f} {unit}, validated {low} to {high} {unit}"
        for name, value, (low, high), unit in _measured(volume, limits)
        if not low - 1e-3 <= value <= high + 1e-3
    ]
    kernel, validated = _kernel(volume.headers[0]), limits.get("kernel")
    family = kernel_family(kernel)
    if family and validated and family != validated:
        sentences.append(f"outside the validated range: {kernel} is a {family} kernel, validated with {validated} ones")
    return tuple(dict.fromkeys(sentences))  # rows and columns usually say the same


def age_years(header: Dataset) -> float | None:
    """How old the patient was at the study, by Patient's Age or else the dates; None if the header does not say."""
    given = re.fullmatch(r"(\d{3})([DWMY])", str(header.get("PatientAge") or "").strip())
    if given:
        return int(given[1]) * _DAYS[given[2]] / _DAYS["Y"]
    try:
        birth, study = (date.fromisoformat(str(header.get(k) or "")) for k in ("PatientBirthDate", "StudyDate"))
    except ValueError:  # empty or no date: anonymised studies have neither
        return None
    return (study - birth).days / _DAYS["Y"]


def kernel_family(kernel: str) -> str | None:
    """The family of a Convolution Kernel (0018,1210): "sharp" (for bone), "smooth" (for soft tissue), or unknown."""
    return next((family for family, names in _KERNELS.items() if re.fullmatch(names, kernel, re.IGNORECASE)), None)


def _kernel(header: Dataset) -> str:
    """The name of the kernel; Siemens adds the strength of its iterative reconstruction as a second value."""
    value = header.get("ConvolutionKernel") or ""
    return (value if isinstance(value, str) else str(value[0])).strip()


def _measured(volume: Volume, limits: Mapping[str, Any]) -> Iterator[tuple[str, float, tuple[float, float], str]]:
    """Name, value, limits and unit of every number that the manifest limits."""
    step, row, column = volume.spacing
    yield "slice spacing", step, limits["slice_spacing_mm"], "mm"
    for value in sorted({row, column}):
        yield "pixel spacing", value, limits["pixel_spacing_mm"], "mm"
    along = int(np.abs(volume.affine[2, :3] / volume.spacing).argmax())  # the body: across axial, down sagittal slices
    yield "coverage", volume.spacing[along] * volume.array.shape[along], limits["coverage_mm"], "mm"
    tilt = tilt_degrees(volume, _NORMALS[limits["plane"]])
    yield "slice tilt", tilt, (0, limits["max_tilt_degrees"]), "degrees"
    for keyword, key, name, unit in _ATTRIBUTES:
        value = volume.headers[0].get(keyword)
        if value and key in limits:
            yield name, float(value), limits[key], unit
