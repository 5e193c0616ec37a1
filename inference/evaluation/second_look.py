"""What the second look at discs is worth: a detector without and with it, on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from inference.calibrated import LEAST_SCORE
from inference.evaluation import detection_report, markdown_tables
from inference.evaluation.detection import Image
from inference.evaluation.markdown_tables import estimate, number
from inference.spine_mr import SUBJECTS


def measure(task: str, alone: Sequence[Sequence[Image]], both: Sequence[Sequence[Image]]) -> dict[str, Any]:
    """AP@0.5 of a detector without and with the second look, from images by study; for JSON."""
    classes = SUBJECTS[task].classes
    images = {name: list(chain.from_iterable(scored)) for name, scored in (("alone", alone), ("both", both))}
    rows = {name: detection_report.measure(some, classes, threshold=LEAST_SCORE) for name, some in images.items()}
    return {
        **{
            name: {
                "map50": row["map50"],
                "map50_ci95": row["map50_ci95"],
                "classes": {label: one["ap50"] for label, one in row["classes"].items()},
            }
            for name, row in rows.items()
        },
        "difference": detection_report.compare(images["both"], images["alone"], classes),
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as Markdown."""
    labels = list(found["alone"]["classes"])
    rows = [
        [name, estimate(row["map50"], row["map50_ci95"]), *(number(row["classes"][label], 3) for label in labels)]
        for name, row in (("detector alone", found["alone"]), ("with a second look", found["both"]))
    ]
    difference = found["difference"]
    return [
        "The detector without and with the second look at every disc; AP@0.5 of each class:",
        "",
        markdown_tables.table(["", "mAP@0.5 (95 % CI)", *labels], rows),
        "",
        f"Difference of mAP@0.5: {number(difference['map50_difference'], 3)}, p = {number(difference['p'], 4)} "
        "(permutation test over patients).",
    ]
