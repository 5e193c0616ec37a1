"""Measures against numbers computed by hand, tests against slow definitions and against the bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from inference.evaluation.bootstrap import interval
from inference.evaluation.statistics import (
    NEGATIVE_WEIGHTS,
    POSITIVE_WEIGHTS,
    Confusion,
    auc_variance,
    confusion,
    delong,
    holm,
    mcnemar,
    weighted_log_loss,
    wilson,
)

MEASURES = ("tpr", "tnr", "ppv", "npv", "f1", "accuracy", "mcc", "balanced_accuracy")
Items = tuple[list[int], list[int], list[int]]


def undefined(counts: Confusion) -> set[str]:
    return {name for name in MEASURES if math.isnan(getattr(counts, name))}


def two_scores(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two correlated scores, `a` the better one, and their labels, 40 % positive."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    shared = rng.normal(size=count)
    a = 1.5 * labels + shared + rng.normal(size=count)
    b = 0.9 * labels + shared + rng.normal(size=count)
    return a, b, labels


@st.composite
def items(draw: st.DrawFn) -> Items:
    """Return two scores with many ties and labels with at least two items of each class."""
    labels = draw(st.lists(st.integers(0, 1), min_size=0, max_size=20)) + [0, 0, 1, 1]
    score = st.lists(st.integers(0, 5), min_size=len(labels), max_size=len(labels))
    return draw(score), draw(score), labels


# At one threshold


def test_counts_and_measures_worked_by_hand():
    scores = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1, 0.4, 0.5])
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    found = confusion(scores, labels, 0.5)
    assert found == Confusion(tp=3, fp=1, tn=3, fn=1)
    assert [getattr(found, name) for name in MEASURES] == [0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.5, 0.75]


def test_measures_of_uneven_counts_worked_by_hand():
    found = Confusion(tp=6, fp=4, tn=80, fn=10)
    assert found.tpr == 6 / 16
    assert found.tnr == 80 / 84
    assert found.ppv == 6 / 10
    assert found.npv == 80 / 90
    assert found.f1 == pytest.approx(2 * 0.6 * 0.375 / 0.975)
    assert found.accuracy == 0.86
    assert found.mcc == pytest.approx((6 * 80 - 4 * 10) / math.sqrt(10 * 16 * 84 * 90))
    assert found.balanced_accuracy == (6 / 16 + 80 / 84) / 2


def test_a_score_at_the_threshold_is_a_positive_answer():
    assert confusion(np.array([0.5]), np.array([1]), 0.5).tp == 1


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        (Confusion(tp=0, fp=0, tn=0, fn=0), set(MEASURES)),
        (Confusion(tp=3, fp=0, tn=0, fn=1), {"tnr", "mcc", "balanced_accuracy"}),  # no negatives; npv is 0 of 1
        (Confusion(tp=0, fp=1, tn=3, fn=0), {"tpr", "mcc", "balanced_accuracy"}),  # no positives; ppv is 0 of 1
        (Confusion(tp=0, fp=0, tn=3, fn=0), {"tpr", "ppv", "f1", "mcc", "balanced_accuracy"}),
        (Confusion(tp=0, fp=0, tn=3, fn=1), {"ppv", "mcc"}),  # never positive
        (Confusion(tp=1, fp=3, tn=0, fn=0), {"npv", "mcc"}),  # never negative
        (Confusion(tp=1, fp=0, tn=1, fn=0), set()),
    ],
)
def test_what_is_not_defined_is_nan(counts, names):
    assert undefined(counts) == names


def test_missing_every_positive_has_an_f1_of_0():
    assert Confusion(tp=0, fp=0, tn=3, fn=1).f1 == 0


def test_the_auc_of_the_paper_is_the_balanced_accuracy():
    found = Confusion(tp=7721, fn=2279, tn=7762, fp=2238)
    assert 100 * found.balanced_accuracy == pytest.approx(77.42, abs=0.0051)


def test_the_balanced_image_row_of_the_paper_is_balanced_by_case():
    """PPV 13.78 % at TPR 77.21 % and TNR 77.62 %: 2909 positive images of 65,700, not of 5818."""
    positives, images = 2909, 65_700
    tp, fp = round(0.7721 * positives), round(0.2238 * (images - positives))
    by_case = Confusion(tp=tp, fn=positives - tp, fp=fp, tn=images - positives - fp)
    assert 100 * by_case.ppv == pytest.approx(13.78, abs=0.005)
    assert 100 * positives / images == pytest.approx(4.43, abs=0.005)
    odds = 0.1378 / (1 - 0.1378) * 0.2238 / 0.7721
    assert 100 * odds / (1 + odds) == pytest.approx(4.43, abs=0.01)
    by_image = Confusion(tp=tp, fn=positives - tp, fp=round(0.2238 * positives), tn=round(0.7762 * positives))
    assert 100 * by_image.ppv == pytest.approx(77.53, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.floats(0, 1))
def test_measures_agree_with_their_definitions(pairs, threshold):
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    found = confusion(scores, labels, threshold)
    assert found.tp + found.fp + found.tn + found.fn == len(pairs)
    assert found.accuracy == pytest.approx(np.mean((scores >= threshold) == labels))
    if not math.isnan(found.mcc):
        assert found.mcc == pytest.approx(np.corrcoef(scores >= threshold, labels)[0, 1])
    if found.tp:
        assert found.f1 == pytest.approx(2 / (1 / found.ppv + 1 / found.tpr))


def test_hundreds_of_thousands_of_images_do_not_overflow():
    assert Confusion(tp=600_000, fp=0, tn=600_000, fn=0).mcc == 1


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, math.nan], [0, 1], "1 of 2 scores are NaN"),
        ([0.1, 0.2], [0, 2], "0 or 1"),
        ([0.1, 0.2], [0], "one label per score"),
        ([[0.1, 0.2]], [[0, 1]], "one label per score"),
    ],
)
def test_scores_and_labels_that_would_be_miscounted_are_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        confusion(np.array(scores), np.array(labels), 0.5)


# Areas under the ROC curve


def slow_placements(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return V10 and V01 of DeLong 1988 by comparing every pair."""
    x, y = scores[labels == 1], scores[labels == 0]
    pairs = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    return pairs.mean(1), pairs.mean(0)


