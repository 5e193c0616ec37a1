"""How well a detector finds what readers have drawn in sagittal MR, study by study, at its calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from inference import disc_looks, spine_mr
from inference.calibrated import LEAST_SCORE, logits
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import EXCLUSIONS
from inference.datasets.mr_store import Study
from inference.datasets.spine_images import marked, read_series
from inference.evaluation import binary, detection, detection_report, groups, markdown_tables, validated
from inference.evaluation.binary import expected_calibration_error
from inference.evaluation.detection import FALSE, HIT, IMAGE, MISSED, Boxes, Image
from inference.evaluation.markdown_tables import number
from inference.nets.resnet import ResNet
from inference.novelty import Novelty
from inference.preprocess import mr_content
from inference.spine_mr import CORD_INJURY, SUBJECTS, Answer, Look

#: The point of the manifest at which classes are confused and images put into groups.
POINT = "best-f1"
_UNKNOWN = ""


def score(
    net: torch.nn.Module, study: Study, *, task: str, size: Sequence[int], again: ResNet | None = None
) -> list[Image]:
    """Every slice of a study that somebody has read, with and without boxes; scores are the detector's own.

    `again` looks a second time. Nothing of a study of another region.
    """
    images: list[Image] = []
    classes = SUBJECTS[task].classes
    slices = marked(study) if study.region == SUBJECTS[task].region else []
    for place in dict.fromkeys(one.series.number for one in slices):
        mine = [one for one in slices if one.series.number == place]
        series = mine[0].series
        values, spacing = np.asarray(series.values), series.spacing[1:]
        first = spine_mr.answers(net, values, spacing, size=size, classes=classes)
        found = disc_looks.look_again(again, values, spacing, first, classes)
        for one in mine:
            truth = detection.drawn(one.boxes)
            # The detectors know no levels: who names them judges them.
            truth = replace(truth, levels=np.full(len(truth.labels), _UNKNOWN))
            images.append(_image(one.patient, truth, found[one.slice]))
    return images


def looks(net: torch.nn.Module, study: Study, *, size: Sequence[int]) -> list[Look]:
    """What the gate judges of every series of a study that `score` scores."""
    return [spine_mr.look(net, np.asarray(one.values), one.spacing, size=size) for one in read_series(study)]


def within_range(
    studies: Sequence[Study], looked: Sequence[Sequence[Look]], gate: Novelty, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """The shares of series that the gate lets pass without a remark, and by the exclusion that their patients meet.

    Raises UnusableData where all of them meet one.
    """

    def shares(exclusion: str | None) -> dict[str, float]:
        pairs = zip(studies, looked, strict=True)
        some = [
            one
            for study, mine in pairs
            if (exclusion in study.exclusions if exclusion else not study.exclusions)
            for one in mine
        ]
        if not some:
            raise UnusableData(f"every one of {len(studies)} studies meets an exclusion: none to validate with")
        distances = [gate.distance(one.features) for one in some]
        found = validated.shares([one.content for one in some], distances, manifest, mr_content.QUANTITIES)
        return {"series": len(some), **found}

    met = {exclusion for study in studies for exclusion in study.exclusions}
    return {**shares(None), "excluded": {exclusion: shares(exclusion) for exclusion in EXCLUSIONS if exclusion in met}}


def _image(patient: str, truth: Boxes, answer: Answer) -> Image:
    levels = np.full(len(answer.labels), _UNKNOWN)
    found = Boxes(edges=answer.edges.astype(float), labels=answer.labels, levels=levels)
    return Image(patient=patient, truth=truth, found=found, scores=answer.scores.astype(float))


def calibrated(images: Sequence[Image], calibration: Mapping[str, Mapping[str, float]]) -> list[Image]:
    """The same with probabilities as scores."""
    return [
        replace(
            image,
            scores=Answer(edges=image.found.edges, labels=image.found.labels, scores=image.scores).probabilities(
                calibration
            ),
        )
        for image in images
    ]


def cases(studies: Sequence[Sequence[Image]], target: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of each study of calibrated images: its surest box of a target class, and whether a reader has drawn one."""
    highest = [
        max((float(p) for one in study for p in one.scores[np.isin(one.found.labels, target)]), default=LEAST_SCORE)
        for study in studies
    ]
    truth = [any(np.isin(one.truth.labels, target).any() for one in study) for study in studies]
    return np.array(highest), np.array(truth)


