"""Intervals draw patients, repeat themselves, and are as wide as they should be."""

import numpy as np
import pytest

from inference.evaluation.bootstrap import interval


def mean_of_scores(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(scores.mean())


def patients(count: int, *, slices: int = 1, spread: float = 0.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return scores with a standard deviation of 1 between patients and `spread` inside them; all labels 1."""
    rng = np.random.default_rng(1)
    scores = [rng.normal() + spread * rng.normal(size=slices) for _ in range(count)]
    return scores, [np.ones(slices, bool)] * count


def test_the_interval_of_a_mean_is_that_of_theory():
    low, high = interval(mean_of_scores, *patients(100))
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(100), rel=0.15)


def test_slices_of_one_patient_are_no_independent_evidence():
    one, many = (interval(mean_of_scores, *patients(50, slices=slices)) for slices in (1, 40))
    assert many[1] - many[0] == pytest.approx(one[1] - one[0], rel=0.2)


def test_the_interval_is_the_same_every_time_and_depends_on_the_seed():
    assert interval(mean_of_scores, *patients(20)) == interval(mean_of_scores, *patients(20))
    assert interval(mean_of_scores, *patients(20), seed=1) != interval(mean_of_scores, *patients(20))


def test_scores_stay_with_their_labels():
    scores, labels = [np.array([float(i)]) for i in range(10)], [np.array([i >= 5]) for i in range(10)]

    def broken_pairs(values: np.ndarray, truth: np.ndarray) -> float:
        return float(np.sum((values >= 5) != truth))

    assert interval(broken_pairs, scores, labels) == (0, 0)


def test_a_certain_statistic_has_no_width():
    assert interval(lambda scores, labels: 0.75, *patients(5)) == (0.75, 0.75)


def test_samples_without_a_value_are_left_out():
    scores, labels = patients(3)
    calls = []

    def sometimes(values: np.ndarray, truth: np.ndarray) -> float:
        calls.append(1)
        return float("nan") if len(calls) % 2 else 0.5

    assert interval(sometimes, scores, labels) == (0.5, 0.5)


def test_a_statistic_that_is_never_defined_has_no_interval():
    assert np.isnan(interval(lambda scores, labels: float("nan"), *patients(3))).all()
