"""What is true about a phantom, as plain data that lies outside its DICOM folder."""

from __future__ import annotations

from typing import Any

import numpy as np

from inference.phantom.cervical_ct import Rendered
from inference.phantom.dicom import position, sop_uid, uid
from inference.phantom.specification import LEVELS


def truth(phantom: Rendered) -> dict[str, Any]:
    """The truth file of one study, ready for JSON: labels, levels, and the place of every acute fracture."""
    spec = phantom.spec
    broken = {fracture.level for fracture in spec.acute}
    return {
        "study_uid": uid(spec, "study"),
        "series_uid": uid(spec, "axial"),
        "seed": spec.seed,
        "profile": spec.profile,
        "generator_version": spec.generator_version,
        "fractured": bool(spec.acute),
        "levels": {level: int(level in broken) for level in LEVELS},
        "fractures": [_place(phantom, number) for number in range(1, len(spec.acute) + 1)],
    }


def _place(phantom: Rendered, number: int) -> dict[str, Any]:
    """Where fracture `number` is: box in LPS mm (voxel centres) and the slices that show it."""
    spec = phantom.spec
    fracture = spec.acute[number - 1]
    voxels = np.argwhere(phantom.fractures == number)
    entry: dict[str, Any] = {"level": fracture.level, "site": fracture.site, "gap_mm": round(fracture.gap_mm, 2)}
    if not len(voxels):  # fell between voxels or outside the field of view
        return {**entry, "box_mm": None, "slices": []}
    x, y, z = position(spec.scan, 0)
    step, row, column = spec.scan.spacing
    corners = [
        [round(x + float(c) * column, 2), round(y + float(r) * row, 2), round(z + float(s) * step, 2)]
        for s, r, c in (voxels.min(0), voxels.max(0))
    ]
    slices = [sop_uid(spec, int(index)) for index in np.unique(voxels[:, 0])]
    return {**entry, "box_mm": corners, "slices": slices}
