"""What is true about a phantom, as plain data and label maps that lie outside its DICOM folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from inference.phantom.cervical_ct import Rendered
from inference.phantom.dicom import sop_uid
from inference.phantom.headers import uid
from inference.phantom.series import position
from inference.phantom.specification import LEVELS, Scan


def write_truth(phantom: Rendered, folder: Path) -> None:
    """Write `<study_uid>.json` beside two label maps, `<study_uid>.vertebrae.nii.gz` and `.fractures.nii.gz`.

    The maps lie on the grid of the thin axial series. A voxel of a vertebra holds its position in LEVELS plus one,
    one of a fracture its position in the "fractures" of the JSON document plus one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = truth(phantom)
    study_uid = content["study_uid"]
    (folder / f"{study_uid}.json").write_text(json.dumps(content, indent=2) + "\n")
    for name, labels in (("vertebrae", phantom.vertebrae), ("fractures", phantom.fractures)):
        _write_labels(labels, phantom.spec.scan, folder / f"{study_uid}.{name}.nii.gz")


def truth(phantom: Rendered) -> dict[str, Any]:
    """The truth document of one study: labels, levels, the place of every acute fracture, and what only looks so."""
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
        "mimics": [{"level": lesion.level, "variant": lesion.name} for lesion in spec.lesions if not lesion.acute],
    }


def _place(phantom: Rendered, number: int) -> dict[str, Any]:
    """Where fracture `number` is: box in LPS mm (voxel centres) and the slices that show it."""
    spec = phantom.spec
    fracture = spec.acute[number - 1]
    voxels = np.argwhere(phantom.fractures == number)
    entry: dict[str, Any] = {"level": fracture.level, "mechanism": fracture.name}
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


def _write_labels(labels: np.ndarray, scan: Scan, path: Path) -> None:
    """NIfTI whose header maps voxels into the patient space of the DICOM files (SimpleITK turns LPS into RAS)."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing(scan.spacing[::-1])
    image.SetOrigin(position(scan, 0))
    SimpleITK.WriteImage(image, str(path))
