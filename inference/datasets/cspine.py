"""Fracture Detection on Cervical Spine CT, Health Data Nexus 1.0.0 (doi 10.57764/fhp6-nt41).

508 CT with fractures and 508 without, each merged into one multi-frame DICOM object, and for each with fractures a
second object in which the fractures are drawn. The public description names no files, so this is assumed:

- `place` holds one folder per study, and each file in it that is not hidden is a DICOM object;
- the mask is a Segmentation, or an object with no more than two values, 1 or 255 apart; it is told from the CT by
  this content and not by its name;
- the mask has all frames of the CT, and each frame of either has its position in the functional groups;
- a study without a mask is one without a fracture, so a mask lost in copying makes a false negative;
- the Patient ID tells patients apart where there is one, else the name of the folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import SegmentationStorage

from inference.datasets import grid
from inference.datasets.axial_ct import AxialCT, read_axial
from inference.datasets.labelled import CERVICAL, DataSet, LabelledCT, UnusableData

SOURCE = "Health Data Nexus cspine 1.0.0, doi 10.57764/fhp6-nt41, with fracture masks"
LICENCE = "Health Data Nexus, credentialed access"


def open_dataset(place: str) -> DataSet:
    """Every folder in `place`. Raises UnusableData where there is none."""
    root = Path(place)
    inside = sorted(root.iterdir()) if root.is_dir() else []
    studies = {path.name: path for path in inside if path.is_dir() and not path.name.startswith(".")}
    if not studies:
        raise UnusableData(f"{root}: no study folder in it; give the folder that holds the study folders")
    return Cspine(studies)


@dataclass(frozen=True)
class Cspine:
    """A DataSet of CT with the fractures drawn."""

    #: The folder of each study.
    studies: Mapping[str, Path]

    @property
    def names(self) -> Sequence[str]:
        """Every study, in the order of the folder names."""
        return tuple(self.studies)

    def load(self, name: str) -> LabelledCT:
        """Read one study. Raises UnusableData unless it is one CT, with at most one mask on the same grid."""
        if name not in self.studies:
            raise UnusableData(f"{SOURCE}: no study {name!r}")
        folder = self.studies[name]
        # Each file is read, whatever its name: to skip a damaged mask would call a fractured study normal.
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        objects = {path.name: read_axial([path], str(folder)) for path in files}
        masks = [file for file, item in objects.items() if _is_mask(item)]
        images = [file for file in objects if file not in masks]
        if len(images) != 1 or len(masks) > 1:
            raise UnusableData(
                f"{folder}: {len(images)} CT object(s) and {len(masks)} mask(s); expected one CT and at most one mask"
            )
        ct = objects[images[0]]
        fractures = np.zeros(ct.array.shape, bool)
        for file in masks:
            fractures = _drawn(f"{folder / file}", objects[file], ct)
        return LabelledCT(
            name=name,
            patient=str(ct.volume.headers[0].get("PatientID") or name),
            hu=ct.array,
            spacing=ct.spacing,
            vertebrae=None,
            fractures=fractures,
            # The mask does not say which vertebra is fractured; without a fracture none is.
            levels=None if masks else dict.fromkeys(CERVICAL, False),
            fractured=bool(masks),
            source=SOURCE,
            licence=LICENCE,
        )


def _is_mask(item: AxialCT) -> bool:
    if item.volume.headers[0].get("SOPClassUID") == SegmentationStorage:
        return True
    low, high = int(item.array.min()), int(item.array.max())
    return high - low in (0, 1, 255) and bool(((item.array == low) | (item.array == high)).all())


def _drawn(where: str, mask: AxialCT, ct: AxialCT) -> np.ndarray:
    """bool, in the order of a labelled case; the upper half of the values, for a fractional Segmentation too."""
    grid.refuse_another(where, mask, ct)
    low, high = int(mask.array.min()), int(mask.array.max())
    if low == high:
        raise UnusableData(f"{where}: nothing is drawn in it; fetch it again or leave this study out")
    return np.asarray(mask.array > (low + high) / 2)
