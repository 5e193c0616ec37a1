"""Boxes found against boxes drawn: matching, average precision, average recall, FROC and the confusion of classes.

Matching and the 101-point average precision are those of COCO (T.-Y. Lin et al. 2014, arXiv 1405.0312, as its
published evaluation code has them): in each image and class the detections choose in the order of their scores, each
the free drawn box that it overlaps most, at least by the threshold; a second detection of one drawn box is false. A
drawn box counts whole, also where the image cuts the lesion off; no box is ignored for its size. What is not defined
is NaN, never 0: a class that nobody drew has no average precision. Needs nothing but numpy: training uses it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inference.datasets.labelled_mr import ImageBox

#: Intersection over union of "mAP@[.5:.95]".
COCO_OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
MOST_FOUND = 100  # detections that count in one image and class, as in COCO
#: What a row of `Outcomes` is. IMAGE stands for one image, whatever is in it: FROC counts them.
FALSE, HIT, MISSED, IMAGE = range(4)
#: False detections per image at which FROC is read.
FALSE_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The n boxes in one image. Raises ValueError for arrays that do not belong together, and boxes inside out."""

    #: (n, 4) left, top, right, bottom in pixels.
    edges: np.ndarray
    #: (n,) str.
    labels: np.ndarray
    #: (n,) str such as "L4/L5"; "" where not known.
    levels: np.ndarray

    def __post_init__(self) -> None:
        if self.edges.shape != (len(self.labels), 4) or self.levels.shape != self.labels.shape:
            raise ValueError(
                f"every box needs 4 edges, a label and a level, not {self.edges.shape}, {self.labels.shape} and "
                f"{self.levels.shape}"
            )
        # Written so that NaN is refused too.
        if not np.all(self.edges[:, :2] <= self.edges[:, 2:]):
            raise ValueError("a box has its right edge left of its left one, its bottom above its top, or a NaN")

    def at(self, chosen: np.ndarray) -> Boxes:
        """The boxes at these positions, or where True."""
        return Boxes(edges=self.edges[chosen], labels=self.labels[chosen], levels=self.levels[chosen])


@dataclass(frozen=True, kw_only=True)
class Image:
    """What was drawn and what was found in one image. Raises ValueError without one number as score per found box."""

    #: The unit of the bootstrap.
    patient: str
    truth: Boxes
    found: Boxes
    #: (n,) of `found`; higher is surer.
    scores: np.ndarray

    def __post_init__(self) -> None:
        if self.scores.shape != self.found.labels.shape or np.isnan(self.scores).any():
            raise ValueError(f"{len(self.found.labels)} found boxes need as many scores, none of them NaN")


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What became of every box of some images, in rows: the form that the bootstrap resamples."""

    #: (n,); NaN for what was not found.
    scores: np.ndarray
    #: (n, 2) int: position of the class and one of FALSE, HIT, MISSED; (-1, IMAGE) once for each image.
    marks: np.ndarray

    def of_class(self, position: int) -> Outcomes:
        """The rows of one class, and those that count images."""
        kept = (self.marks[:, 0] == position) | (self.marks[:, 1] == IMAGE)
        return Outcomes(scores=self.scores[kept], marks=self.marks[kept])


#: The score from which a detection is reported, for all classes or by class; a class without one is not reported.
Threshold = float | Mapping[str, float]

#: (n,) truth and (m,) found boxes to (m, n) bool: may this detection be of that box?
Agreement = Callable[[Boxes, Boxes], np.ndarray]


def same_label(truth: Boxes, found: Boxes) -> np.ndarray:
    """The usual agreement: detections of a class are of boxes of that class."""
    return np.asarray(found.labels[:, None] == truth.labels)


def same_label_and_level(truth: Boxes, found: Boxes) -> np.ndarray:
    """A detection at the wrong level is false, and its box missed; a box of unknown level agrees with any."""
    return np.asarray(same_label(truth, found) & ((found.levels[:, None] == truth.levels) | (truth.levels == "")))


def any_label(truth: Boxes, found: Boxes) -> np.ndarray:
    """A detection may be of any box: what it is called is another question."""
    return np.ones((len(found.labels), len(truth.labels)), bool)


def reported(image: Image, threshold: Threshold) -> np.ndarray:
    """(n,) bool of the found boxes."""
    if isinstance(threshold, Mapping):
        least = np.array([threshold.get(label, np.inf) for label in image.found.labels.tolist()])
        return np.asarray(image.scores >= least)
    return np.asarray(image.scores >= threshold)


def drawn(boxes: Sequence[ImageBox]) -> Boxes:
    """The boxes of one slice of a data set."""
    return Boxes(
        edges=np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], float).reshape(-1, 4),
        labels=np.array([box.label for box in boxes], str),
        levels=np.array([box.level or "" for box in boxes], str),
    )


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of (m, 4) and (n, 4) edges: (m, n)."""
    shared = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    inside = np.clip(shared, 0, None).prod(axis=2)
    area_a, area_b = ((edges[:, 2:] - edges[:, :2]).prod(axis=1) for edges in (a, b))
    # Networks find boxes without an area at times: they overlap nothing.
    return np.asarray(inside / np.maximum(area_a[:, None] + area_b - inside, np.finfo(float).tiny))


