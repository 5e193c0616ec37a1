"""Sagittal T2 slices with their boxes, as detectors read them.

T2 alone: one image of papers 000, 002 and 004 is one grey image, and all that they mark is seen on T2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox
from inference.datasets.lots import lot
from inference.datasets.mr_store import StoredSeries, Study
from inference.preprocess.detector_image import fit
from inference.spine_mr import Subject
from inference.spine_signals import COMPANIONS, Grid


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """The `[images]` table of the training configuration, where every key is explained."""

    #: (rows, columns).
    size: Sequence[int]
    #: Of the slices with a box of a target class, with other boxes only, and without any, the shares that are learnt
    #: from.
    with_target: float
    with_boxes: float
    without_boxes: float


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One slice that somebody has read."""

    name: str
    patient: str
    series: StoredSeries
    slice: int
    boxes: tuple[ImageBox, ...]


@dataclass(frozen=True, kw_only=True)
class SpineImages:
    """Slices in one size; the `LabelledImages` that detectors are trained on."""

    slices: tuple[Marked, ...]
    classes: tuple[str, ...]
    #: (rows, columns).
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Grey image (rows, columns) 0..255, boxes (k, 4) in its pixels, and labels (k,) from 1."""
        one = self.slices[index]
        placed = fit(one.series.shape[1:], one.series.spacing[1:], self.size)
        return (placed.image(one.series.values[one.slice]), *self._boxes(one))

    @property
    def boxes(self) -> list[torch.Tensor]:
        """(k, 4) of each image, in its pixels."""
        return [self._boxes(one)[0] for one in self.slices]

    @property
    def truths(self) -> list[dict[str, torch.Tensor]]:
        """ "boxes" and "labels" of each image, as a detector would answer."""
        pairs = [self._boxes(one) for one in self.slices]
        return [{"boxes": boxes, "labels": labels} for boxes, labels in pairs]

    def _boxes(self, one: Marked) -> tuple[torch.Tensor, torch.Tensor]:
        edges = torch.tensor([(box.left, box.top, box.right, box.bottom) for box in one.boxes]).reshape(-1, 4)
        placed = fit(one.series.shape[1:], one.series.spacing[1:], self.size)
        labels = torch.tensor([1 + self.classes.index(box.label) for box in one.boxes], dtype=torch.int64)
        return placed.forth(edges.float()), labels


def gather(studies: Sequence[Study], subject: Subject, settings: ImageSettings) -> SpineImages:
    """The slices to learn from; which ones of a share depends on their names alone.

    Series that nobody has read are left out, and so are studies of another region. Raises UnusableData for a box of
    a class that is none of the subject's, and where no slice is left or none has a box of a class.
    """
    slices = tuple(
        one
        for study in studies
        if study.region == subject.region
        for one in marked(study)
        if lot(one.name) < _share(one, subject, settings)
    )
    found = {box.label for one in slices for box in one.boxes}
    if not found <= set(subject.classes):
        stranger = next(one for one in slices for box in one.boxes if box.label not in subject.classes)
        labels = ", ".join(sorted(found - set(subject.classes)))
        raise UnusableData(f"{stranger.name}: has a box of {labels}; this task knows {', '.join(subject.classes)}")
    absent = [label for label in subject.classes if label not in found]
    if absent:
        raise UnusableData(
            f"none of the {len(slices)} sagittal T2 slices of {len(studies)} studies has a box of {', '.join(absent)} "
            f"in a {subject.region} spine: add studies"
        )
    return SpineImages(slices=slices, classes=subject.classes, size=(settings.size[0], settings.size[1]))


def _share(one: Marked, subject: Subject, settings: ImageSettings) -> float:
    if any(box.label in subject.target for box in one.boxes):
        return settings.with_target
    return settings.with_boxes if one.boxes else settings.without_boxes


def read_series(study: Study) -> list[StoredSeries]:
    """The sagittal T2 series of a study that somebody has read."""
    return [
        series
        for series in study.series
        if series.boxes is not None and (series.sequence, series.plane) == ("T2", "sagittal")
    ]


def with_companions(study: Study) -> Iterator[tuple[StoredSeries, dict[str, Grid]]]:
    """The same series, each with the voxels of "T2" and of the sagittal series of other contrasts."""
    others: dict[str, Grid] = {
        one.sequence: Grid(one.values, one.affine)
        for one in study.series
        if one.plane == "sagittal" and one.sequence in COMPANIONS
    }
    for series in read_series(study):
        yield series, {"T2": Grid(series.values, series.affine), **others}


def marked(study: Study) -> list[Marked]:
    """The sagittal T2 slices of a study that somebody has read."""
    return [
        Marked(
            name=f"{study.name}/{series.number}/{number}",
            patient=study.patient,
            series=series,
            slice=number,
            boxes=tuple(box for box in series.boxes or () if box.slice == number),
        )
        for series in read_series(study)
        for number in range(series.shape[0])
    ]
