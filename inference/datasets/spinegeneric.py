"""spine-generic multi-subject: cervical MR of healthy people, with outlines (10.1038/s41597-021-00941-8).

BIDS: `participants.tsv`, `SUBJECT/anat/SUBJECT_T1w.nii.gz` and `_T2w.nii.gz`, and for each in
`derivatives/labels/SUBJECT/anat/` as far as they were made `_label-spine_dseg.nii.gz` (vertebrae and discs, by
TotalSpineSeg and corrected by hand), `_label-canal_seg.nii.gz` and `_label-SC_seg.nii.gz` (spinal cord). The data set
lies in git-annex: files that were not fetched are links or lines of text. A newer `participants.tsv` has a column
`pathology`; a few volunteers in it have a compressed cord without knowing of it and are not healthy (HC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.datasets import grid, itk_volume
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import CANAL, CORD, DISC, VERTEBRAE, LabelledMR, MRDataSet, MRSeries, Weighting
from inference.datasets.mr_series import Placed, placed, renamed
from inference.datasets.table import rows

SOURCE = "spine-generic multi-subject, doi 10.5281/zenodo.4299140, healthy volunteers with outlines"
LICENCE = "CC BY 4.0"
SERIES: Mapping[str, Weighting] = {"T1w": "T1", "T2w": "T2"}
#: Labels of TotalSpineSeg: cord, canal, C1-C7, T1-T12, L1-L5, sacrum, then discs by the vertebra above them.
LABELS = {
    1: CORD,
    2: CANAL,
    **{10 + n: VERTEBRAE[f"C{n}"] for n in range(1, 8)},
    **{20 + n: VERTEBRAE[f"T{n}"] for n in range(1, 13)},
    **{40 + n: VERTEBRAE[f"L{n}"] for n in range(1, 6)},
    50: VERTEBRAE["S1"],
    **{61 + n: DISC + VERTEBRAE[f"C{n}"] for n in range(2, 7)},
    71: DISC + VERTEBRAE["C7"],
    **{71 + n: DISC + VERTEBRAE[f"T{n}"] for n in range(1, 12)},
    91: DISC + VERTEBRAE["T12"],
    **{91 + n: DISC + VERTEBRAE[f"L{n}"] for n in range(1, 5)},
    100: DISC + VERTEBRAE["L5"],
}


def open_dataset(place: str) -> MRDataSet:
    """Every participant with a T1w or T2w image in the folder `place`.

    Raises UnusableData where there is none or `participants.tsv` cannot be read.
    """
    root = Path(place)
    people = dict(row for _, row in _participants(root / "participants.tsv"))
    series = {name: [one for one in SERIES if _present(_image(root, name, one))] for name in people}
    here = {name: people[name] for name, present in series.items() if present}
    if not here:
        raise UnusableData(f"{root}: none of {len(people)} participants has SUBJECT/anat/SUBJECT_T1w.nii.gz or _T2w")
    return SpineGeneric(root, {name: series[name] for name in here}, here)


@dataclass(frozen=True)
class SpineGeneric:
    """An MRDataSet of people without an injury."""

    root: Path
    #: Names of the series by participant.
    series: Mapping[str, Sequence[str]]
    #: Whether a participant is healthy.
    healthy: Mapping[str, bool]

    @property
    def names(self) -> Sequence[str]:
        """Participants in the order of the table."""
        return tuple(self.series)

    def load(self, name: str) -> LabelledMR:
        """Read one participant. Raises UnusableData for a file not fetched or damaged, or outlines of another grid."""
        if name not in self.series:
            raise UnusableData(f"{self.root}: no participant {name!r} with images")
        return LabelledMR(
            name=name,
            patient=name,
            region="cervical",
            series=tuple(self._series(name, series) for series in self.series[name]),
            source=SOURCE,
            licence=LICENCE,
        )

    def _series(self, name: str, series: str) -> MRSeries:
        image = placed(itk_volume.read(_image(self.root, name, series))).turned("sagittal")
        return MRSeries(
            sequence=SERIES[series],
            plane="sagittal",
            values=image.array.astype(np.float32),
            affine=image.affine,
            boxes=() if self.healthy[name] else None,
            structures=self._structures(name, series, image),
        )

    def _structures(self, name: str, series: str, image: Placed) -> np.ndarray | None:
        """None without an outline of the spine: a map of the cord alone would call vertebrae background."""
        folder = self.root / "derivatives" / "labels" / name / "anat"
        outlines = {}
        for label in ("spine_dseg", "canal_seg", "SC_seg"):
            path = folder / f"{name}_{series}_label-{label}.nii.gz"
            if _present(path):
                outlines[label] = placed(itk_volume.read(path)).turned("sagittal")
                grid.refuse_another(str(path), outlines[label], image)
        if "spine_dseg" not in outlines:
            return None
        found = renamed(outlines["spine_dseg"].array, LABELS, str(folder / f"{name}_{series}_label-spine_dseg.nii.gz"))
        if "canal_seg" in outlines:
            found[(outlines["canal_seg"].array > 0.5) & (found == 0)] = CANAL
        if "SC_seg" in outlines:
            found[outlines["SC_seg"].array > 0.5] = CORD
        return found


def _image(root: Path, name: str, series: str) -> Path:
    return root / name / "anat" / f"{name}_{series}.nii.gz"


def _present(path: Path) -> bool:
    """Also for a link of git-annex whose file was not fetched: to leave it out would hide that."""
    return path.exists() or path.is_symlink()


def _participants(table: Path) -> list[tuple[str, tuple[str, bool]]]:
    found = []
    for where, row in rows(table, ("participant_id",), delimiter="\t"):
        if not row["participant_id"].startswith("sub-") or "/" in row["participant_id"]:
            raise UnusableData(f"{where}: participant_id is {row['participant_id']!r}, not sub-SOMETHING")
        found.append((where, (row["participant_id"], row.get("pathology", "HC") == "HC")))
    return found
