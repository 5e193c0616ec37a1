"""Confidence intervals by drawing patients, not slices, with replacement: slices of a patient look alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

SAMPLES = 1000


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic(scores, labels)`; one array per patient.

    Samples on which the statistic is not defined (only one class) are left out.
    """
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(SAMPLES):
        chosen = rng.integers(len(scores), size=len(scores))
        value = statistic(np.concatenate([scores[i] for i in chosen]), np.concatenate([labels[i] for i in chosen]))
        if np.isfinite(value):
            values.append(value)
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
