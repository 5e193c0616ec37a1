"""Which volumes a model may see: refused, or analysed with a remark that they are outside the validated range.

The limits come from the `input` part of the model's manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.preprocess.axial import tilt_degrees, turn_degrees
from inference.volume import Volume

MAX_TILT = 45.0  # degrees; beyond it these are no axial slices
MAX_TURN = 45.0  # degrees; beyond it flips alone cannot put the patient's front up
BONE_HU = 300


def refuse(volume: Volume, limits: Mapping[str, Any]) -> str:
    """Why the model cannot say anything about this volume; empty if it can."""
    modality = volume.headers[0].get("Modality")
    if modality != limits["modality"]:
        return f"modality {modality}: the model reads {limits['modality']}"
    slices = len(volume.array)
    if slices < limits["min_slices"]:
        return f"{slices} slices: the model needs at least {limits['min_slices']}"
    tilt = tilt_degrees(volume)
    if tilt > MAX_TILT:
        return f"slices are tilted {tilt:.0f} degrees from axial: the model reads axial slices"
    turn = turn_degrees(volume)
    if turn > MAX_TURN:
        return f"slices are turned {turn:.0f} degrees in their plane: the model reads patients on their back or front"
    if not np.any(volume.array > BONE_HU):
        return f"no bone was found in this series: no voxel above {BONE_HU} HU"
    return ""


def outside(volume: Volume, limits: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence for everything in which the volume differs from what the model was validated with."""
    step, row, column = volume.spacing
    coverage = step * len(volume.array)
    measured = (
        ("slice spacing", step, limits["slice_spacing_mm"], "mm"),
        *(("pixel spacing", value, limits["pixel_spacing_mm"], "mm") for value in sorted({row, column})),
        ("coverage", coverage, limits["coverage_mm"], "mm"),
        ("slice tilt", tilt_degrees(volume), (0, limits["max_tilt_degrees"]), "degrees"),
    )
    sentences = (
        f"outside the validated range: {name} {value:.2f} {unit}, validated {low} to {high} {unit}"
        for name, value, (low, high), unit in measured
        if not low - 1e-3 <= value <= high + 1e-3
    )
    return tuple(dict.fromkeys(sentences))  # rows and columns usually say the same
