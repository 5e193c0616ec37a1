"""SPIDER: lumbar MR with outlines and gradings of each disc (van der Graaf et al. 2024, 10.1038/s41597-024-03090-w).

`images/PATIENT_SERIES.mha` with SERIES one of t1, t2, t2_SPACE, `masks/` with the same names, and
`radiological_gradings.csv`. Masks count from below: vertebra n is 1 for L5, 100 is the canal, 100 + n a vertebra only
partly in view, 200 + n the disc below vertebra n, which the gradings call "IVD label" n. Not every patient has every
series, and a mask can show other discs than the gradings know: a disc gets a box where it is both drawn and graded.
Gradings are of a whole disc: each slice of a herniated one is called so.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.datasets import grid, itk_volume
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import CANAL, DISC, VERTEBRAE, ImageBox, LabelledMR, MRDataSet, MRSeries, Weighting
from inference.datasets.mr_series import placed, renamed
from inference.datasets.table import number, rows

logger = logging.getLogger(__name__)

SOURCE = "SPIDER lumbar spine MR, doi 10.5281/zenodo.10159290, with outlines and gradings of discs"
LICENCE = "CC BY 4.0"
SERIES: Mapping[str, Weighting] = {"t1": "T1", "t2": "T2", "t2_SPACE": "T2"}
#: "Patient", "IVD label" and what makes a disc more than a normal one, the worst first.
GRADES = {"Spondylolisthesis": "slip", "Disc herniation": "herniation"}
#: From below, as the masks count; the last is beyond what a lumbar series shows.
FROM_BELOW = [name for name in reversed(VERTEBRAE) if name not in ("S1", "L6")]
SMALLEST_MM2 = 20.0  # of a disc in one slice: less is a sliver beside the disc, which no reader would box

#: The label of a disc in paper 004 by number from below; a disc without a complete grading is not in it.
Grading = Mapping[int, str]


def open_dataset(place: str) -> MRDataSet:
    """Every patient in the folder `place` with an image.

    Raises UnusableData where there is none, an image lacks its mask, a file has another name than the data set gives
    it, or the gradings cannot be read or contradict each other.
    """
    root = Path(place)
    patients: dict[str, list[str]] = defaultdict(list)
    for path in sorted((root / "images").glob("*.mha")):
        match = re.fullmatch(r"(\d+)_(\w+)\.mha", path.name)
        if path.name.startswith("."):  # macOS leaves these beside copied files
            continue
        if match is None or match[2] not in SERIES:
            raise UnusableData(f"{path}: no name of the data set; expected PATIENT_ and one of {', '.join(SERIES)}")
        if not (root / "masks" / path.name).exists():
            raise UnusableData(
                f"{root / 'masks' / path.name}: missing, the mask of {path}; fetch it or remove the image"
            )
        patients[match[1]].append(match[2])
    if not patients:
        raise UnusableData(
            f"{root / 'images'}: no image PATIENT_t1.mha or PATIENT_t2.mha; give the folder above images"
        )
    names = sorted(patients, key=int)
    return Spider(root, {name: patients[name] for name in names}, _gradings(root / "radiological_gradings.csv"))


@dataclass(frozen=True)
class Spider:
    """An MRDataSet of lumbar studies."""

    root: Path
    #: Names of the series by patient.
    patients: Mapping[str, Sequence[str]]
    #: By patient; not every one is graded.
    gradings: Mapping[str, Grading]

    @property
    def names(self) -> Sequence[str]:
        """Numbers of the patients, rising."""
        return tuple(self.patients)

    def load(self, name: str) -> LabelledMR:
        """Read one patient. Raises UnusableData for a damaged file, or a mask of other labels or on another grid."""
        if name not in self.patients:
            raise UnusableData(f"{self.root}: no patient {name!r} with images")
        return LabelledMR(
            name=name,
            patient=name,
            region="lumbar",
            series=tuple(self._series(name, series) for series in self.patients[name]),
            source=SOURCE,
            licence=LICENCE,
        )

    def _series(self, patient: str, series: str) -> MRSeries:
        file = f"{patient}_{series}.mha"
        image = placed(itk_volume.read(self.root / "images" / file)).turned("sagittal")
        mask = placed(itk_volume.read(self.root / "masks" / file)).turned("sagittal")
        grid.refuse_another(f"{self.root / 'masks' / file}", mask, image)
        structures = renamed(mask.array, _LABELS, f"{self.root / 'masks' / file}")
        grading, boxes = self.gradings.get(patient), None
        if grading is None:
            logger.warning("%s: patient %s is not in the gradings and has no boxes", self.root, patient)
        else:
            boxes = _boxes(mask.array, grading, image.spacing, file)
        return MRSeries(
            sequence=SERIES[series],
            plane="sagittal",
            values=image.array.astype(np.float32),
            affine=image.affine,
            boxes=boxes,
            structures=structures,
        )


def _boxes(
    labels: np.ndarray, grading: Grading, spacing: tuple[float, float, float], file: str
) -> tuple[ImageBox, ...]:
    drawn = sorted(int(label) - 200 for label in np.unique(labels) if label > 200)
    ungraded = [_disc(disc) for disc in drawn if disc not in grading]
    if ungraded:
        logger.warning("%s: %s drawn but not graded, without a box", file, ", ".join(ungraded))
    found = []
    for disc in (one for one in drawn if one in grading):
        for position, outline in enumerate(labels == 200 + disc):
            if outline.sum() * spacing[1] * spacing[2] < SMALLEST_MM2:
                continue
            (top, left), (bottom, right) = (edge(np.argwhere(outline), axis=0) for edge in (np.min, np.max))
            found.append(
                ImageBox(
                    slice=position,
                    left=float(left),
                    top=float(top),
                    right=float(right) + 1,
                    bottom=float(bottom) + 1,
                    label=grading[disc],
                    level=_disc(disc),
                )
            )
    return tuple(sorted(found, key=lambda box: (box.slice, box.top)))


def _gradings(table: Path) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for where, row in rows(table, ("Patient", "IVD label", *GRADES)):
        patient, disc = (int(number(row, column, where)) for column in ("Patient", "IVD label"))
        grades = [row[column].strip() for column in GRADES]
        # The table has a row for a disc 0, which no mask has, and cells that are empty.
        if disc < 1 or any(grade.lower() in ("", "nan") for grade in grades):
            continue
        present = {column: number(row, column, where) for column in GRADES}
        label = next((GRADES[column] for column, value in present.items() if value), "disc")
        if found[str(patient)].setdefault(disc, label) != label:
            raise UnusableData(f"{where}: disc {disc} of patient {patient} was graded otherwise above; remove one row")
    return dict(found)


def _disc(disc: int) -> str:
    return f"{FROM_BELOW[disc - 1]}/{FROM_BELOW[disc - 2] if disc > 1 else 'S1'}"


_LABELS = {
    100: CANAL,
    **{shift + n: VERTEBRAE[name] for n, name in enumerate(FROM_BELOW, 1) for shift in (0, 100)},
    **{200 + n: DISC + VERTEBRAE[name] for n, name in enumerate(FROM_BELOW, 1)},
}
