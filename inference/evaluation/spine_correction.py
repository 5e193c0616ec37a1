"""The correction of cord lesions by T1 and fat-suppressed T2, over the slices of labelled studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from inference import spine_correction, spine_signals
from inference.datasets.labelled import UnusableData
from inference.datasets.mr_store import Study
from inference.datasets.spine_images import with_companions
from inference.evaluation import binary, detection, detection_report, markdown_tables, spine_detection
from inference.evaluation.detection import Boxes, Image
from inference.evaluation.markdown_tables import estimate, number
from inference.linked_boxes import SliceBox
from inference.spine_correction import REAL
from inference.spine_mr import LESIONS, SUBJECTS
from inference.spine_signals import Grid

#: Of a box with a reader's: it is about the same lesion.
OVERLAP = 0.5


def fit(studies: Sequence[Study], scored: Sequence[Sequence[Image]]) -> dict[str, Any]:
    """Fit both judgements to the boxes of studies from which the detector did not learn; images are calibrated.

    Raises UnusableData without a companion, or without a real and a false box and one of each class.
    """
    measured: list[dict[str, np.ndarray]] = []
    real: list[str] = []
    kind: list[str] = []
    for study, images in zip(studies, scored, strict=True):
        for grids, boxes, mine in _series(study, images):
            lesions, _ = spine_correction.judged_and_others(boxes)
            if lesions and len(grids) > 1:
                measured.append(spine_correction.features(grids, lesions))
                truths = [_truth(box, mine[box.slice].truth) for box in lesions]
                real += [REAL[truth is not None] for truth in truths]
                kind += [truth or "" for truth in truths]
    if not measured:
        raise UnusableData(f"no box of a lesion in {len(studies)} studies with T1 or STIR: add studies")
    together = {key: np.concatenate([one[key] for one in measured]) for key in measured[0]}
    sure = np.array(kind) != ""
    try:
        return {
            "real": spine_signals.fit(together, np.array(real), REAL),
            "kind": spine_signals.fit(
                {key: values[sure] for key, values in together.items()}, np.array(kind)[sure], LESIONS
            ),
            "fitted_on": f"{len(real)} boxes of {len(studies)} studies, {int(sure.sum())} of them on a lesion",
        }
    except ValueError as error:
        raise UnusableData(f"signals of lesions in {len(studies)} studies: {error}; add studies") from error


def correct(fitted: Mapping[str, Any], study: Study, images: Sequence[Image], present: str) -> list[Image]:
    """The images of a study, calibrated, with the lesions' boxes judged again by the companions of a set."""
    changed: list[Image] = []
    for grids, boxes, mine in _series(study, images):
        some = {name: grid for name, grid in grids.items() if name == "T2" or name in present.split("+")}
        judged = spine_correction.corrected(fitted, some, boxes)
        changed += [_answered(image, [box for box in judged if box.slice == at]) for at, image in enumerate(mine)]
    return changed


def sets(studies: Sequence[Study]) -> list[str]:
    """The sets of companions that some study has, whole or in part."""
    there = {name for study in studies for _, grids in with_companions(study) for name in grids if name != "T2"}
    return [spine_signals.set_of(some) for count in (1, 2) for some in combinations(sorted(there), count)]


def measure(
    task: str,
    studies: Sequence[Study],
    scored: Sequence[Sequence[Image]],
    manifest: Mapping[str, Any],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """As `spine_detection.measure`; "signals" has the same with the correction by all companions; for JSON.

    And how far its mAP@0.5 is above. None for a model without a correction.
    """
    found = spine_detection.measure(task, scored, manifest)
    if "signals" not in manifest:
        return {**found, "signals": None}
    fullest = max(manifest["signals"]["sets"], key=len)
    off = [spine_detection.calibrated(images, manifest["calibration"]["classes"]) for images in scored]
    on = [correct(manifest["signals"], study, images, fullest) for study, images in zip(studies, off, strict=True)]
    before, after = ([image for images in one for image in images] for one in (off, on))
    difference = detection_report.compare(after, before, SUBJECTS[task].classes)
    with_signals = spine_detection.measure_calibrated(task, on, manifest["signals"]["sets"][fullest])
    return {**found, "signals": {**with_signals, "difference": difference}}


def metric_lines(found: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as Markdown."""
    lines = spine_detection.metric_lines(found)
    if found["signals"] is None:
        return lines
    head = ["", "mAP@0.5 (95 % CI)", *LESIONS, "studies, ROC AUC (95 % CI)", "groups, accuracy (95 % CI)"]
    rows = [
        [
            name,
            estimate(one["map50"], one["map50_ci95"]),
            *(number(one["classes"][label]["ap50"], 3) for label in LESIONS),
            "n/a" if one["cases"]["ranking"] is None else binary.with_interval(one["cases"]["ranking"], "auc"),
            estimate(one["groups"]["accuracy"], one["groups"]["accuracy_ci95"]),
        ]
        for name, one in (("T2 alone", found), ("corrected by T1 and STIR", found["signals"]))
    ]
    difference = found["signals"]["difference"]
    return [
        *lines,
        "",
        "Boxes of lesions, judged again by T1 and fat-suppressed T2 at the same place; AP@0.5 of each class of lesion:",
        "",
        markdown_tables.table(head, rows),
        "",
        f"Difference of mAP@0.5: {number(difference['map50_difference'], 3)}, p = {number(difference['p'], 4)} "
        "(permutation test over patients).",
    ]


def _series(study: Study, images: Sequence[Image]) -> Iterator[tuple[dict[str, Grid], list[SliceBox], Sequence[Image]]]:
    """Of every read T2 series: it and its companions, its boxes, and its images."""
    start = 0
    for series, grids in with_companions(study):
        mine = images[start : start + series.shape[0]]
        start += series.shape[0]
        boxes = [box for at, image in enumerate(mine) for box in _boxes(at, image)]
        yield grids, boxes, mine


def _boxes(at: int, image: Image) -> Iterator[SliceBox]:
    for edges, label, p in zip(image.found.edges.tolist(), image.found.labels, image.scores, strict=True):
        yield SliceBox(slice=at, edges=tuple(edges), label=str(label), probability=float(p), raw=float(p))


def _answered(image: Image, boxes: Sequence[SliceBox]) -> Image:
    labels = np.array([box.label for box in boxes], str)
    found = Boxes(
        edges=np.array([box.edges for box in boxes], float).reshape(-1, 4),
        labels=labels,
        levels=np.full(len(labels), ""),
    )
    return replace(image, found=found, scores=np.array([box.probability for box in boxes], float))


def _truth(box: SliceBox, truth: Boxes) -> str | None:
    """The class of the lesion that a reader has drawn there."""
    lesions = np.isin(truth.labels, LESIONS)
    shared = detection.overlaps(np.array([box.edges]), truth.edges[lesions])[0]
    if not len(shared) or shared.max() < OVERLAP:
        return None
    return str(truth.labels[lesions][int(shared.argmax())])
