"""Temperature and thresholds against cases with a known answer."""

import numpy as np
import pytest

from inference.training.calibration import best_f1, fit_temperature, indeterminate, operating_points


def sampled(*, temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are `temperature` times too large for their labels."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, count)
    return honest * temperature, rng.random(count) < 1 / (1 + np.exp(-honest))


def point(probability: list[float], labels: list[int], name: str) -> tuple[float, float, float]:
    points = {p.name: p for p in operating_points(np.array(probability), np.array(labels))}
    return points[name].threshold, points[name].sensitivity, points[name].specificity


@pytest.mark.parametrize("temperature", [0.6, 1.0, 3.0, 8.0])
def test_the_temperature_that_spoiled_the_logits_is_found(temperature):
    assert fit_temperature(*sampled(temperature=temperature)) == pytest.approx(temperature, rel=0.05)


def test_separable_cases_do_not_lead_to_certainty():
    assert fit_temperature(np.array([-3.0, -2, 2, 3]), np.array([0, 0, 1, 1])) == 0.5


def test_answers_that_are_all_wrong_do_not_lead_to_infinity():
    assert fit_temperature(np.array([-3.0, -2, 2, 3]), np.array([1, 1, 0, 0])) == 10


def test_both_points_of_separable_cases_lie_in_the_gap():
    probability, labels = [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]
    assert point(probability, labels, "balanced") == (pytest.approx(0.5), 1, 1)
    assert point(probability, labels, "screen") == (pytest.approx(0.5), 1, 1)


def test_the_balanced_point_has_the_largest_youden_index():
    # by hand: cuts at .05 .15 .25 .45 .65 .8 give sensitivity + specificity 3/3, 4/3, 5/3, 4/3, 3/3, 4/3
    probability, labels = [0.1, 0.2, 0.3, 0.6, 0.7, 0.9], [0, 0, 1, 1, 0, 1]
    assert point(probability, labels, "balanced") == (pytest.approx(0.25), 1, pytest.approx(2 / 3))


def test_the_screen_point_is_the_highest_threshold_that_misses_at_most_one_in_twenty():
    probability = [*np.linspace(0.5, 0.95, 20), *np.linspace(0.05, 0.9, 20)]
    labels = [1] * 20 + [0] * 20
    threshold, sensitivity, _ = point(probability, labels, "screen")
    assert sensitivity == 0.95  # the lowest of twenty is missed, not two
    positives = np.array(probability[:20])
    assert positives[0] < threshold <= positives[1]


def test_a_threshold_never_sits_on_a_case():
    rng = np.random.default_rng(3)
    probability, labels = rng.random(200), rng.random(200) < 0.5
    for one in operating_points(probability, labels):
        assert np.abs(probability - one.threshold).min() > 0


def test_a_point_tells_the_sensitivity_and_specificity_at_its_threshold():
    rng = np.random.default_rng(4)
    labels = rng.random(300) < 0.4
    probability = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0.01, 0.99)
    for one in operating_points(probability, labels):
        assert one.sensitivity == np.mean(probability[labels] >= one.threshold)
        assert one.specificity == np.mean(probability[~labels] < one.threshold)
    assert [one.name for one in operating_points(probability, labels)] == ["balanced", "screen", "flag"]


def test_the_flag_point_is_the_lowest_threshold_with_at_most_one_false_alarm_in_twenty():
    probability, labels = [*np.linspace(0.05, 0.5, 20), *np.linspace(0.1, 0.95, 20)], [0] * 20 + [1] * 20
    threshold, _, specificity = point(probability, labels, "flag")
    assert specificity == 0.95  # the highest of twenty is called, not two
    assert sorted(probability[:20])[-2] < threshold <= probability[19]


def test_useless_answers_flag_nothing():
    _, sensitivity, specificity = point([0.4] * 6, [0, 1, 0, 1, 0, 1], "flag")
    assert (sensitivity, specificity) == (0, 1)


def test_useless_answers_screen_everything():
    _, sensitivity, specificity = point([0.4] * 6, [0, 1, 0, 1, 0, 1], "screen")
    assert (sensitivity, specificity) == (1, 0)


@pytest.mark.parametrize(
    ("probability", "labels", "threshold"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.5),
        ([0.9, 0.1, 0.8, 0.2], [1, 0, 1, 0], 0.5),  # the order of the cases says nothing
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 0.65),  # F1 is 2/3, 1/2, 4/5, 2/3
        ([0.9, 0.8], [1, 1], 0.4),
    ],
)
def test_the_threshold_with_the_best_f1_is_found(probability, labels, threshold):
    assert best_f1(np.array(probability), np.array(labels)) == pytest.approx(threshold)


def test_equal_probabilities_are_on_one_side_of_the_threshold():
    # F1 is 2/3 with the first alone and 4/7 with all: 0.5 cannot take the second and leave the others
    assert best_f1(np.array([0.9, 0.5, 0.5, 0.5, 0.5]), np.array([1, 1, 0, 0, 0])) == pytest.approx(0.7)


def test_the_indeterminate_zone_holds_the_lower_tenth_of_the_fractured_to_the_upper_tenth_of_the_intact():
    fractured, intact = np.linspace(0.31, 0.49, 19), np.linspace(0.21, 0.39, 19)
    probability, labels = np.concatenate([fractured, intact]), np.repeat([1, 0], 19)
    # of 19 + 1 cases, two may lie outside on the wrong side: the second lowest and the second highest are the ends
    assert indeterminate(probability, labels) == pytest.approx((0.32, 0.38))


def test_classes_that_part_leave_the_gap_between_them_indeterminate():
    probability, labels = np.concatenate([np.linspace(0.7, 0.9, 19), np.linspace(0.1, 0.3, 19)]), np.repeat([1, 0], 19)
    low, high = indeterminate(probability, labels)
    assert 0.28 < low < 0.3
    assert 0.7 < high < 0.72


def test_too_few_cases_leave_everything_indeterminate():
    assert indeterminate(np.array([0.1, 0.9]), np.array([0, 1])) == (0, 1)


def test_new_cases_are_on_the_right_side_or_in_the_zone_as_often_as_promised():
    rng = np.random.default_rng(8)
    held = []
    for _ in range(300):
        labels = np.repeat([True, False], 60)
        low, high = indeterminate(rng.normal(0.5 + 0.1 * labels, 0.1), labels)
        new = rng.normal(0.5 + 0.1 * labels, 0.1)
        held.append([(new[labels] >= low).mean(), (new[~labels] <= high).mean()])
    assert np.mean(held, 0) == pytest.approx([0.9, 0.9], abs=0.015)
