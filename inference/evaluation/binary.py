"""A score against a yes or no: ranking, calibration, and what a threshold gives, with intervals over patients.

Scores and labels are lists with one array per patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from inference.evaluation.bootstrap import interval
from inference.evaluation.markdown_tables import estimate
from inference.training.fracture_slices import area_under_curve

CALIBRATION_BINS = 15


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between confidence and frequency over bins with the same number of cases."""
    probability = expit(logits)
    order = np.argsort(probability)
    parts = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    gaps = [len(part) * abs(probability[part].mean() - labels[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def ranking(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, Any]:
    """Area under the ROC curve, and average precision."""
    from torchmetrics.functional.classification import binary_average_precision

    everything, truth = np.concatenate(scores), np.concatenate(labels)
    # In double precision: in single, the sigmoid of different high logits is the same 1.
    probability = torch.from_numpy(everything).double().sigmoid()
    return {
        "auc": area_under_curve(everything, truth),
        "auc_ci95": interval(area_under_curve, scores, labels),
        "average_precision": float(binary_average_precision(probability, torch.from_numpy(truth).int())),
    }


def at(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], threshold: float) -> dict[str, Any]:
    """Sensitivity and specificity of calibrated logits at a probability."""
    cut = float(np.log(threshold / (1 - threshold)))
    everything = np.concatenate(scores), np.concatenate(labels)
    return {
        "threshold": threshold,
        "sensitivity": _sensitivity(cut)(*everything),
        "sensitivity_ci95": interval(_sensitivity(cut), scores, labels),
        "specificity": _specificity(cut)(*everything),
        "specificity_ci95": interval(_specificity(cut), scores, labels),
    }


def _sensitivity(cut: float) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda scores, labels: float(np.mean(scores[labels] >= cut)) if labels.any() else float("nan")


def _specificity(cut: float) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda scores, labels: float(np.mean(scores[~labels] < cut)) if not labels.all() else float("nan")


def calibration(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, float]:
    """Expected calibration error and Brier score of calibrated logits."""
    logits, truth = np.concatenate(scores), np.concatenate(labels)
    brier = float(np.mean((expit(logits) - truth) ** 2))
    return {"ece": expected_calibration_error(logits, truth), "brier": brier}


def determinate(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], zone: Sequence[float]) -> dict[str, Any]:
    """How many calibrated logits lie in the indeterminate zone of probabilities, and how many others are right."""
    probability, truth = expit(np.concatenate(scores)), np.concatenate(labels)
    unsure = (probability >= zone[0]) & (probability <= zone[1])
    right = (probability > zone[1]) == truth
    return {
        "zone": list(zone),
        "indeterminate": float(unsure.mean()),
        "right_among_others": float(right[~unsure].mean()) if not unsure.all() else None,
    }


def zone_line(row: Mapping[str, Any]) -> str:
    """What `determinate` found, as a sentence."""
    low, high = row["zone"]
    others = "" if row["right_among_others"] is None else f"; of the others {row['right_among_others']:.0%} are right"
    return f"Indeterminate zone {low:.3f} to {high:.3f}: {row['indeterminate']:.0%} of the cases{others}."


def with_interval(row: Mapping[str, Any], key: str) -> str:
    """A number of a row with its interval, for a table."""
    return estimate(row[key], row[f"{key}_ci95"])


def point_line(name: str, row: Mapping[str, Any]) -> str:
    """What `at` found, as a line of a Markdown table."""
    both = (with_interval(row, key) for key in ("sensitivity", "specificity"))
    return f"| {name} | {row['threshold']:.3f} | {' | '.join(both)} |"
