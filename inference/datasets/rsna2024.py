"""RSNA 2024 Lumbar Spine Degenerative Classification: severity of stenosis by disc, and where it was judged.

`train.csv` (study_id, and for each of five conditions and five discs a column such as
left_neural_foraminal_narrowing_l4_l5: Normal/Mild, Moderate, Severe, or empty), `train_label_coordinates.csv`
(study_id, series_id, instance_number, condition, level, x, y in pixels), `train_series_descriptions.csv` (study_id,
series_id, series_description) and `train_images/STUDY/SERIES/NUMBER.dcm`.

Nothing here is a herniation or a slip: there are no boxes. Each severity is a measurement of its disc (0, 1, 2) named
as its condition, and so is each point that was clicked for it: CONDITION_x_mm, _y_mm, _z_mm, LPS. "Sagittal T2/STIR"
does not say which: it counts as T2. A series can mix matrix sizes and orientations and skip positions, mostly axial
ones with a block for each disc: each even block is a series here, and a single image is left out. Spacing comes from
the positions alone. What the winners of the challenge found to be wrong is listed below and left out.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pydicom.errors

from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import LabelledMR, MRDataSet, MRSeries, Weighting
from inference.datasets.mr_series import Placed, plane_of
from inference.datasets.table import number, rows
from inference.volume import UnusableSeries, read_volume

logger = logging.getLogger(__name__)

SOURCE = "RSNA 2024 Lumbar Spine Degenerative Classification, severities and points by disc"
LICENCE = "RSNA LumbarDISC: non-commercial use"
DISCS = ("L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1")
CONDITIONS = (
    "spinal_canal_stenosis",
    "left_neural_foraminal_narrowing",
    "right_neural_foraminal_narrowing",
    "left_subarticular_stenosis",
    "right_subarticular_stenosis",
)
SEVERITIES = {"Normal/Mild": 0.0, "Moderate": 1.0, "Severe": 2.0}
SEQUENCES: Mapping[str, Weighting] = {"Sagittal T1": "T1", "Sagittal T2/STIR": "T2", "Axial T2": "T2"}
#: These and the next from solutions of the challenge (hengck23 and brendanartley on GitHub): of no use as they are.
BAD_STUDIES = frozenset({"2492114990", "2780132468", "3008676218"})
BAD_SERIES = frozenset(
    {"2097107888", "2679683906", "1771893480", "996418962", "1753543608", "1848483560", "3892989905"}
)
#: Series and one study whose points have left and right exchanged, or both in one place.
BAD_POINTS = frozenset(
    {"3230157587", "692927423", "2289719834", "4030602643", "856763877", "8785691", "3355993164", "4066376844"}
    | {"3637444890"}
)
_GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns")


class Point(NamedTuple):
    """Where somebody judged a condition."""

    series: str
    #: Of the file.
    instance: int
    disc: str
    condition: str
    #: Pixels, 0 at the centre of the first.
    x: float
    y: float


def open_dataset(place: str) -> MRDataSet:
    """Every usable study of `train.csv` in the folder `place` that has images.

    Raises UnusableData where there is none, or a table is missing, lacks a column or has an unknown value.
    """
    root = Path(place)
    severities = _severities(root / "train.csv")
    series = _series(root / "train_series_descriptions.csv")
    images = root / "train_images"
    here = [name for name in severities if name not in BAD_STUDIES and (images / name).is_dir()]
    if not here:
        raise UnusableData(f"{images}: no folder of any of the {len(severities)} studies in train.csv")
    return Rsna2024(
        root=root,
        severities={name: severities[name] for name in here},
        series=series,
        points=_points(root / "train_label_coordinates.csv"),
        left_out=len(severities) - len(here),
    )


@dataclass(frozen=True, kw_only=True)
class Rsna2024:
    """An MRDataSet of lumbar studies with severities."""

    root: Path
    #: By study, disc and condition.
    severities: Mapping[str, Mapping[str, Mapping[str, float]]]
    #: Series and what it shows, by study.
    series: Mapping[str, Mapping[str, Weighting]]
    points: Mapping[str, Sequence[Point]]
    #: How many studies of train.csv have no images here, or bad ones.
    left_out: int

    @cached_property
    def names(self) -> Sequence[str]:
        """Studies in the order of train.csv."""
        if self.left_out:
            logger.warning("%s: %d studies without images, or with wrong ones, are left out", self.root, self.left_out)
        return tuple(self.severities)

    def load(self, name: str) -> LabelledMR:
        """Read one study. Raises UnusableData for a damaged image, no series that can be read, or a point nowhere."""
        if name not in self.severities:
            raise UnusableData(f"{self.root}: no study {name!r} with images")
        found: list[MRSeries] = []
        measured = {disc: dict(values) for disc, values in self.severities[name].items()}
        for series, sequence in self.series.get(name, {}).items():
            folder = self.root / "train_images" / name / series
            if not folder.is_dir() or series in BAD_SERIES:
                logger.warning("%s: not here or known to be bad, left out", folder)
                continue
            headers = {path.stem: _header(path) for path in folder.glob("*.dcm") if not path.name.startswith(".")}
            found += [_read(paths, sequence, folder) for paths in _blocks(headers, folder)]
            for point in self.points.get(name, ()):
                if point.series == series:
                    measured.setdefault(point.disc, {}).update(_place(point, headers, folder))
        if not found:
            raise UnusableData(f"{self.root / 'train_images' / name}: no series that can be read; leave the study out")
        return LabelledMR(
            name=name,
            patient=name,
            region="lumbar",
            series=tuple(found),
            measurements=measured,
            source=SOURCE,
            licence=LICENCE,
        )


def _header(path: Path) -> pydicom.Dataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, OSError, AttributeError, ValueError, TypeError) as error:
        raise UnusableData(f"{path}: not a DICOM image; fetch it again ({error})") from error
    missing = [keyword for keyword in _GEOMETRY if header.get(keyword) is None]
    if missing:
        raise UnusableData(f"{path}: no {', '.join(missing)}; fetch it again or remove it")
    return header


def _blocks(headers: Mapping[str, pydicom.Dataset], folder: Path) -> list[list[Path]]:
    """The files of each even stack: one size, spacing and orientation, and no gap between the slices."""
    stacks: dict[tuple[object, ...], list[tuple[float, str]]] = defaultdict(list)
    for stem, header in headers.items():
        directions = np.array(header.ImageOrientationPatient, float)
        height = float(np.cross(directions[:3], directions[3:]) @ np.array(header.ImagePositionPatient, float))
        key = (header.Rows, header.Columns, *np.round([*header.PixelSpacing, *directions], 3))
        stacks[key].append((height, stem))
    found = []
    for stack in stacks.values():
        stack.sort()
        steps = np.diff([height for height, _ in stack])
        # The smallest step is that inside a block. A second image at one place is for the volume gate to refuse.
        cuts = np.cumsum([0, *(steps > 1.5 * steps.min(where=steps > 0.01, initial=np.inf))])
        for _, block in groupby(zip(cuts, stack, strict=True), key=lambda one: one[0]):
            paths = [folder / f"{stem}.dcm" for _, (_, stem) in block]
            if len(paths) > 1:
                found.append(paths)
            else:
                logger.warning("%s: a single image beside the others, left out", paths[0])
    return found


def _read(paths: Sequence[Path], sequence: Weighting, folder: Path) -> MRSeries:
    try:
        volume = read_volume(paths)
    except UnusableSeries as error:
        raise UnusableData(f"{folder}: {error}") from error
    plane = plane_of(volume.affine)
    if plane == "coronal":
        raise UnusableData(f"{folder}: coronal, but described as sagittal or axial; take it out of the table")
    turned = Placed(volume.array, volume.affine).turned(plane)
    return MRSeries(sequence=sequence, plane=plane, values=turned.array, affine=turned.affine, boxes=None)


def _place(point: Point, headers: Mapping[str, pydicom.Dataset], folder: Path) -> dict[str, float]:
    if str(point.instance) not in headers:
        raise UnusableData(
            f"{folder}: train_label_coordinates.csv has a point in {point.instance}.dcm, which is not here"
        )
    header = headers[str(point.instance)]
    if not (0 <= point.x < header.Columns and 0 <= point.y < header.Rows):
        raise UnusableData(f"{folder / str(point.instance)}.dcm: the point ({point.x:g}, {point.y:g}) is outside it")
    row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(one) for one in header.PixelSpacing)
    origin = np.array(header.ImagePositionPatient, float)
    where = origin + row * between_columns * point.x + column * between_rows * point.y
    return {f"{point.condition}_{axis}_mm": float(value) for axis, value in zip("xyz", where, strict=True)}


def _severities(table: Path) -> dict[str, dict[str, dict[str, float]]]:
    columns = {(disc, one): f"{one}_{disc.lower().replace('/', '_')}" for disc in DISCS for one in CONDITIONS}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for where, row in rows(table, ("study_id", *columns.values())):
        study: dict[str, dict[str, float]] = {disc: {} for disc in DISCS}
        for (disc, condition), column in columns.items():
            text = row[column] or ""
            if text in SEVERITIES:
                study[disc][condition] = SEVERITIES[text]
            elif text.lower() not in ("", "nan"):
                raise UnusableData(
                    f"{where}: {column} is {text!r}; expected one of {', '.join(SEVERITIES)}, or nothing"
                )
        found[_identifier(row, "study_id", where)] = study
    return found


def _series(table: Path) -> dict[str, dict[str, Weighting]]:
    found: dict[str, dict[str, Weighting]] = defaultdict(dict)
    for where, row in rows(table, ("study_id", "series_id", "series_description")):
        if row["series_description"] not in SEQUENCES:
            raise UnusableData(f"{where}: series_description is {row['series_description']!r}, not of the challenge")
        study = found[_identifier(row, "study_id", where)]
        study[_identifier(row, "series_id", where)] = SEQUENCES[row["series_description"]]
    return found


def _points(table: Path) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = defaultdict(list)
    for where, row in rows(table, ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")):
        study, series = (_identifier(row, column, where) for column in ("study_id", "series_id"))
        condition = row["condition"].lower().replace(" ", "_")
        if condition not in CONDITIONS or row["level"] not in DISCS:
            raise UnusableData(f"{where}: {row['condition']!r} at {row['level']!r} is not of the challenge")
        if study in BAD_POINTS or series in BAD_POINTS:
            continue
        instance, x, y = (number(row, column, where) for column in ("instance_number", "x", "y"))
        found[study].append(Point(series, int(instance), row["level"], condition, x, y))
    return found


def _identifier(row: Mapping[str, str], column: str, where: str) -> str:
    """It names a folder."""
    if not (row[column] or "").isdigit():
        raise UnusableData(f"{where}: {column} is {row[column]!r}, not a number")
    return row[column]
