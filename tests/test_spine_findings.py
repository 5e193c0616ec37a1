"""Boxes of slices become lesions and discs: their class, their probability, their measures."""

from __future__ import annotations

import numpy as np
import pytest

from inference.calibrated import LEAST_SCORE
from inference.linked_boxes import SliceBox
from inference.spine_findings import DiscMeasures, group, measures, objects, probability, slice_boxes
from inference.spine_levels import LEVELS, Outlines
from inference.spine_mr import ABNORMAL, CORD_INJURY, LESIONS, LUMBAR_DISC, Answer

THRESHOLDS = dict.fromkeys(("oedema", "haemorrhage", "mixed", "disc", "herniation", "slip"), 0.5)
SPACING = (4.0, 1.0, 1.0)


def box(label: str, probability: float, at: int = 3, *, top: float = 20.0, left: float = 40.0) -> SliceBox:
    edges = (left, top, left + 20, top + 10)
    return SliceBox(slice=at, edges=edges, label=label, probability=probability, raw=probability / 2)


def spine(slip: int = 0, reach: int = 0) -> Outlines:
    """L4, disc and L5 in three slices, an arch behind L5; L4 `slip` mm forward, the disc `reach` mm too far back."""
    labels = np.zeros((5, 100, 80), np.uint8)
    values = {level: 1 + LEVELS.index(level) for level in ("L4", "L4/L5", "L5")}
    labels[1:4, 10:40, 20 - slip : 51 - slip] = values["L4"]
    labels[1:4, 40:50, 20 : 51 + reach] = values["L4/L5"]
    labels[1:4, 50:80, 20:51] = values["L5"]
    labels[1:4, 60:70, 65:75] = values["L5"]
    return Outlines(labels=labels, spacing=SPACING)


def test_boxes_that_are_too_improbable_are_left_out():
    answer = Answer(
        edges=np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]),
        labels=np.array(["slip", "disc"]),
        scores=np.array([0.9, 0.01], np.float32),
    )
    fitted = dict.fromkeys(("slip", "disc"), {"bias": 0.0, "weight": 1.0})
    (found,) = slice_boxes(
        [Answer(edges=answer.edges[:0], labels=answer.labels[:0], scores=answer.scores[:0]), answer], fitted
    )
    assert (found.slice, found.label, found.edges) == (1, "slip", (1.0, 2.0, 3.0, 4.0))
    assert found.probability == pytest.approx(0.9)


def test_a_lesion_that_looks_different_in_every_slice_is_one_and_named_after_what_was_seen_most():
    boxes = [box("oedema", 0.6, 2), box("oedema", 0.7, 3), box("mixed", 0.9, 4), box("haemorrhage", 0.3, 5)]
    (found,) = objects(CORD_INJURY, boxes, THRESHOLDS)
    assert (found.label, found.probability) == ("oedema", 0.9)
    assert found.key == boxes[1]


def test_a_herniation_beside_a_lesion_is_a_finding_of_its_own():
    found = objects(CORD_INJURY, [box("herniation", 0.6, 2), box("oedema", 0.8, 3)], THRESHOLDS)
    assert [(one.label, one.probability) for one in found] == [("oedema", 0.8), ("herniation", 0.6)]


@pytest.mark.parametrize(
    ("herniation", "label", "sure"), [(0.6, "herniation", 0.6), (0.4, "disc", 0.95)], ids=["sure", "unsure"]
)
def test_a_disc_is_herniated_if_one_slice_is_sure_enough(herniation, label, sure):
    boxes = [box("disc", 0.95, 2), box("herniation", herniation, 3), box("disc", 0.9, 4)]
    (found,) = objects(LUMBAR_DISC, boxes, THRESHOLDS)
    assert (found.label, found.probability) == (label, sure)
    assert probability([found], ABNORMAL) == herniation


def test_the_probability_of_a_study_is_that_of_its_surest_target():
    found = objects(CORD_INJURY, [box("herniation", 0.9, 2), box("oedema", 0.4, 3), box("mixed", 0.2, 7)], THRESHOLDS)
    assert probability(found, LESIONS) == 0.4
    assert probability([], LESIONS) == LEAST_SCORE


@pytest.mark.parametrize(
    ("labels", "name"),
    [(["herniation", "mixed"], "injured"), (["herniation"], "disc"), (["disc"], "normal"), ([], "normal")],
)
def test_a_study_is_in_the_group_of_its_worst_finding(labels, name):
    assert group(labels) == name


