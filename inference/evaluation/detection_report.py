"""All numbers of a detector over some images, with intervals over patients, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inference.evaluation import bootstrap, detection, markdown_tables
from inference.evaluation.detection import (
    COCO_OVERLAPS,
    FALSE_PER_IMAGE,
    Agreement,
    Image,
    Outcomes,
    Threshold,
)
from inference.evaluation.markdown_tables import estimate, number

BACKGROUND = "background"
OVERLAP = 0.5  # of what is printed for one overlap; papers 000, 002 and 004 name none

Statistic = Callable[[np.ndarray, np.ndarray], float]


def measure(images: Sequence[Image], classes: Sequence[str], *, threshold: Threshold, seed: int = 0) -> dict[str, Any]:
    """Everything as plain values for JSON; what is not defined is None.

    `threshold` is the score from which a detection is reported: the confusion of classes and the counts are at it,
    all else is over every threshold. Intervals: 95 %, BCa, over patients. Raises ValueError without images.
    """
    if not images:
        raise ValueError("no image to measure a detector on")
    each = {overlap: detection.outcomes(images, classes, overlap) for overlap in COCO_OVERLAPS}
    patients = _by_patient(images, classes, detection.same_label)
    mean_ap = detection.mean_average_precision
    rows = {label: _of_class(position, each, patients, seed) for position, label in enumerate(classes)}
    return markdown_tables.plain({  # type: ignore[no-any-return]
        "images": len(images),
        "patients": len(patients),
        "threshold": dict(threshold) if isinstance(threshold, Mapping) else threshold,
        "map50": mean_ap(each[OVERLAP].scores, each[OVERLAP].marks),
        "map50_ci95": _interval(mean_ap, patients, seed),
        "map50_all_points": _mean(rows, "ap50_all_points"),
        "map50_95": _mean(rows, "ap50_95"),
        "ar50_95": _mean(rows, "ar50_95"),
        **_with_level(images, classes, seed),
        "classes": rows,
        "confusion": {
            "classes": [*classes, BACKGROUND],
            "counts": detection.confusion(images, classes, threshold=threshold, overlap=OVERLAP).tolist(),
        },
        "boxes_per_image": _counts(images, classes, threshold),
    })  # fmt: skip


def compare(a: Sequence[Image], b: Sequence[Image], classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """How far mAP@0.5 of detector a is above that of b on the same images, and p of a permutation test over patients.

    Plain values for JSON. Raises ValueError where the images or what is drawn in them differ.
    """
    same = len(a) == len(b) and all(
        one.patient == other.patient
        and np.array_equal(one.truth.edges, other.truth.edges)
        and np.array_equal(one.truth.labels, other.truth.labels)
        for one, other in zip(a, b, strict=True)
    )
    if not same:
        raise ValueError("two detectors are compared on the same images, in the same order")
    both = (_by_patient(images, classes, detection.same_label) for images in (a, b))
    first, second = (([one.scores for one in each], [one.marks for one in each]) for each in both)
    difference, p = bootstrap.exchange(detection.mean_average_precision, first, second, seed=seed)
    return markdown_tables.plain({"map50_difference": difference, "p": p})  # type: ignore[no-any-return]


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as Markdown."""
    head = ["class", "drawn", "AP@0.5 (95 % CI)", "AP@0.5, all points", "AP@[.5:.95]", "AR@[.5:.95]",
            "sensitivity at 1 false per image (95 % CI)"]  # fmt: skip
    rows = [
        [
            label, str(row["drawn"]), estimate(row["ap50"], row["ap50_ci95"]),
            *(number(row[key], 3) for key in ("ap50_all_points", "ap50_95", "ar50_95")),
            estimate(row["froc"]["1"], row["froc_1_ci95"]),
        ]
        for label, row in found["classes"].items()
    ]  # fmt: skip
    mean = ["mean", str(sum(row["drawn"] for row in found["classes"].values())),
            estimate(found["map50"], found["map50_ci95"]),
            *(number(found[key], 3) for key in ("map50_all_points", "map50_95", "ar50_95")), ""]  # fmt: skip
    rates = [f"{rate:g}" for rate in FALSE_PER_IMAGE]
    froc = [[label, *(number(row["froc"][rate], 3) for rate in rates)] for label, row in found["classes"].items()]
    text = [
        f"{found['images']} images of {found['patients']} patients. Average precision: COCO's 101 points; the mean is "
        "over the classes that were drawn. Intervals: 95 %, BCa bootstrap over patients.",
        "",
        markdown_tables.table(head, [*rows, mean]),
        "",
        "Sensitivity at so many false detections of the class per image:",
        "",
        markdown_tables.table(["class", *rates], froc),
        "",
        f"Drawn (rows) against found (columns) with a score of at least {_threshold(found['threshold'])}:",
        "",
        confusion_table(found["confusion"]),
    ]
    if found["map50_with_level"] is not None:
        with_level = estimate(found["map50_with_level"], found["map50_with_level_ci95"])
        text += ["", f"mAP@0.5 where a detection at the wrong level is false: {with_level}."]
    return text


