"""What is true about an MR phantom: a JSON document, maps of structures and Pascal VOC files, outside its DICOM."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from inference.datasets.annotation import Annotation
from inference.datasets.voc import write
from inference.phantom.headers import uid
from inference.phantom.mr.boxes import boxes, measurements, structures
from inference.phantom.mr.dicom import sop_uid
from inference.phantom.mr.measurement import group
from inference.phantom.mr.rendering import Image, RenderedMR, affine


def write_truth(phantom: RenderedMR, folder: Path) -> None:
    """Write `<study_uid>.json`, `<study_uid>.<series>.nii.gz` and `<study_uid>.voc/<SOP Instance UID>.xml`.

    The maps of structures have the labels of SPINEPS, see `inference.datasets.labelled_mr`. There is a VOC file for
    every image of the four series that shows something.
    """
    content = truth(phantom)
    study_uid = content["study_uid"]
    voc = folder / f"{study_uid}.voc"
    voc.mkdir(parents=True, exist_ok=True)
    (folder / f"{study_uid}.json").write_text(json.dumps(content, indent=2) + "\n")
    for image in phantom.images:
        kind = image.acquisition.kind
        _write_labels(phantom, image, folder / f"{study_uid}.{kind.replace(' ', '-')}.nii.gz")
        found = boxes(phantom, image)
        rows, columns = image.values.shape[1:]
        for index in sorted({box.slice for box in found}):
            name = sop_uid(phantom.spec, kind, index)
            shown = tuple(replace(box, slice=0) for box in found if box.slice == index)
            write(voc / f"{name}.xml", Annotation(image=f"{name}.png", columns=columns, rows=rows, boxes=shown))


def truth(phantom: RenderedMR) -> dict[str, Any]:
    """The truth document of one study: its group, measured discs, lesions, mimics, and the boxes of every series."""
    spec, measured = phantom.spec, measurements(phantom)
    return {
        "study_uid": uid(spec, "study"),
        "product": spec.product,
        "seed": spec.seed,
        "profile": spec.profile,
        "generator_version": spec.generator_version,
        "group": group(spec),
        "discs": {
            disc.level: {
                **asdict(measured[disc.level]),
                "pfirrmann": disc.grade,
                "modic": disc.modic,
                "flavum_mm": round(disc.flavum_mm, 2),
            }
            for disc in spec.discs
            if disc.level in measured
        },
        "cord": [{"kind": one.kind, "level": one.level, "length_mm": round(one.length, 2)} for one in spec.cord],
        "swellings": [asdict(one) for one in spec.swellings],
        "bone": [{"kind": one.kind, "level": one.level, "radius_mm": round(one.radius, 2)} for one in spec.spots],
        "implant": spec.implant,
        "series": {
            image.acquisition.kind: {
                "series_uid": uid(spec, image.acquisition.kind),
                "boxes": [
                    {**asdict(box), "sop_uid": sop_uid(spec, image.acquisition.kind, box.slice)}
                    for box in boxes(phantom, image)
                ],
            }
            for image in phantom.images
        },
    }


def _write_labels(phantom: RenderedMR, image: Image, path: Path) -> None:
    """NIfTI whose header maps voxels into the patient space of the DICOM files (SimpleITK turns LPS into RAS)."""
    import SimpleITK

    place = affine(phantom.spec, image.acquisition.plane)
    steps = np.sqrt((place[:3, :3] ** 2).sum(0))
    result = SimpleITK.GetImageFromArray(structures(phantom, image))
    result.SetSpacing([float(steps[axis]) for axis in (2, 1, 0)])
    result.SetOrigin([float(v) for v in place[:3, 3]])
    result.SetDirection([float(place[row, axis] / steps[axis]) for row in range(3) for axis in (2, 1, 0)])
    SimpleITK.WriteImage(result, str(path))