@given(items())
def test_delong_is_the_comparison_of_every_pair(values):
    a, b, labels = (np.array(one) for one in values)
    (x_a, y_a), (x_b, y_b) = slow_placements(a, labels), slow_placements(b, labels)
    s10, s01 = np.cov(x_a, x_b) / len(x_a), np.cov(y_a, y_b) / len(y_a)
    covariance = s10 + s01
    found = delong(a, b, labels)
    assert found.auc_a == pytest.approx(x_a.mean())
    assert found.auc_b == pytest.approx(x_b.mean())
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert found.standard_error**2 == pytest.approx(variance, abs=1e-12)
    assert auc_variance(a, labels) == (pytest.approx(x_a.mean()), pytest.approx(covariance[0, 0], abs=1e-12))
    if variance > 1e-9:
        assert found.z == pytest.approx((x_a.mean() - x_b.mean()) / math.sqrt(variance))
        assert found.p == pytest.approx(chi2.sf(found.z**2, 1))


def test_delong_worked_by_hand():
    """Positives 3, 2, negatives 2, 1: placements 1 and 0.75 above, 0.75 and 1 below, variance 2 * (1/32) / 2."""
    area, variance = auc_variance(np.array([3, 2, 2, 1]), np.array([1, 1, 0, 0]))
    assert area == 0.875
    assert variance == pytest.approx(1 / 32)


def test_delong_is_the_error_of_the_bootstrap():
    a, b, labels = two_scores(300)
    found = delong(a, b, labels)
    pairs = np.stack([a, b], axis=1)

    def difference(scores: np.ndarray, truth: np.ndarray) -> float:
        first, second = (auc_variance(scores[:, n], truth)[0] for n in (0, 1))
        return first - second

    each = list(pairs[:, None]), list(labels[:, None])
    low, high = interval(difference, *each)
    assert (high - low) / 2 / 1.96 == pytest.approx(found.standard_error, rel=0.08)
    assert (low + high) / 2 == pytest.approx(found.difference, abs=found.standard_error / 4)


def test_delong_finds_no_difference_in_one_of_twenty_cases_without_any():
    small = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        labels = rng.random(80) < 0.5
        a, b = (labels + rng.normal(size=80) for _ in range(2))
        small += delong(a, b, labels).p < 0.05
    assert 0.025 <= small / 400 <= 0.08


def test_exchanging_the_scores_changes_the_sign_only():
    a, b, labels = two_scores(100)
    there, back = delong(a, b, labels), delong(b, a, labels)
    assert (there.difference, there.z) == (-back.difference, -back.z)
    assert (there.p, there.standard_error) == (back.p, back.standard_error)