def confusion_table(found: Mapping[str, Any]) -> str:
    """Counts of drawn classes in rows and found ones in columns."""
    names = found["classes"]
    rows = [[name, *map(str, counts)] for name, counts in zip(names, found["counts"], strict=True)]
    return markdown_tables.table(["", *names], rows)


def _of_class(position: int, each: Mapping[float, Outcomes], patients: Sequence[Outcomes], seed: int) -> dict[str, Any]:
    per_overlap = {overlap: found.of_class(position) for overlap, found in each.items()}
    scores, marks = per_overlap[OVERLAP].scores, per_overlap[OVERLAP].marks
    mine = [one.of_class(position) for one in patients]
    average = [detection.average_precision(one.scores, one.marks[:, 1]) for one in per_overlap.values()]
    recall = [detection.average_recall(one.scores, one.marks[:, 1]) for one in per_overlap.values()]

    def ap50(scores: np.ndarray, marks: np.ndarray) -> float:
        return detection.average_precision(scores, marks[:, 1])

    def at_one(scores: np.ndarray, marks: np.ndarray) -> float:
        return detection.sensitivity_at(scores, marks, 1)

    return {
        "drawn": int(np.isin(marks[:, 1], (detection.HIT, detection.MISSED)).sum()),
        "ap50": average[0],
        "ap50_ci95": _interval(ap50, mine, seed),
        "ap50_all_points": detection.average_precision(scores, marks[:, 1], "all"),
        "ap50_95": float(np.mean(average)),
        "ar50_95": float(np.mean(recall)),
        "froc": {f"{rate:g}": detection.sensitivity_at(scores, marks, rate) for rate in FALSE_PER_IMAGE},
        "froc_1_ci95": _interval(at_one, mine, seed),
    }


def _with_level(images: Sequence[Image], classes: Sequence[str], seed: int) -> dict[str, Any]:
    """Not defined where no drawn box has a level."""
    if not any((image.truth.levels != "").any() for image in images):
        return {"map50_with_level": None, "map50_with_level_ci95": [None, None]}
    mean_ap = detection.mean_average_precision
    found = detection.outcomes(images, classes, OVERLAP, detection.same_label_and_level)
    patients = _by_patient(images, classes, detection.same_label_and_level)
    return {
        "map50_with_level": mean_ap(found.scores, found.marks),
        "map50_with_level_ci95": _interval(mean_ap, patients, seed),
    }


def _by_patient(images: Sequence[Image], classes: Sequence[str], agreement: Agreement) -> list[Outcomes]:
    owned: dict[str, list[Image]] = {}
    for image in images:
        owned.setdefault(image.patient, []).append(image)
    return [detection.outcomes(one, classes, OVERLAP, agreement) for one in owned.values()]


def _interval(statistic: Statistic, patients: Sequence[Outcomes], seed: int) -> list[float]:
    scores, marks = [one.scores for one in patients], [one.marks for one in patients]
    return list(bootstrap.interval(statistic, scores, marks, seed=seed, method="bca"))


def _mean(rows: Mapping[str, Mapping[str, float]], key: str) -> float:
    return detection.mean_of_defined(np.array([row[key] for row in rows.values()]))


def _threshold(threshold: Threshold) -> str:
    if isinstance(threshold, Mapping):
        return ", ".join(f"{value:.3g} for {label}" for label, value in threshold.items())
    return f"{threshold:g}"


def _counts(images: Sequence[Image], classes: Sequence[str], threshold: Threshold) -> dict[str, dict[str, float]]:
    """Boxes of each class in an image on average: drawn, found, and how far the two counts differ."""
    drawn = np.array([[(image.truth.labels == label).sum() for label in classes] for image in images])
    said = [image.found.labels[detection.reported(image, threshold)] for image in images]
    found = np.array([[(labels == label).sum() for label in classes] for labels in said])
    means = zip(drawn.mean(0), found.mean(0), np.abs(drawn - found).mean(0), strict=True)
    return {
        label: {"drawn": float(a), "found": float(b), "absolute_difference": float(c)}
        for label, (a, b, c) in zip(classes, means, strict=True)
    }
