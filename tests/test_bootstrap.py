"""Intervals draw patients, repeat themselves, and are as wide as they should be."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from inference.evaluation.bootstrap import exchange, interval


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


def test_samples_come_with_their_scores_from_high_to_low_and_nothing_found_last():
    def out_of_order(scores: np.ndarray, labels: np.ndarray) -> float:
        assert np.array_equal(labels, np.nan_to_num(scores, nan=-1))
        return float((np.diff(labels) > 0).sum())

    scores = [np.array([0.3, np.nan, 0.1]), np.array([0.9, 0.2]), np.array([])]
    assert interval(out_of_order, scores, [np.nan_to_num(one, nan=-1) for one in scores]) == (0, 0)


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


def skewed(count: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return one exponential value per patient: variance 1, with a long tail."""
    rng = np.random.default_rng(seed)
    return [rng.exponential(size=1) for _ in range(count)], [np.ones(1, bool)] * count


def variance_of_scores(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(scores.var())


@pytest.mark.parametrize("statistic", [mean_of_scores, variance_of_scores])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_are_those_of_scipy(statistic, method):
    scores, labels = skewed(40, seed=3)

    def of_patients(chosen: np.ndarray) -> float:
        return statistic(np.concatenate([scores[i] for i in chosen]), np.empty(0))

    theirs = bootstrap(
        (np.arange(40),), of_patients, vectorized=False, n_resamples=10_000, method=method, rng=np.random.default_rng(0)
    ).confidence_interval
    ours = interval(statistic, scores, labels, method=method, samples=10_000)
    assert ours == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_bca_moves_the_interval_of_a_skewed_statistic_to_the_long_side():
    scores, labels = skewed(40, seed=3)
    percentile, bca = (interval(variance_of_scores, scores, labels, method=m) for m in ("percentile", "bca"))
    assert bca[0] > percentile[0]
    assert bca[1] > percentile[1]


def test_bca_covers_the_truth_more_often_where_the_statistic_is_skewed():
    covered = {"percentile": 0, "bca": 0}
    for seed in range(200):
        for method in covered:
            low, high = interval(variance_of_scores, *skewed(30, seed), method=method, samples=300)
            covered[method] += low <= 1 <= high
    assert covered["bca"] > covered["percentile"]
    assert covered["bca"] >= 0.8 * 200


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_of_a_mean_cover_the_truth_about_as_often_as_they_say(method):
    covered = 0
    for seed in range(300):
        values = np.random.default_rng(seed).normal(size=(40, 1))
        low, high = interval(mean_of_scores, list(values), [np.ones(1, bool)] * 40, method=method, samples=300)
        covered += low <= 0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_bca_leaves_out_the_patient_and_not_the_slice():
    one, many = (
        interval(variance_of_scores, [np.repeat(s, n) for s in scores], [np.repeat(t, n) for t in truth], method="bca")
        for n in (1, 25)
        for scores, truth in [skewed(30, seed=1)]
    )
    assert many == pytest.approx(one)


def test_bca_of_a_certain_or_an_undefined_statistic_and_of_one_patient():
    assert interval(lambda scores, labels: 0.75, *patients(5), method="bca") == (0.75, 0.75)
    assert interval(mean_of_scores, [np.array([2.0])], [np.array([True])], method="bca") == (2, 2)
    assert np.isnan(interval(lambda scores, labels: float("nan"), *patients(3), method="bca")).all()


def test_bca_without_a_value_for_some_left_out_patient_uses_the_others():
    scores, labels = patients(12)
    labels = [np.array([i == 0]) for i in range(12)]  # without patient 0 there is no positive

    def difference(values: np.ndarray, truth: np.ndarray) -> float:
        both = truth.any() and not truth.all()
        return float(values[truth].mean() - values[~truth].mean()) if both else float("nan")

    low, high = interval(difference, scores, labels, method="bca")
    assert low < difference(np.concatenate(scores), np.concatenate(labels)) < high


def test_an_estimate_outside_of_all_samples_still_has_an_interval():
    def highest_only_when_complete(values: np.ndarray, truth: np.ndarray) -> float:
        return float(len(np.unique(values)))  # no sample with repeats reaches all patients

    low, high = interval(highest_only_when_complete, *patients(40), method="bca")
    assert low <= high < 40


def test_patients_of_different_size_are_drawn_whole():
    scores = [np.full(n, float(n)) for n in range(1, 9)]
    labels = [np.full(n, n % 2 == 0) for n in range(1, 9)]

    def torn_patients(values: np.ndarray, truth: np.ndarray) -> float:
        sizes, counts = np.unique(values, return_counts=True)
        return float(np.sum(counts % sizes != 0) + np.sum((values % 2 == 0) != truth))

    assert interval(torn_patients, scores, labels, method="bca") == (0, 0)


def test_every_patient_needs_as_many_labels_as_scores():
    with pytest.raises(ValueError, match="as many labels"):
        interval(mean_of_scores, [np.zeros(3)], [np.zeros(2, bool)])


def test_an_exchange_of_three_patients_is_one_of_eight_arrangements():
    a, b = ([np.array([float(one)]) for one in values] for values in ((3, 4, 5), (0, 0, 0)))
    labels = [np.array([True])] * 3
    difference, p = exchange(lambda scores, _: float(scores.mean()), (a, labels), (b, labels))
    assert difference == pytest.approx(4)
    assert p == pytest.approx(2 / 8, abs=0.03)


def test_an_exchange_needs_pairs_and_a_defined_statistic():
    one = [np.array([1.0])]
    with pytest.raises(ValueError, match="pairs are needed, not 1 patients against 2"):
        exchange(lambda scores, _: float(scores.mean()), (one, one), (one * 2, one * 2))
    assert np.isnan(exchange(lambda *_: float("nan"), (one, one), (one, one))).all()
