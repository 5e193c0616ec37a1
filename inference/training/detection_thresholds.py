"""What the scores of a detector mean, and from which on a box is reported; from validation images only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from inference.calibrated import logits
from inference.datasets.labelled import UnusableData
from inference.evaluation.detection import FALSE, HIT, IMAGE, MISSED, Image, outcomes
from inference.training.calibration import OperatingPoint, fit_platt, indeterminate, operating_points

OVERLAP = 0.5  # IoU from which a box is found
FALSE_PER_IMAGE = 0.1


@dataclass(frozen=True, kw_only=True)
class DetectionPoint:
    """A threshold on the calibrated probability of each class, and what it gives on the validation images."""

    name: str
    thresholds: Mapping[str, float]
    sensitivity: Mapping[str, float]
    #: False boxes of the class.
    false_per_image: Mapping[str, float]


def calibrate(images: Sequence[Image], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Bias and weight of each class, by which a score becomes the probability that a reader has drawn the box.

    Raises UnusableData for a class of which nothing was found.
    """
    found = outcomes(images, classes, OVERLAP)
    fitted = {}
    for position, label in enumerate(classes):
        made = (found.marks[:, 0] == position) & np.isin(found.marks[:, 1], (FALSE, HIT))
        if not made.any():
            raise UnusableData(f"the detector finds no {label} in {len(images)} validation images: train it longer")
        bias, weight = fit_platt(logits(found.scores[made]), found.marks[made, 1] == HIT)
        fitted[label] = {"bias": bias, "weight": weight}
    return fitted


def calibrate_cases(
    highest: np.ndarray, truth: np.ndarray
) -> tuple[dict[str, float], tuple[OperatingPoint, ...], tuple[float, float]]:
    """Bias and weight by which the surest box of a study becomes the probability of the study; points and zone of it.

    Raises UnusableData without studies of both kinds.
    """
    if not 0 < truth.sum() < len(truth):
        raise UnusableData(
            f"{int(truth.sum())} of {len(truth)} validation studies have a finding: both kinds are needed, add studies"
        )
    bias, weight = fit_platt(logits(highest), truth)
    probability = expit(bias + weight * logits(highest))
    return {"bias": bias, "weight": weight}, operating_points(probability, truth), indeterminate(probability, truth)


def points(images: Sequence[Image], classes: Sequence[str]) -> tuple[DetectionPoint, ...]:
    """`best-f1`, and `few-false`: the most sensitive one with at most 0.1 false boxes of the class per image.

    The scores of the images are calibrated probabilities.
    """
    found = outcomes(images, classes, OVERLAP)
    count = int((found.marks[:, 1] == IMAGE).sum())
    best: dict[str, tuple[float, float, float]] = {}
    few: dict[str, tuple[float, float, float]] = {}
    for position, label in enumerate(classes):
        mine = found.marks[:, 0] == position
        threshold, hits, false, drawn = _choices(found.scores[mine], found.marks[mine, 1])
        f1 = 2 * hits / np.maximum(hits + false + drawn, 1)
        quiet = np.flatnonzero(false <= FALSE_PER_IMAGE * count)[-1]  # the first choice reports nothing
        for at, chosen in ((int(f1.argmax()), best), (int(quiet), few)):
            chosen[label] = (float(threshold[at]), float(hits[at] / drawn), float(false[at] / count))
    return tuple(_point(name, chosen) for name, chosen in (("best-f1", best), ("few-false", few)))


def _choices(scores: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Thresholds between two scores, falling, the hits and false boxes above each, and how many boxes were drawn."""
    drawn = int(np.isin(kinds, (HIT, MISSED)).sum())
    made = np.isin(kinds, (HIT, FALSE))
    order = np.argsort(-scores[made], kind="stable")
    values, hit = scores[made][order], kinds[made][order] == HIT
    last = np.append(np.diff(values) != 0, True)[: len(values)]  # a threshold cannot part equal scores
    edges = np.concatenate([[1.0], values[last], [0.0]])
    hits = np.append(0, np.cumsum(hit)[last])
    false = np.append(0, np.cumsum(~hit)[last])
    # Between two seen values: a threshold that sits on a box flips with the last bit.
    return (edges[:-1] + edges[1:]) / 2, hits, false, drawn


def _point(name: str, chosen: Mapping[str, tuple[float, float, float]]) -> DetectionPoint:
    threshold, sensitivity, false = ({label: one[n] for label, one in chosen.items()} for n in range(3))
    return DetectionPoint(name=name, thresholds=threshold, sensitivity=sensitivity, false_per_image=false)
