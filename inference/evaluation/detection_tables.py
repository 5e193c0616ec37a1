"""The tables of papers 000, 002 and 004 about detectors, from what was measured, beside what the papers print.

All papers give a mean average precision without saying at which overlap or how it is integrated; here it is COCO's at
an IoU of 0.5. Paper 002 prints the figures of paper 000's table 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.evaluation import markdown_tables
from inference.evaluation.markdown_tables import estimate, number, over_folds, plain, spread


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of table 6 of paper 000."""

    name: str
    proposals: str
    features: str
    classifier: str
    #: Of each image, proposals included; without those of the warm-up.
    seconds: Sequence[float]


#: Paper 000, table 6: seconds per image and how many times faster than R-CNN.
PAPER_SPEED = {"R-CNN": ("50", "1"), "Fast R-CNN": ("2", "25"), "Faster R-CNN": ("0.2", "250")}
#: Paper 000, table 7, and paper 002: mAP in percent, seconds per image.
PAPER_BACKBONES = {"ResNet-50": ("88.6", "0.22"), "VGG-16": ("72.3", "0.24")}
#: Paper 004: mAP in percent in table 1; average precisions of PP-YOLOv2 in figure 2.
PAPER_MODELS = {"YOLOv3": "70.64", "YOLOv5": "86.66", "PP-YOLOv2": "90.08"}
PAPER_CLASSES = {"disc": "93.84", "herniation": "91.74", "slip": "84.67"}


def speed(methods: Sequence[Method], *, machine: str) -> str:
    """Table 6 of paper 000: median seconds per image, and how many times faster than the first method.

    Raises ValueError for a method without a time.
    """
    if not all(len(method.seconds) for method in methods):
        raise ValueError("every method needs the time of at least one image")
    medians = [float(np.median(method.seconds)) for method in methods]
    rows = [
        [
            method.name, method.proposals, method.features, method.classifier, str(len(method.seconds)),
            f"{median:.4g}", f"{medians[0] / median:.3g}", *PAPER_SPEED.get(method.name, ("n/a", "n/a")),
        ]
        for method, median in zip(methods, medians, strict=True)
    ]  # fmt: skip
    head = ["method", "proposals", "features", "classifier", "images", "s/image, median", f"times {methods[0].name}",
            "s/image in the paper", "times R-CNN in the paper"]  # fmt: skip
    about = f"Table 6 of paper 000, on {machine}. Seconds include the proposals and leave out the warm-up."
    return f"{about}\n\n{markdown_tables.table(head, rows)}\n"


def backbones(measured: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, Sequence[float]]) -> str:
    """Table 7 of paper 000, and paper 002's figures: `detection_report.measure` and s/image by name of the network.

    A name that begins as in the paper ("ResNet-50, alternating") has the paper's figures beside it.
    """
    rows = []
    for name, found in measured.items():
        paper = next((one for known, one in PAPER_BACKBONES.items() if name.startswith(known)), ("n/a", "n/a"))
        rows.append([
            name, f"{found['images']} of {found['patients']}", estimate(found["map50"], found["map50_ci95"]),
            number(found["map50_95"], 3), f"{float(np.median(seconds[name])):.3g}", *paper,
        ])  # fmt: skip
    head = ["network", "images of patients", "mAP@0.5 (95 % CI)", "mAP@[.5:.95]", "s/image, median",
            "mAP in the paper, %", "s/image in the paper"]  # fmt: skip
    about = (
        "Table 7 of paper 000; paper 002 prints the same figures. Intervals: BCa bootstrap over patients. The papers "
        "name neither overlap nor integration of their mAP, and give no interval."
    )
    return f"{about}\n\n{markdown_tables.table(head, rows)}\n"


def models(folds: Mapping[str, Sequence[Mapping[str, Any]]], pooled: Mapping[str, Mapping[str, Any]]) -> str:
    """Table 1 of paper 004, with the average precisions of its figure 2.

    `detection_report.measure` of each fold, and of the detections of all folds together, by name of the model. A
    network scores on its own scale, which lowers the pooled figure. Raises ValueError for another number of folds.
    """
    counts = {len(each) for each in folds.values()}
    if len(counts) != 1 or folds.keys() != pooled.keys():
        raise ValueError("every model needs the same number of folds, and all folds together")
    (count,) = counts
    classes = list(next(iter(pooled.values()))["classes"])
    rows = []
    for name, each in folds.items():
        mean = _over(each, lambda found: found["map50"])
        apart = [_over(each, lambda found, label=label: found["classes"][label]["ap50"]) for label in classes]
        shown = [over_folds(one, count, 3) for one in (mean, *apart)]
        together = pooled[name]
        rows.append([
            name, f"{together['images']} of {together['patients']}", *shown,
            estimate(together["map50"], together["map50_ci95"]), PAPER_MODELS.get(name, "n/a"),
        ])  # fmt: skip
    head = ["model", "images of patients", "mAP@0.5", *(f"AP@0.5, {label}" for label in classes),
            "mAP@0.5, all folds together (95 % CI)", "mAP in the paper, %"]  # fmt: skip
    quoted = ", ".join(f"{label} {value}" for label, value in PAPER_CLASSES.items())
    about = (
        f"Table 1 of paper 004, {count} folds: mean ± standard deviation over the folds. Intervals: BCa bootstrap over "
        f"patients. Figure 2 of the paper has, for PP-YOLOv2 and in percent, {quoted}. The paper names neither overlap "
        "nor integration of its mAP, and gives no interval."
    )
    return f"{about}\n\n{markdown_tables.table(head, rows)}\n"


def _over(each: Sequence[Mapping[str, Any]], value: Any) -> Mapping[str, Any]:
    values = [value(found) for found in each]
    found: Mapping[str, Any] = plain(spread([np.nan if one is None else one for one in values]))
    return found