def image(outlined: Outlines) -> np.ndarray:
    """A T2 series in which discs are dark, and all else is bright."""
    return np.where(outlined.mask("L4/L5"), 100.0, 900.0)


def measured(outlined: Outlines, level: str, slices: list[int]) -> DiscMeasures | None:
    return measures(outlined, image(outlined), level, slices)


def test_a_disc_is_measured_between_its_vertebrae():
    found = measured(spine(slip=6, reach=4), "L4/L5", [1, 2, 3])
    assert found.slip_mm == pytest.approx(6, abs=0.01)
    assert found.slip_percent == pytest.approx(20, abs=0.1)
    # Behind the line from the back of L4, 6 mm forward, to that of L5.
    assert 4 <= found.herniation_mm <= 10
    straight = measured(spine(reach=4), "L4/L5", [2])
    assert (straight.slip_mm, straight.herniation_mm) == pytest.approx((0, 4), abs=0.01)
    assert measured(spine(), "L4/L5", [2]).herniation_mm == pytest.approx(0, abs=0.01)


def test_a_disc_beside_a_vertebra_without_an_outline_is_not_measured():
    assert measured(spine(), "L5/S1", [2]) is None


def test_a_disc_beside_a_vertebra_that_the_image_cuts_is_not_measured():
    whole = spine()
    assert measured(Outlines(labels=whole.labels[:, 10:], spacing=SPACING), "L4/L5", [2]) is None
    assert measured(Outlines(labels=whole.labels[:, :80], spacing=SPACING), "L4/L5", [2]) is None


def test_a_disc_is_named_by_what_fills_its_boxes_and_a_lesion_by_the_vertebra_at_its_height():
    outlines = spine()
    assert outlines.named == ("L4", "L5", "L4/L5")
    assert outlines.disc([box("slip", 0.9, 2, top=38)]) == "L4/L5"
    assert outlines.disc([box("slip", 0.9, 2, top=85)]) is None
    for top, level in ((18.0, "L4"), (35.0, "L4"), (45.0, "L5"), (70.0, "L5"), (130.0, None)):
        assert outlines.vertebra_behind(box("oedema", 0.9, 2, top=top, left=55)) == level


def test_the_arch_is_no_part_of_the_body():
    body = spine().body("L5")
    assert np.argwhere(body).max(0).tolist() == [79, 50]
    labels = spine().labels
    labels[1:4, 50:99, 55:79] = 1 + LEVELS.index("L5")  # larger than the body, but behind it
    labels[2, 52:55, 10:13] = 1 + LEVELS.index("L5")  # in front of it, but a speck
    found = np.argwhere(Outlines(labels=labels, spacing=SPACING).body("L5"))
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([50, 20], [79, 50])


def test_the_sacrum_is_measured_where_it_carries_the_disc():
    labels = np.zeros((5, 140, 120), np.uint8)
    for level, rows in (("L5", (5, 35)), ("L5/S1", (35, 43)), ("S1", (43, 130))):
        labels[1:4, slice(*rows), 20:51] = 1 + LEVELS.index(level)
    outlines = Outlines(labels=labels, spacing=SPACING)
    assert np.nonzero(outlines.body("S1"))[0].max() < 43 + 28
    assert measured(outlines, "L5/S1", [2]).slip_mm == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("aside", "degrees"), [((0, 0, 0, 0, 0, 0), 0), ((0, 1, 2, 2, 1, 0), 24)])
def test_a_spine_bends_by_how_its_discs_lie_beside_each_other(aside, degrees):
    labels = np.zeros((7, 220, 80), np.uint8)
    names = [level for level in LEVELS if "/" in level][-len(aside) :]
    for number, (level, slices) in enumerate(zip(names, aside, strict=True)):
        labels[1 + slices : 4 + slices, 20 + 30 * number : 28 + 30 * number, 20:50] = 1 + LEVELS.index(level)
    assert Outlines(labels=labels, spacing=SPACING).bend == pytest.approx(degrees, abs=3)
    assert Outlines(labels=labels[:, :140], spacing=SPACING).bend is None


def test_without_two_vertebrae_nothing_has_a_height():
    empty = Outlines(labels=np.zeros((3, 10, 10), np.uint8), spacing=SPACING)
    assert empty.named == ()
    assert empty.vertebra_behind(box("oedema", 0.9)) is None
    assert measured(empty, "L4/L5", [1]) is None