def _cases(studies: Sequence[Sequence[Image]], target: Sequence[str], decision: Mapping[str, Any]) -> dict[str, Any]:
    """How well studies with and without a target class are told apart; None for what needs both kinds."""
    highest, truth = cases([study for study in studies if study], target)
    fitted, both = decision["calibration"]["case"], 0 < truth.sum() < len(truth)
    answers = [np.array([one]) for one in fitted["bias"] + fitted["weight"] * logits(highest)]
    labels = [np.array([one]) for one in truth]
    return {
        "studies": len(truth),
        "positive": int(truth.sum()),
        "ranking": binary.ranking(answers, labels) if both else None,
        **binary.calibration(answers, labels),
        **binary.determinate(answers, labels, decision["calibration"]["indeterminate"]),
        "points": {one["name"]: binary.at(answers, labels, one["threshold"]) for one in decision["case_points"]}
        if both
        else None,
    }


def measure(task: str, scored: Sequence[Sequence[Image]], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of a task over the slices of its studies, for JSON; `scored` by study, as `score` gives it.

    Of the manifest `calibration` and `operating_points`. Raises UnusableData without a slice.
    """
    if not any(scored):
        region = SUBJECTS[task].region
        raise UnusableData(f"{len(scored)} studies, but no sagittal T2 slice of a {region} spine that was read")
    studies = [calibrated(study, manifest["calibration"]["classes"]) for study in scored]
    return measure_calibrated(task, studies, manifest)


def measure_calibrated(task: str, studies: Sequence[Sequence[Image]], decision: Mapping[str, Any]) -> dict[str, Any]:
    """The same of calibrated images; of `decision`, calibration and points of studies and points of boxes."""
    classes = SUBJECTS[task].classes
    images = [image for study in studies for image in study]
    points = {point["name"]: point["thresholds"] for point in decision["operating_points"]}
    found = detection.outcomes(images, classes, detection_report.OVERLAP)
    return {
        **detection_report.measure(images, classes, threshold=points[POINT]),
        "operating_points": {name: _at(found, classes, thresholds) for name, thresholds in points.items()},
        "expected_calibration_error": _calibration_error(found),
        "groups": groups.measure(images, points[POINT]) if task == CORD_INJURY else None,
        "cases": _cases(studies, SUBJECTS[task].target, decision),
    }


def metric_lines(found: Mapping[str, Any]) -> list[str]:
    """What `measure` and `within_range` found, as Markdown."""
    rows = [
        [name, label, f"{row['threshold']:.3f}", number(row["sensitivity"], 3), number(row["false_per_image"], 3)]
        for name, each in found["operating_points"].items()
        for label, row in each.items()
    ]
    error = number(found["expected_calibration_error"], 3)
    return [
        *detection_report.lines(found),
        "",
        f"At the thresholds of the manifest, on the calibrated probability (expected calibration error {error}):",
        "",
        markdown_tables.table(["point", "class", "threshold", "sensitivity", "false per image"], rows),
        *(["", *groups.lines(found["groups"])] if found["groups"] else []),
        "",
        *_case_lines(found["cases"]),
        "",
        validated.line(found["within_range"]),
        *_excluded_lines(found["within_range"]["excluded"]),
    ]


def _excluded_lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not found:
        return []
    rows = [
        [name, str(one["series"]), f"{one['content']:.0%}", f"{one['features']:.0%}"] for name, one in found.items()
    ]
    head = ["patients with", "series", "pass by content", "pass by features"]
    return [
        "",
        "Series that the papers would have left out, and the gate lets pass:",
        "",
        markdown_tables.table(head, rows),
    ]


def _case_lines(row: Mapping[str, Any]) -> list[str]:
    said = f"{row['studies']} studies, {row['positive']} with a target class. {binary.zone_line(row)}"
    if row["ranking"] is None:
        return [said]
    return [
        f"{said} ROC AUC of studies {binary.with_interval(row['ranking'], 'auc')}; ECE {row['ece']:.3f}, Brier "
        f"{row['brier']:.3f}. Intervals: 95 %, bootstrap over studies.",
        "",
        "| operating point of studies | threshold | sensitivity | specificity |",
        "|---|---|---|---|",
        *(binary.point_line(name, one) for name, one in row["points"].items()),
    ]


def _at(found: detection.Outcomes, classes: Sequence[str], thresholds: Mapping[str, float]) -> dict[str, Any]:
    images = int((found.marks[:, 1] == IMAGE).sum())
    rows = {}
    for position, label in enumerate(classes):
        mine = found.marks[:, 0] == position
        kinds, sure = found.marks[mine, 1], found.scores[mine] >= thresholds[label]
        drawn = int(np.isin(kinds, (HIT, MISSED)).sum())
        rows[label] = {
            "threshold": thresholds[label],
            "sensitivity": float((sure & (kinds == HIT)).sum() / drawn) if drawn else None,
            "false_per_image": float((sure & (kinds == FALSE)).sum() / images),
        }
    return rows


def _calibration_error(found: detection.Outcomes) -> float | None:
    made = np.isin(found.marks[:, 1], (FALSE, HIT))
    if not made.any():
        return None
    return expected_calibration_error(logits(found.scores[made]), found.marks[made, 1] == HIT)
