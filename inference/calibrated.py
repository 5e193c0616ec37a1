"""What a score means after calibration on validation data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit, logit

#: Scores nearer to 0 and 1 than this are all the same to the calibration.
LEAST_SCORE = 1e-6


def logits(scores: np.ndarray) -> np.ndarray:
    """Logarithms of the odds of scores, finite also for 0 and 1."""
    return np.asarray(logit(np.clip(scores.astype(float), LEAST_SCORE, 1 - LEAST_SCORE)))


def platt(score: float, fitted: Mapping[str, float]) -> float:
    """The probability of a score of 0 to 1, by bias and weight of a manifest (Platt 1999)."""
    return float(expit(fitted["bias"] + fitted["weight"] * logits(np.array(score))))


def indeterminate(probability: float, zone: Sequence[float]) -> list[str]:
    """One sentence if too many cases with and without the target have such a probability to tell them apart."""
    low, high = zone
    said = f"indeterminate: from probability {low:.2f} to {high:.2f}, validation cases cannot be told apart"
    return [said] if low <= probability <= high else []