@given(items())
def test_the_same_ranking_has_no_variance_to_test_with(values):
    a, _, labels = (np.array(one) for one in values)
    found = delong(a, 3.0 * a + 1, labels)
    assert (found.difference, found.standard_error) == (0, 0)
    assert math.isnan(found.z)
    assert math.isnan(found.p)


def test_a_perfect_and_a_reversed_score_have_no_variance_either():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    found = delong(labels, -labels, labels)
    assert (found.difference, found.standard_error) == (1, 0)
    assert math.isnan(found.p)


def test_areas_of_one_class_and_variances_of_one_item_are_not_defined():
    assert np.isnan(auc_variance(np.array([1.0, 2.0]), np.array([1, 1]))).all()
    area, variance = auc_variance(np.array([1.0, 2.0]), np.array([0, 1]))
    assert area == 1
    assert math.isnan(variance)
    assert math.isnan(delong(np.array([1, 2]), np.array([2, 1]), np.array([0, 1])).p)


# Proportions


def test_wilson_against_its_formula():
    z, p, n = 1.959964, 8 / 10, 10
    centre, half = p + z**2 / 2 / n, z * math.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    expected = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    assert wilson(8, 10) == pytest.approx(expected, abs=1e-6)


def test_wilson_at_the_ends_and_without_trials():
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert np.isnan(wilson(0, 0)).all()


def test_mcnemar_counts_the_items_on_which_two_differ():
    a = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0])
    b = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0])
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 7) / 2**7)  # 6 against 1
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar(a, a) == 1


def test_mcnemar_needs_pairs():
    with pytest.raises(ValueError, match="pairs"):
        mcnemar(np.array([1, 0]), np.array([1]))


def test_holm_worked_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1, 1])


def test_a_test_without_a_result_still_counts():
    found = holm(np.array([math.nan, 0.01]))
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values):
    p = np.array(values)
    found = holm(p)
    assert np.all(found >= p)
    assert np.all(found <= np.minimum(1, p * len(p)))
    assert np.all(np.diff(found[np.argsort(p)]) >= 0)


# The RSNA 2022 loss


def test_the_weighted_log_loss_worked_by_hand():
    """Weights 14 + 2 + 6 * 1 of the fractured patient, 7 + 7 * 1 of the healthy one."""
    probabilities = np.full((2, 8), 0.5)
    probabilities[0, :2] = 0.8, 0.25
    probabilities[1, 0] = 0.1
    labels = np.zeros((2, 8), int)
    labels[0, :2] = 1
    fractured = -(14 * math.log(0.8) + 2 * math.log(0.25) + 6 * math.log(0.5)) / 22
    healthy = -(7 * math.log(0.9) + 7 * math.log(0.5)) / 14
    assert weighted_log_loss(probabilities, labels) == pytest.approx((fractured + healthy) / 2)


def test_knowing_nothing_costs_the_logarithm_of_two():
    labels = np.random.default_rng(0).integers(0, 2, (20, 8))
    assert weighted_log_loss(np.full((20, 8), 0.5), labels) == pytest.approx(math.log(2))


def test_the_patient_weighs_as_much_as_all_vertebrae():
    assert POSITIVE_WEIGHTS.tolist() == [14, 2, 2, 2, 2, 2, 2, 2]
    assert NEGATIVE_WEIGHTS.tolist() == [7, 1, 1, 1, 1, 1, 1, 1]


def test_certainty_costs_nothing_when_right_and_no_infinity_when_wrong():
    labels = np.eye(8, dtype=int)
    assert weighted_log_loss(labels.astype(np.float32), labels) == pytest.approx(0, abs=1e-12)
    assert weighted_log_loss(1.0 - labels, labels) == pytest.approx(-math.log(1e-15), rel=1e-3)


def test_no_patients_have_no_loss():
    assert math.isnan(weighted_log_loss(np.empty((0, 8)), np.empty((0, 8))))


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((2, 7)), np.zeros((2, 7)), "n, 8"),
        (np.zeros((2, 8)), np.zeros((1, 8)), "n, 8"),
        (np.zeros(8), np.zeros(8), "n, 8"),
        (np.full((1, 8), 1.5), np.zeros((1, 8)), "between 0 and 1"),
        (np.full((1, 8), np.nan), np.zeros((1, 8)), "between 0 and 1"),
        (np.zeros((1, 8)), np.full((1, 8), 2), "labels 0 or 1"),
    ],
)
def test_logits_and_other_columns_are_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        weighted_log_loss(probabilities, labels)
