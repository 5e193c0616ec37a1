"""Paper 002 (Ma 2020, 10.1002/acm2.13001): an image belongs to the group of its worst finding.

The paper divides its images into injured, disc and normal. The rule from boxes: injured with any signal change of the
cord, else disc with any herniation, else normal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inference.evaluation import bootstrap, markdown_tables
from inference.evaluation.detection import Image, reported
from inference.evaluation.detection_report import confusion_table
from inference.evaluation.markdown_tables import estimate
from inference.spine_findings import GROUPS, group


def measure(images: Sequence[Image], thresholds: Mapping[str, float], *, seed: int = 0) -> dict[str, Any]:
    """The 3 x 3 confusion matrix and what follows from it, as plain values for JSON; undefined ones are None.

    `thresholds` by class: a detection of another class, or with a lower score, does not count. Intervals: 95 %, BCa,
    over patients. Raises ValueError without images.
    """
    if not images:
        raise ValueError("no image to put into a group")
    names = list(GROUPS)
    truth: dict[str, list[int]] = {}
    found: dict[str, list[int]] = {}
    for image in images:
        sure = image.found.labels[reported(image, thresholds)].tolist()
        truth.setdefault(image.patient, []).append(names.index(group(image.truth.labels.tolist())))
        found.setdefault(image.patient, []).append(names.index(group(sure)))
    answers, labels = ([np.array(one) for one in values.values()] for values in (found, truth))
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (np.concatenate(labels), np.concatenate(answers)), 1)

    def estimated(statistic: bootstrap.Statistic, key: str) -> dict[str, Any]:
        interval = bootstrap.interval(statistic, answers, labels, seed=seed, method="bca")
        return {key: statistic(np.concatenate(answers), np.concatenate(labels)), f"{key}_ci95": interval}

    rows = {
        name: estimated(_share(position, of_truth=True), "sensitivity")
        | estimated(_share(position, of_truth=False), "precision")
        for position, name in enumerate(names)
    }
    return markdown_tables.plain({  # type: ignore[no-any-return]
        "images": len(images),
        "patients": len(truth),
        "thresholds": dict(thresholds),
        **estimated(lambda answer, label: float(np.mean(answer == label)), "accuracy"),
        "confusion": {"classes": names, "counts": counts.tolist()},
        "groups": rows,
    })  # fmt: skip


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as Markdown."""
    rows = [
        [name, *(estimate(row[key], row[f"{key}_ci95"]) for key in ("sensitivity", "precision"))]
        for name, row in found["groups"].items()
    ]
    return [
        f"Groups of paper 002 by the worst finding of each of {found['images']} images of {found['patients']} "
        f"patients: accuracy {estimate(found['accuracy'], found['accuracy_ci95'])}. True groups in rows, found ones "
        "in columns. Intervals: 95 %, BCa bootstrap over patients. The paper names its groups, but prints neither a "
        "rule nor this matrix.",
        "",
        confusion_table(found["confusion"]),
        "",
        markdown_tables.table(["group", "sensitivity (95 % CI)", "precision (95 % CI)"], rows),
    ]


def _share(position: int, *, of_truth: bool) -> bootstrap.Statistic:
    """How often a group is right, among the images that are in it or among those that were put into it."""

    def share(answers: np.ndarray, labels: np.ndarray) -> float:
        members = (labels if of_truth else answers) == position
        return float(np.mean((answers == labels)[members])) if members.any() else float("nan")

    return share
