"""Measures of a classifier at one threshold, tests between classifiers, and the loss of the RSNA 2022 challenge.

What is not defined is NaN, never 0: a precision without any positive answer says nothing about the classifier.
`delong`, `mcnemar` and `wilson` take their items as independent: give them one score per patient. For slices, of
which a patient has hundreds, there is the bootstrap over patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, rankdata

#: RSNA 2022, for [patient_overall, C1, ..., C7].
POSITIVE_WEIGHTS = np.array([14.0, *[2.0] * 7])
NEGATIVE_WEIGHTS = np.array([7.0, *[1.0] * 7])
SMALLEST_PROBABILITY = 1e-15  # of the challenge: a wrong answer of 0 or 1 costs 34.5 instead of infinity


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts at one threshold and what follows from them, as fractions of 1."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def tpr(self) -> float:
        """Sensitivity; NaN without positives."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def tnr(self) -> float:
        """Specificity; NaN without negatives."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """Precision; NaN without positive answers."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float:
        """NaN without negative answers."""
        return _ratio(self.tn, self.tn + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN): 0 when all positives are missed, NaN without positives and positive answers."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def mcc(self) -> float:
        """Matthews correlation; NaN when labels or answers are all the same."""
        marginals = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return _ratio(self.tp * self.tn - self.fp * self.fn, math.sqrt(marginals))

    @property
    def balanced_accuracy(self) -> float:
        """(TPR + TNR) / 2, which paper 003 (arXiv 2010.13336) prints as "AUC"."""
        return (self.tpr + self.tnr) / 2


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two areas under the ROC curve over the same items; z and p are NaN where the variance is 0."""

    auc_a: float
    auc_b: float
    #: auc_a - auc_b.
    difference: float
    standard_error: float
    z: float
    #: Two-sided.
    p: float


def confusion(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Confusion:
    """Count (n,) scores against (n,) labels; a score at the threshold is a positive answer."""
    scores, truth = _checked(scores, labels)
    answers = scores >= threshold
    return Confusion(
        tp=int(np.sum(answers & truth)),
        fp=int(np.sum(answers & ~truth)),
        tn=int(np.sum(~answers & ~truth)),
        fn=int(np.sum(~answers & truth)),
    )


def auc_variance(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve and its variance (DeLong 1988); NaN with too few items of a class."""
    scores, truth = _checked(scores, labels)
    positive, negative = _placements(scores, truth)
    return _area(positive, len(negative)), _variance(positive, negative)


def delong(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> Comparison:
    """Test whether two (n,) scores of the same items have the same area under the ROC curve.

    DeLong 1988 (doi 10.2307/2531595) in O(n log n) by mid-ranks, after Sun & Xu 2014 (doi 10.1109/LSP.2014.2337313).
    """
    (a, truth), (b, _) = _checked(a, labels), _checked(b, labels)
    (positive_a, negative_a), (positive_b, negative_b) = _placements(a, truth), _placements(b, truth)
    area_a, area_b = _area(positive_a, len(negative_a)), _area(positive_b, len(negative_b))
    error = math.sqrt(_variance(positive_a - positive_b, negative_a - negative_b))
    z = _ratio(area_a - area_b, error)
    return Comparison(
        auc_a=area_a,
        auc_b=area_b,
        difference=area_a - area_b,
        standard_error=error,
        z=z,
        p=float(2 * norm.sf(abs(z))),
    )


def wilson(successes: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927); NaN without trials."""
    if total == 0:
        return float("nan"), float("nan")
    found = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided p: are `a` and `b`, (n,) right or wrong over the same items, right equally often?

    For sensitivity give the positive items only, for specificity the negative ones.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise ValueError(f"pairs are needed, not {a.shape} against {b.shape}")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust (n,) p for n tests by Holm 1979; one that is NaN stays NaN and counts as a test."""
    p = np.asarray(p, float)
    order = np.argsort(p)  # NaN last
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def weighted_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The RSNA 2022 cervical fracture score of (n, 8) probabilities of [patient_overall, C1, ..., C7], in nats.

    Each row is a mean weighted by its labels, so that a row with many fractures counts no more than another.
    """
    # In double precision: 1 - 1e-15 is 1 in single.
    given, truth = np.asarray(probabilities, float), np.asarray(labels)
    if given.shape != truth.shape or given.ndim != 2 or given.shape[1] != len(POSITIVE_WEIGHTS):
        raise ValueError(f"(n, 8) probabilities and labels are needed, not {given.shape} and {truth.shape}")
    if not np.all((given >= 0) & (given <= 1)) or not np.isin(truth, (0, 1)).all():
        raise ValueError("probabilities have to be between 0 and 1, labels 0 or 1")
    if not len(given):
        return float("nan")
    truth = truth.astype(bool)
    kept = np.clip(given, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    losses = -np.log(np.where(truth, kept, 1 - kept))
    return float(np.average(losses, axis=1, weights=np.where(truth, POSITIVE_WEIGHTS, NEGATIVE_WEIGHTS)).mean())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A NaN score would silently be a negative answer, and the label 2 a positive one."""
    scores, labels = np.asarray(scores, float), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"one label per score is needed, not {labels.shape} for {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels have to be 0 or 1")
    return scores, labels.astype(bool)


def _placements(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many negatives are below each positive (m,) and how many positives below each negative (n,).

    Ties count half. Counts, not fractions: their differences are exact, and a variance of 0 stays 0.
    """
    ranks = rankdata(scores)
    return ranks[truth] - rankdata(scores[truth]), ranks[~truth] - rankdata(scores[~truth])


def _area(positive: np.ndarray, negatives: int) -> float:
    return _ratio(float(positive.sum()), len(positive) * negatives)


def _variance(positive: np.ndarray, negative: np.ndarray) -> float:
    """Equation 5 of DeLong 1988 from placements, or from the differences of two scores' placements."""
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        return float("nan")
    return float(np.var(positive, ddof=1) / n**2 / m + np.var(negative, ddof=1) / m**2 / n)