def match(image: Image, overlap: float, agreement: Agreement = same_label) -> np.ndarray:
    """(n,) for each found box the position of its drawn box, or -1; surer ones choose first."""
    shared = overlaps(image.found.edges, image.truth.edges)
    shared[~agreement(image.truth, image.found)] = -1
    chosen = np.full(len(image.scores), -1)
    if not shared.size:
        return chosen
    for box in np.argsort(-image.scores, kind="stable"):
        best = int(shared[box].argmax())
        if shared[box, best] >= overlap:
            chosen[box] = best
            shared[:, best] = -1
    return chosen


def outcomes(
    images: Sequence[Image], classes: Sequence[str], overlap: float, agreement: Agreement = same_label
) -> Outcomes:
    """Match the boxes of these classes in every image; boxes of other classes are left out on both sides.

    Not more than the 100 surest detections of a class count in an image.
    """
    scores, marks = [np.empty(0)], [np.empty((0, 2), int)]
    for image in images:
        scores.append(np.array([np.nan]))
        marks.append(np.array([[-1, IMAGE]]))
        for position, label in enumerate(classes):
            kept = np.flatnonzero(image.found.labels == label)
            kept = kept[np.argsort(-image.scores[kept], kind="stable")][:MOST_FOUND]
            truth = image.truth.at(image.truth.labels == label)
            one = Image(patient=image.patient, truth=truth, found=image.found.at(kept), scores=image.scores[kept])
            chosen = match(one, overlap, agreement)
            missed = len(truth.labels) - int((chosen >= 0).sum())
            kinds = np.concatenate([np.where(chosen >= 0, HIT, FALSE), np.full(missed, MISSED)])
            scores.append(np.concatenate([one.scores, np.full(missed, np.nan)]))
            marks.append(np.stack([np.full(len(kinds), position), kinds], axis=1))
    return Outcomes(scores=np.concatenate(scores), marks=np.concatenate(marks))


