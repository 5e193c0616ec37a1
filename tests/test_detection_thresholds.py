"""Scores become probabilities, and thresholds are chosen so that they keep what they promise."""

import numpy as np
import pytest

from inference.calibrated import logits
from inference.datasets.labelled import UnusableData
from inference.evaluation.spine_detection import calibrated
from inference.training.calibration import fit_platt
from inference.training.detection_thresholds import calibrate, points
from tests.detections import NOTHING, boxes, image, square


def scored(*answers: tuple[float, bool], empty: int = 0):
    """One image per answer with one drawn disc, hit or not; and images without anything."""
    images = [
        image(boxes([square(0)], ["disc"]), boxes([square(0 if hit else 50)], ["disc"]), [score])
        for score, hit in answers
    ]
    return images + [image(NOTHING, NOTHING, [])] * empty


def test_a_score_becomes_the_frequency_with_which_it_is_right():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.05, 0.95, 3000)
    truth = 1 / (1 + np.exp(-(1 + 2 * logits(scores))))
    images = scored(*zip(scores.tolist(), (rng.random(3000) < truth).tolist(), strict=True))
    fitted = calibrate(images, ["disc"])["disc"]
    assert fitted["bias"] == pytest.approx(1, abs=0.2)
    assert fitted["weight"] == pytest.approx(2, abs=0.2)
    found = np.concatenate([one.scores for one in calibrated(images, {"disc": fitted})])
    assert np.abs(found - truth).mean() < 0.02


def test_separable_and_upside_down_scores_stay_probabilities_in_their_order():
    for labels in (np.array([False, False, True, True]), np.array([True, True, False, False])):
        bias, weight = fit_platt(logits(np.array([0.1, 0.2, 0.8, 0.9])), labels)
        assert weight > 0
        probability = 1 / (1 + np.exp(-(bias + weight * logits(np.array([0.1, 0.9])))))
        assert 0.01 < probability[0] < probability[1] < 0.99


def test_nothing_found_cannot_be_calibrated():
    with pytest.raises(UnusableData, match="the detector finds no slip in 1 validation images: train it longer"):
        calibrate(scored((0.5, True)), ["disc", "slip"])


def test_the_largest_f1_lies_between_two_scores():
    best, _ = points(scored((0.9, True), (0.8, True), (0.4, False), (0.3, False)), ["disc"])
    assert best.name == "best-f1"
    assert best.thresholds["disc"] == pytest.approx(0.6)
    assert best.sensitivity["disc"] == 0.5
    assert best.false_per_image["disc"] == 0


def test_few_false_boxes_are_a_tenth_of_the_images_at_most():
    answers = [(0.9, True), (0.8, False), (0.7, True), (0.6, False), (0.5, True)]
    _, few = points(scored(*answers, empty=5), ["disc"])
    assert few.thresholds["disc"] == pytest.approx(0.65)
    assert few.sensitivity["disc"] == pytest.approx(0.4)
    assert few.false_per_image["disc"] == pytest.approx(0.1)
    _, none = points(scored(*answers), ["disc"])
    assert none.thresholds["disc"] == pytest.approx(0.85)
    assert none.false_per_image["disc"] == 0


def test_equal_scores_are_not_parted():
    _, few = points(scored((0.9, True), (0.7, True), (0.7, False)), ["disc"])
    assert few.thresholds["disc"] == pytest.approx(0.8)
    _, shut = points(scored((0.7, False), (0.7, True)), ["disc"])
    assert shut.thresholds["disc"] == pytest.approx(0.85)
    assert shut.sensitivity["disc"] == 0
