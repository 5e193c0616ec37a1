"""RSNA 2022 Cervical Spine Fracture Detection: CT with levels, boxes and some vertebra maps (10.1148/ryai.230034).

`train.csv` (StudyInstanceUID, patient_overall, C1..C7), `train_bounding_boxes.csv` (x, y, width, height in pixels,
slice_number = NUMBER of the file), `train_images/STUDY/NUMBER.dcm`, and for some studies `segmentations/STUDY.nii`
(1-7 C1-C7, 8-19 T1-T12). The numbers need not start at 1 and may run from the feet or from the head: slices are
sorted by position, and boxes find theirs by the file name. The set does not say which studies are of one patient:
each study counts as one.
"""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inference.datasets.axial_ct import AxialCT, read_axial
from inference.datasets.labelled import CERVICAL, DataSet, LabelledCT, UnusableData
from inference.datasets.table import number, rows
from inference.datasets.vertebra_map import read_onto

logger = logging.getLogger(__name__)

SOURCE = "RSNA 2022 Cervical Spine Fracture Detection, levels and boxes"
LICENCE = "RSNA: non-commercial research and education (github.com/RSNA/AI-Challenge-Data/wiki)"
STUDY = "StudyInstanceUID"


class Box(NamedTuple):
    """A rectangle around a fracture, in pixels of one image from its upper left corner."""

    number: int
    x: float
    y: float
    width: float
    height: float


def open_dataset(place: str) -> DataSet:
    """Every study of `train.csv` in the folder `place` that has a folder of images.

    Raises UnusableData where no study has images, or a table is missing, lacks a column, holds something else than
    numbers, or contradicts itself.
    """
    root = Path(place)
    levels, boxes = _levels(root / "train.csv"), _boxes(root / "train_bounding_boxes.csv")
    here = {study: values for study, values in levels.items() if (root / "train_images" / study).is_dir()}
    if not here:
        raise UnusableData(f"{root / 'train_images'}: no folder of any of the {len(levels)} studies in train.csv")
    return Rsna2022(root, here, boxes, absent=len(levels) - len(here))


@dataclass(frozen=True)
class Rsna2022:
    """A DataSet of CT with the fractured levels."""

    root: Path
    #: Fractured or not for C1..C7, by study; only studies with images.
    levels: Mapping[str, Mapping[str, bool]]
    #: By study; not every fractured study has boxes.
    boxes: Mapping[str, Sequence[Box]]
    #: How many studies of train.csv have no images here.
    absent: int

    @cached_property
    def names(self) -> Sequence[str]:
        """Study Instance UIDs in the order of train.csv."""
        if self.absent:
            logger.warning("%s: %d studies of train.csv without images are left out", self.root, self.absent)
        return tuple(self.levels)

    def load(self, name: str) -> LabelledCT:
        """Read one study. Raises UnusableData for a damaged image, a box without its image, a map that fits nowhere."""
        if name not in self.levels:
            raise UnusableData(f"{self.root}: no study {name!r} with images")
        folder = self.root / "train_images" / name
        # macOS leaves hidden files beside copied ones.
        ct = read_axial(sorted(path for path in folder.glob("*.dcm") if not path.name.startswith(".")), str(folder))
        vertebrae = self.root / "segmentations" / f"{name}.nii"
        return LabelledCT(
            name=name,
            patient=name,
            hu=ct.array,
            spacing=ct.spacing,
            vertebrae=read_onto(ct.array, vertebrae) if vertebrae.exists() else None,
            fractures=self._fractures(name, ct),
            levels=self.levels[name],
            fractured=any(self.levels[name].values()),
            source=SOURCE,
            licence=LICENCE,
        )

    def _fractures(self, name: str, ct: AxialCT) -> np.ndarray | None:
        """The inside of the boxes; None where a study is fractured and nobody drew boxes."""
        boxes, fractured = self.boxes.get(name, ()), any(self.levels[name].values())
        if boxes and not fractured:
            raise UnusableData(f"study {name}: boxes in train_bounding_boxes.csv, but no fracture in train.csv")
        if fractured and not boxes:
            return None
        inside = np.zeros(ct.array.shape, bool)
        at = {Path(str(header.filename)).stem: index for index, header in enumerate(ct.volume.headers)}
        for box in boxes:
            if str(box.number) not in at:
                raise UnusableData(f"study {name}: a box in train_bounding_boxes.csv is for {box.number}.dcm, not here")
            # Pixels that the box only touches belong to it; a part beyond the image is cut off.
            left, top = max(math.floor(box.x), 0), max(math.floor(box.y), 0)
            right, bottom = max(math.ceil(box.x + box.width), 0), max(math.ceil(box.y + box.height), 0)
            part = inside[at[str(box.number)], top:bottom, left:right]
            if part.size == 0:
                raise UnusableData(f"study {name}: the box {box[1:]} of {box.number}.dcm lies outside the image")
            part[...] = True
        return ct.turned(inside)


def _levels(table: Path) -> dict[str, dict[str, bool]]:
    levels: dict[str, dict[str, bool]] = {}
    for where, row in _rows(table, (STUDY, "patient_overall", *CERVICAL)):
        flags = {column: number(row, column, where) for column in ("patient_overall", *CERVICAL)}
        wrong = [column for column, value in flags.items() if value not in (0, 1)]
        if wrong:
            raise UnusableData(f"{where}: {wrong[0]} is {row[wrong[0]]}, neither 0 nor 1")
        overall = flags.pop("patient_overall")
        if bool(overall) != any(flags.values()):
            raise UnusableData(f"{where}: patient_overall is {overall:.0f}, C1..C7 of {row[STUDY]} say otherwise")
        if row[STUDY] in levels:
            raise UnusableData(f"{where}: study {row[STUDY]} occurs twice; remove one of the two rows")
        levels[row[STUDY]] = {column: bool(value) for column, value in flags.items()}
    return levels


def _boxes(table: Path) -> dict[str, list[Box]]:
    boxes: dict[str, list[Box]] = defaultdict(list)
    for where, row in _rows(table, (STUDY, "x", "y", "width", "height", "slice_number")):
        x, y, width, height, file = (
            number(row, column, where) for column in ("x", "y", "width", "height", "slice_number")
        )
        if not file.is_integer():
            raise UnusableData(f"{where}: slice_number is {file}, not a whole number")
        boxes[row[STUDY]].append(Box(int(file), x, y, width, height))
    return boxes


def _rows(table: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    found = rows(table, columns)
    for where, row in found:
        # It names a folder: an empty one would be the folder of all studies.
        if not re.fullmatch(r"\d+(\.\d+)+", row[STUDY] or ""):
            raise UnusableData(f"{where}: {STUDY} is {row[STUDY]!r}, not a UID")
    return found