def precision_recall(scores: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection, the surest first; (n,) scores and FALSE, HIT or MISSED of a class.

    Recall is NaN where nothing was drawn.
    """
    made = np.flatnonzero((kinds == HIT) | (kinds == FALSE))
    hits = np.cumsum(kinds[made[np.argsort(-scores[made], kind="stable")]] == HIT)
    return hits / np.arange(1, len(made) + 1), hits / (_drawn(kinds) or np.nan)


def average_precision(scores: np.ndarray, kinds: np.ndarray, points: Literal["101", "all"] = "101") -> float:
    """Area under precision over recall of one class, precision made to fall; NaN where nothing was drawn.

    "101": mean at recall 0, 0.01, ..., 1 (COCO); "all": the exact area (Pascal VOC from 2010 on).
    """
    if not _drawn(kinds):
        return float("nan")
    precision, recall = precision_recall(scores, kinds)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    if points == "all":
        return float(np.sum(np.diff(recall, prepend=0) * highest))
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(highest, 0)[at].mean())


def average_recall(scores: np.ndarray, kinds: np.ndarray) -> float:
    """The share of the drawn boxes of one class that was found with any score; NaN where nothing was drawn."""
    found, total = int((kinds == HIT).sum()), _drawn(kinds)
    return found / total if total else float("nan")


def mean_average_precision(scores: np.ndarray, marks: np.ndarray) -> float:
    """Mean over the classes that were drawn, as in COCO; NaN where none was. `scores` and `marks` of an Outcomes."""
    of_class = [marks[:, 0] == one for one in range(int(marks[:, 0].max(initial=-1)) + 1)]
    each = [average_precision(scores[mine], marks[mine, 1]) for mine in of_class]
    return mean_of_defined(np.array(each))


def mean_of_defined(values: np.ndarray) -> float:
    """The mean without the NaNs; NaN where nothing else is there."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def score(images: Sequence[Image], classes: Sequence[str]) -> float:
    """mAP@0.5: what training watches."""
    found = outcomes(images, classes, 0.5)
    return mean_average_precision(found.scores, found.marks)


def froc(scores: np.ndarray, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False detections per image and sensitivity (NaN where nothing was drawn) at each threshold, the highest first.

    Starts at (0, 0), which is a threshold that no score reaches. Give the rows of one class and the IMAGE rows, or
    of several classes: then false detections of all of them are counted together.
    """
    kinds = marks[:, 1]
    made = np.flatnonzero((kinds == HIT) | (kinds == FALSE))
    made = made[np.argsort(-scores[made], kind="stable")]
    # No threshold lies between detections with one score.
    last = np.append(np.diff(scores[made]) != 0, True)[: len(made)]
    counts = [np.append(0, np.cumsum(kinds[made] == kind)[last]) for kind in (FALSE, HIT)]
    return counts[0] / (int((kinds == IMAGE).sum()) or np.nan), counts[1] / (_drawn(kinds) or np.nan)


def sensitivity_at(scores: np.ndarray, marks: np.ndarray, false_per_image: float) -> float:
    """The highest sensitivity of a threshold with at most so many false detections per image; not interpolated."""
    false, sensitivity = froc(scores, marks)
    kept = sensitivity[false <= false_per_image]
    return float(kept[-1]) if len(kept) else float("nan")


def confusion(
    images: Sequence[Image], classes: Sequence[str], *, threshold: Threshold, overlap: float = 0.5
) -> np.ndarray:
    """(k + 1, k + 1) counts: rows drawn, columns found, the last of both is background.

    Detections with at least the threshold as score choose among drawn boxes of every class, so that a box found with
    the wrong class is one mistake and not two. Boxes of other classes are left out on both sides.
    """
    counts = np.zeros((len(classes) + 1, len(classes) + 1), int)
    position = {label: number for number, label in enumerate(classes)}
    for image in images:
        kept = np.flatnonzero(reported(image, threshold) & np.isin(image.found.labels, classes))
        truth = image.truth.at(np.isin(image.truth.labels, classes))
        sure = Image(patient=image.patient, truth=truth, found=image.found.at(kept), scores=image.scores[kept])
        chosen = match(sure, overlap, any_label)
        for label, box in zip(sure.found.labels, chosen, strict=True):
            counts[position[truth.labels[box]] if box >= 0 else -1, position[label]] += 1
        for box in set(range(len(truth.labels))) - set(chosen.tolist()):
            counts[position[truth.labels[box]], -1] += 1
    return counts


def _drawn(kinds: np.ndarray) -> int:
    return int(((kinds == HIT) | (kinds == MISSED)).sum())
