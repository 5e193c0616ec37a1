"""Confidence intervals by drawing patients, and tests by exchanging them; not slices, which look alike in a patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy.stats import norm

SAMPLES = 2000
TAILS = (0.025, 0.975)  # of a 95 % interval

Statistic = Callable[[np.ndarray, np.ndarray], float]


def interval(
    statistic: Statistic,
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    seed: int = 0,
    method: Literal["percentile", "bca"] = "percentile",
    samples: int = SAMPLES,
) -> tuple[float, float]:
    """The 95 % interval of `statistic(scores, labels)`; one array per patient.

    The statistic gets the rows of the drawn patients in any order; scores that are numbers (n,) from high to low.

    "bca" is bias-corrected and accelerated (Efron 1987, doi 10.1080/01621459.1987.10478410): closer to 95 %
    coverage than percentiles where the statistic is skewed, as areas near 1 are. Samples on which the statistic
    is not defined (only one class) are left out; without any other, both ends are NaN.
    """
    pool = _Pool(scores, labels)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(scores), size=len(scores)) for _ in range(samples))
    values = _defined([statistic(*pool.of(chosen)) for chosen in drawn])
    if not len(values):
        return float("nan"), float("nan")
    tails = TAILS if method == "percentile" else _corrected_tails(statistic, pool, values)
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def exchange(
    statistic: Statistic,
    a: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    b: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> tuple[float, float]:
    """How far `statistic` of a is above that of b, and the two-sided p of a permutation test.

    `a` and `b` are scores and labels, one array per patient, of the same patients in the same order. Under the null
    hypothesis the two of a patient may change places. Both are NaN where a statistic is not defined.
    """
    if len(a[0]) != len(b[0]):
        raise ValueError(f"pairs are needed, not {len(a[0])} patients against {len(b[0])}")
    pool = _Pool([*a[0], *b[0]], [*a[1], *b[1]])
    first = np.arange(len(a[0]))

    def difference(swapped: np.ndarray) -> float:
        theirs = np.where(swapped, first, first + len(first))
        ours = np.where(swapped, first + len(first), first)
        return statistic(*pool.of(ours)) - statistic(*pool.of(theirs))

    observed = difference(np.zeros(len(first), bool))
    if not np.isfinite(observed):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = _defined([difference(rng.random(len(first)) < 0.5) for _ in range(samples)])
    # What was observed is one of the arrangements. Sums in another order differ in their last digit.
    extreme = int((np.abs(drawn) >= abs(observed) - 1e-12).sum())
    return float(observed), (1 + extreme) / (1 + len(drawn))


class _Pool:
    """All patients in one array, scores from high to low: to sort 2000 samples anew would take most of the time."""

    def __init__(self, scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> None:
        counts = [len(one) for one in scores]
        if counts != [len(one) for one in labels]:
            raise ValueError("every patient needs as many labels as scores")
        everything = np.concatenate(scores)
        are_scores = everything.dtype.kind == "f" and everything.ndim == 1  # a statistic may be of something else
        order = np.argsort(-everything if are_scores else np.zeros(len(everything)), kind="stable")
        self.scores, self.labels = everything[order], np.concatenate(labels)[order]
        self.patients, self.owners = len(counts), np.repeat(np.arange(len(counts)), counts)[order]

    def of(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of the patients at these positions, repeated where a position is."""
        times = np.bincount(chosen, minlength=self.patients)[self.owners]
        where = np.repeat(np.arange(len(times)), times)
        return self.scores[where], self.labels[where]


def _corrected_tails(statistic: Statistic, pool: _Pool, values: np.ndarray) -> np.ndarray:
    """Which quantiles of the samples bound the BCa interval (Efron 1987, equations 1.11 and 6.6)."""
    observed = statistic(pool.scores, pool.labels)
    if not np.isfinite(observed):
        return np.array(TAILS)
    below = (np.mean(values < observed) + np.mean(values <= observed)) / 2  # ties count half
    # Half a sample from 0 and 1 keeps the bias below 3.5 in size, and `shifted` below 6. No acceleration is larger
    # than 1/6, so that the denominator stays positive.
    half = 0.5 / min(len(values), SAMPLES)
    bias = norm.ppf(np.clip(below, half, 1 - half))
    shifted = bias + norm.ppf(TAILS)
    return np.asarray(norm.cdf(bias + shifted / (1 - _acceleration(statistic, pool) * shifted)))


def _acceleration(statistic: Statistic, pool: _Pool) -> float:
    """How the spread of the statistic changes with its value, by leaving out one patient at a time."""
    everyone = np.arange(pool.patients)
    if len(everyone) < 2:
        return 0.0
    without = _defined([statistic(*pool.of(everyone[everyone != one])) for one in everyone])
    if not len(without) or np.ptp(without) == 0:
        return 0.0
    influence = without.mean() - without
    return float(np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5))


def _defined(values: Sequence[float]) -> np.ndarray:
    return np.array([value for value in values if np.isfinite(value)])
