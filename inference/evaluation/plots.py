"""Plots of a result for people: ROC, precision-recall, FROC, reliability and training curves, confusions, as PNG.

No pyplot: it keeps every figure of the process alive and looks for a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_precision_recall_curve,
    binary_roc,
)

from inference.evaluation import detection
from inference.evaluation.binary import CALIBRATION_BINS
from inference.evaluation.detection import Outcomes
from inference.training.fracture_slices import area_under_curve

DOTS_PER_INCH = 150
SIZE = (6.4, 6.0)  # inches
#: Petroff 2021 (arXiv 2107.02270): distinct with every common colour vision deficiency. Two rows that share a colour
#: after ten still differ in their dashes.
COLOURS = mpl.color_sequences["petroff10"]
DASHES = ("-", "--", ":", "-.")

#: Probabilities (n,) and labels (n,) 0 or 1.
Answers = tuple[np.ndarray, np.ndarray]


def roc(
    rows: Mapping[str, Answers], *, title: str, intervals: Mapping[str, tuple[float, float]] | None = None
) -> Figure:
    """ROC curves by row name; `intervals` are the 95 % intervals of their areas, printed in the legend."""
    figure, axes = _square(
        title, "false positive rate (fraction of negatives)", "true positive rate (fraction of positives)"
    )
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="chance, AUC 0.500")
    for number, (name, answers) in enumerate(rows.items()):
        false, true, _ = binary_roc(*_tensors(name, answers))
        label = f"{name}, AUC {area_under_curve(*answers):.3f}"
        if intervals and name in intervals:
            label += f" ({intervals[name][0]:.3f} to {intervals[name][1]:.3f})"
        axes.plot(false.numpy(), true.numpy(), label=label, **_style(number))
    axes.legend(loc="lower right", fontsize="small")
    return figure


def precision_recall(rows: Mapping[str, Answers], *, title: str) -> Figure:
    """Precision over recall by row name; drawn in steps, since no threshold lies between two of its points."""
    figure, axes = _square(title, "recall (fraction of positives)", "precision (fraction of positive answers)")
    for number, (name, answers) in enumerate(rows.items()):
        tensors = _tensors(name, answers)
        precision, recall, _ = binary_precision_recall_curve(*tensors)
        share = float(tensors[1].double().mean())
        label = f"{name}, AP {float(binary_average_precision(*tensors)):.3f} (chance {share:.3f})"
        axes.plot(recall.numpy(), precision.numpy(), label=label, drawstyle="steps-post", **_style(number))
    # Not "best", which compares every place with every point: seconds, and a warning, for all slices of a test set.
    axes.legend(loc="lower left", fontsize="small")
    return figure


def detections(rows: Mapping[str, Outcomes], *, title: str) -> Figure:
    """Precision over recall of detections by class or detector; rows of one class each, and at one overlap."""
    figure, axes = _square(title, "recall (fraction of drawn boxes)", "precision (fraction of detections)")
    for number, (name, found) in enumerate(rows.items()):
        precision, recall = detection.precision_recall(found.scores, found.marks[:, 1])
        label = f"{name}, AP {detection.average_precision(found.scores, found.marks[:, 1]):.3f}"
        axes.plot(recall, precision, label=label, drawstyle="steps-post", **_style(number))
    axes.legend(loc="lower left", fontsize="small")
    return figure


def froc(rows: Mapping[str, Outcomes], *, title: str) -> Figure:
    """Sensitivity over false detections per image, by class or detector, where FROC is read: from 1/8 to 8."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    low, high = detection.FALSE_PER_IMAGE[0], detection.FALSE_PER_IMAGE[-1]
    axes.set(title=title, xlabel="false detections per image", ylabel="sensitivity (fraction of drawn boxes)")
    axes.set_xscale("log", base=2)
    axes.set(xlim=(low, high), ylim=(-0.01, 1.01))
    axes.set_xticks(detection.FALSE_PER_IMAGE, [f"{rate:g}" for rate in detection.FALSE_PER_IMAGE])
    axes.grid(alpha=0.3)
    for number, (name, found) in enumerate(rows.items()):
        false, sensitivity = detection.froc(found.scores, found.marks)
        # The highest threshold is at no false detection, which has no place on this axis; the last goes on.
        shown = np.append(np.maximum(false, low / 2), 2 * high), np.append(sensitivity, sensitivity[-1])
        axes.plot(*shown, label=name, drawstyle="steps-post", **_style(number))
    axes.legend(loc="lower right", fontsize="small")
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str], *, title: str) -> Figure:
    """(k, k) counts, drawn classes in rows, each cell shaded by its share of the row."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=title, xlabel="found", ylabel="drawn")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, str(count), ha="center", va="center", color="w" if share[row, column] > 0.5 else "k")
    return figure


def reliability(rows: Mapping[str, Answers], *, title: str, bins: int = CALIBRATION_BINS) -> Figure:
    """How often what was said to be so likely was so, in bins with the same number of items."""
    figure, axes = _square(title, "mean predicted probability", "observed fraction of positives")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    for number, (name, (probabilities, labels)) in enumerate(rows.items()):
        if not len(probabilities):
            raise ValueError(f"{name}: nothing to draw")
        parts = np.array_split(np.argsort(probabilities, kind="stable"), min(bins, len(probabilities)))
        said, seen = ([float(values[part].mean()) for part in parts] for values in (probabilities, labels))
        axes.plot(
            said,
            seen,
            marker="o",
            markersize=4,
            label=f"{name}, about {len(parts[0])} items per point",
            **_style(number),
        )
    axes.legend(loc="upper left", fontsize="small")
    return figure


def training(losses: Mapping[str, Sequence[float]], scores: Mapping[str, Sequence[float]], *, title: str) -> Figure:
    """Losses and validation scores, one value per epoch, over the epochs counted from 1."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for axes, curves, label in ((left, losses, "loss (mean per epoch)"), (right, scores, "validation score")):
        for number, (name, values) in enumerate(curves.items()):
            axes.plot(range(1, len(values) + 1), list(values), marker=".", label=name, **_style(number))
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if curves:
            axes.legend(fontsize="small")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without the name and version of matplotlib, so that the same figure gives the same bytes."""
    figure.savefig(path, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return path


def _square(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    return figure, axes


def _style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)], "linewidth": 1.8}


def _tensors(name: str, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
    """Raises ValueError for what has no curve; out of [0, 1] torchmetrics would take a sigmoid without a word."""
    probabilities, labels = np.asarray(answers[0], float), np.asarray(answers[1]).astype(int)
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError(f"{name}: scores have to be probabilities")
    if set(labels.tolist()) != {0, 1}:
        raise ValueError(f"{name}: a curve needs positives and negatives")
    return torch.from_numpy(probabilities), torch.from_numpy(labels)
