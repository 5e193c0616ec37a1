"""From the boxes of single slices to what is said of a sagittal T2 series: objects, each with a class and a level.

Training calibrates the answer about the study on these objects and the pipelines report them: one path for both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inference import disc_measures
from inference.calibrated import LEAST_SCORE
from inference.linked_boxes import Linked, SliceBox, link
from inference.spine_levels import Outlines
from inference.spine_mr import CORD_INJURY, LESIONS, SUBJECTS, Answer

#: Paper 002 (Ma 2020) puts images into these groups, the worst first: by what is found in them.
GROUPS: Mapping[str, frozenset[str]] = {
    "injured": frozenset(LESIONS),
    "disc": frozenset({"herniation"}),
    "normal": frozenset(),
}
#: Boxes that are less probable are not looked at.
LEAST = 0.05


@dataclass(frozen=True, kw_only=True)
class Found:
    """One lesion, or one disc, of a series."""

    linked: Linked
    #: Those of the boxes that are sure enough to show where it is; the surest one if none is.
    shown: Linked
    #: The class that is reported.
    label: str
    #: Calibrated, of the surest box of a class of the target, or of `label` if that is none of them.
    probability: float
    #: The vertebra behind which a lesion lies, or the disc; None where it has no name.
    level: str | None = None

    @property
    def key(self) -> SliceBox:
        """The box that shows the reported class best."""
        return next((box for box in self.linked.boxes if box.label == self.label), self.linked.surest)


@dataclass(frozen=True, kw_only=True)
class DiscMeasures:
    """Of a disc between two named vertebrae; the reach of a herniation in mm, the slip in mm and per cent."""

    #: None where it does not part from what lies behind it.
    herniation_mm: float | None
    slip_mm: float
    slip_percent: float


def group(labels: Collection[str]) -> str:
    """The group of an image, or a study, in which these classes are found."""
    return next((name for name, members in GROUPS.items() if members & set(labels)), "normal")


def slice_boxes(answers: Sequence[Answer], calibration: Mapping[str, Mapping[str, float]]) -> list[SliceBox]:
    """The boxes of a series, slice by slice, that are worth a look."""
    return [
        SliceBox(slice=number, edges=tuple(edges), label=str(label), probability=float(p), raw=float(raw))
        for number, answer in enumerate(answers)
        for edges, label, p, raw in zip(
            answer.edges.tolist(), answer.labels, answer.probabilities(calibration), answer.scores, strict=True
        )
        if p >= LEAST
    ]


def objects(task: str, boxes: Sequence[SliceBox], thresholds: Mapping[str, float]) -> list[Found]:
    """What the boxes show, surest first.

    A lesion may look different in every slice, and a disc is normal where its herniation does not reach: such boxes
    are one object. A herniation next to a lesion of the cord is another.
    """
    target = SUBJECTS[task].target
    groups = [[box for box in boxes if box.label in target], [box for box in boxes if box.label not in target]]
    if task != CORD_INJURY:
        groups = [list(boxes)]
    found = [_found(linked, target, thresholds) for group in groups for linked in link(group, same_label=False)]
    return sorted(found, key=lambda one: (-one.probability, one.key.slice, one.key.edges))


def _found(linked: Linked, target: Collection[str], thresholds: Mapping[str, float]) -> Found:
    """An object is of its target class, if that is sure enough, whatever other boxes say."""
    sure = [box for box in linked.boxes if box.label in target and box.probability >= thresholds[box.label]]
    label = Linked(boxes=tuple(sure)).label if sure else linked.label
    counted = target if label in target else (label,)
    enough = [box for box in linked.boxes if box.label in counted and box.probability >= thresholds[box.label]]
    return Found(
        linked=linked,
        shown=Linked(boxes=tuple(enough) or linked.boxes[:1]),
        label=label,
        probability=max(box.probability for box in linked.boxes if box.label in counted),
    )


def probability(found: Sequence[Found], target: Collection[str]) -> float:
    """Of the surest box of a target class in a study, 0 to 1: what the answer about the study is calibrated on."""
    boxes = [box for one in found for box in one.linked.boxes if box.label in target]
    return max((box.probability for box in boxes), default=LEAST_SCORE)


def measures(outlines: Outlines, values: np.ndarray, level: str, slices: Collection[int]) -> DiscMeasures | None:
    """Measure a disc in the given slices of a T2 series, values (slices, rows, columns) as outlined.

    None where the disc or a vertebra beside it is not outlined, or cut by the image. Corners of the bodies are those of
    their middle slices; a herniation counts where it reaches furthest.
    """
    upper, lower = level.split("/")
    if not {upper, lower, level} <= set(outlines.named):
        return None
    bodies = [outlines.body(one) for one in (upper, lower)]
    if not all(body.any() and not body[[0, -1]].any() for body in bodies):
        return None
    spacing = outlines.spacing[1:]
    above, below = (np.argwhere(body).mean(0) * spacing for body in bodies)
    top, bottom = (disc_measures.corners(body, spacing, below - above) for body in bodies)
    slip_mm, slip_percent = disc_measures.slip(top, bottom)
    reaches = [disc_measures.herniation(values[one], spacing, top, bottom, below - above) for one in slices]
    return DiscMeasures(
        herniation_mm=max((reach for reach in reaches if reach is not None), default=None),
        slip_mm=slip_mm,
        slip_percent=slip_percent,
    )
