"""The numbers of a detector in closed form, their intervals and tables, the groups of paper 002, and the plots."""

import json

import numpy as np
import pytest

from inference.evaluation import detection_report, groups, plots
from inference.evaluation.detection import Image, outcomes
from tests.detections import CLASSES, NOTHING, boxes, image, square


def images() -> list[Image]:
    """Four patients with two discs each, the second herniated; one herniation is missed, one disc at a wrong level."""
    made = []
    for number in range(4):
        truth = boxes([square(0), square(20)], ["disc", "herniation"], ["L4/L5", "L5/S1"])
        levels = ["L3/L4" if number == 1 else "L4/L5", "L5/S1", ""]
        found = boxes([square(0), square(20), square(60)], ["disc", "herniation", "disc"], levels)
        kept = np.array([0, 2] if number == 3 else [0, 1, 2])
        scores = np.array([0.9 - number / 100, 0.8, 0.3])
        made.append(Image(patient=f"patient {number}", truth=truth, found=found.at(kept), scores=scores[kept]))
    return made


@pytest.fixture(scope="module")
def found() -> dict:
    return detection_report.measure(images(), CLASSES, threshold=0.5)


def test_measures_in_closed_form(found):
    assert (found["images"], found["patients"], found["threshold"]) == (4, 4, 0.5)
    disc, herniation = found["classes"]["disc"], found["classes"]["herniation"]
    assert (disc["drawn"], disc["ap50"], disc["ap50_95"], disc["ar50_95"]) == (4, *[pytest.approx(1)] * 3)
    # Three of four at precision 1: recall 0 to 0.75 in hundredths.
    assert herniation["ap50"] == pytest.approx(76 / 101)
    assert herniation["ap50_all_points"] == pytest.approx(0.75)
    assert herniation["ar50_95"] == pytest.approx(0.75)
    assert found["map50"] == pytest.approx((1 + 76 / 101) / 2)
    assert found["map50_all_points"] == pytest.approx(0.875)


def test_a_class_that_nobody_drew_is_not_defined_and_not_in_the_mean(found):
    slip = found["classes"]["slip"]
    assert slip["drawn"] == 0
    assert (slip["ap50"], slip["ap50_95"], slip["ar50_95"], slip["froc"]["1"]) == (None,) * 4
    assert slip["ap50_ci95"] == [None, None]


def test_intervals_are_over_patients_and_enclose_the_value(found):
    low, high = found["map50_ci95"]
    # At worst a sample has no herniation found at all, at best each.
    assert 0.5 <= low < found["map50"] < high <= 1
    assert found["classes"]["disc"]["ap50_ci95"] == [pytest.approx(1), pytest.approx(1)]


def test_images_of_one_patient_are_drawn_together():
    same = [Image(patient="one", truth=one.truth, found=one.found, scores=one.scores) for one in images()]
    found = detection_report.measure(same, CLASSES, threshold=0.5)
    assert found["patients"] == 1
    assert found["map50_ci95"] == [pytest.approx(found["map50"])] * 2


def test_a_wrong_level_costs_precision_and_recall(found):
    # The second of the four discs, by score, is at the wrong level: hits at 1, 3 and 4 of the first four.
    disc = (26 * 1 + 50 * 0.75) / 101
    assert found["map50_with_level"] == pytest.approx((disc + 76 / 101) / 2)
    without = [image(boxes([square(0)], ["disc"]), boxes([square(0)], ["disc"]), [0.5])]
    assert detection_report.measure(without, CLASSES, threshold=0.5)["map50_with_level"] is None


def test_froc_of_a_class_counts_all_images(found):
    disc = found["classes"]["disc"]
    assert disc["froc"]["0.125"] == 1
    assert found["classes"]["herniation"]["froc"] == dict.fromkeys(disc["froc"], 0.75)


def test_confusion_and_counts_are_at_the_threshold(found):
    assert found["confusion"] == {
        "classes": ["disc", "herniation", "slip", "background"],
        "counts": [[4, 0, 0, 0], [0, 3, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
    }
    assert found["boxes_per_image"]["herniation"] == {"drawn": 1, "found": 0.75, "absolute_difference": 0.25}
    lower = detection_report.measure(images(), CLASSES, threshold=0.1)
    assert lower["confusion"]["counts"][3] == [4, 0, 0, 0]
    assert lower["boxes_per_image"]["disc"] == {"drawn": 1, "found": 2, "absolute_difference": 1}


def test_the_result_is_json_and_a_table(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    text = "\n".join(detection_report.lines(found))
    assert "4 images of 4 patients" in text
    assert "| herniation | 4 | 0.752 (" in text
    assert "| slip | 0 | n/a | n/a | n/a | n/a | n/a |" in text
    assert "| mean | 8 | 0.876 (" in text
    assert "| herniation | 0 | 3 | 0 | 1 |" in text
    assert "wrong level is false: 0.691" in text


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="no image to measure"):
        detection_report.measure([], CLASSES, threshold=0.5)
    with pytest.raises(ValueError, match="no image to put into a group"):
        groups.measure([], {})


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], "normal"),
        (["disc", "slip"], "normal"),
        (["herniation"], "disc"),
        (["herniation", "oedema"], "injured"),
        (["mixed"], "injured"),
        (["haemorrhage", "disc"], "injured"),
    ],
)
def test_an_image_belongs_to_the_group_of_its_worst_finding(labels, expected):
    assert groups.group(labels) == expected


def group_images() -> list[Image]:
    """Truth and answer: 2 injured right, 1 injured as disc, 2 disc right, 1 normal right, 1 normal as disc."""
    pairs = [("oedema", "mixed"), ("mixed", "mixed"), ("haemorrhage", "herniation"), ("herniation", "herniation"),
             ("herniation", "herniation"), ("", ""), ("", "herniation")]  # fmt: skip
    return [
        image(*(boxes([square(0)], [one]) if one else NOTHING for one in pair), [0.6] * bool(pair[1]), f"p{number}")
        for number, pair in enumerate(pairs)
    ]


def test_the_matrix_of_paper_002_and_what_follows_from_it():
    found = groups.measure(group_images(), {"oedema": 0.5, "mixed": 0.5, "haemorrhage": 0.5, "herniation": 0.5})
    assert found["confusion"] == {
        "classes": ["injured", "disc", "normal"],
        "counts": [[2, 1, 0], [0, 2, 0], [0, 1, 1]],
    }
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["groups"]["disc"]["sensitivity"] == 1
    assert found["groups"]["disc"]["precision"] == pytest.approx(2 / 4)
    assert found["groups"]["injured"]["sensitivity"] == pytest.approx(2 / 3)
    low, high = found["accuracy_ci95"]
    assert 0 <= low < 5 / 7 < high <= 1
    text = "\n".join(groups.lines(found))
    assert "| injured | 2 | 1 | 0 |" in text
    assert "accuracy 0.714 (" in text


def test_each_class_has_its_own_threshold_and_none_means_never():
    found = groups.measure(group_images(), {"mixed": 0.7, "herniation": 0.6})
    assert found["confusion"]["counts"] == [[0, 1, 2], [0, 2, 0], [0, 1, 1]]


def test_a_group_that_is_not_there_is_not_defined():
    found = groups.measure(group_images()[3:5], {"herniation": 0.5})
    assert (found["groups"]["injured"]["sensitivity"], found["groups"]["injured"]["precision"]) == (None, None)
    assert found["groups"]["injured"]["sensitivity_ci95"] == [None, None]


def test_the_plots_show_what_was_measured(tmp_path):
    one = {"herniation": outcomes(images(), ["herniation"], 0.5), "disc": outcomes(images(), ["disc"], 0.5)}
    curves, froc = plots.detections(one, title="t"), plots.froc(one, title="t")
    (axes,) = curves.axes
    assert axes.lines[0].get_xdata().tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert axes.lines[0].get_ydata().tolist() == [1, 1, 1]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["herniation, AP 0.752", "disc, AP 1.000"]
    (axes,) = froc.axes
    assert axes.get_xlim() == (0.125, 8)
    assert axes.lines[0].get_ydata().tolist()[-1] == pytest.approx(0.75)
    counts = np.array([[3, 1], [0, 0]])
    matrix = plots.confusion(counts, ["disc", "background"], title="t")
    assert [text.get_text() for text in matrix.axes[0].texts] == ["3", "1", "0", "0"]
    for number, figure in enumerate((curves, froc, matrix)):
        path = plots.save(figure, tmp_path / f"{number}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
        assert all(axes.get_title() and axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


def blind(seen: list[Image], kept: int = 0) -> list[Image]:
    """Return the same images with the boxes of the first patients only."""
    none = np.arange(0)
    return [
        one
        if number < kept
        else Image(patient=one.patient, truth=one.truth, found=one.found.at(none), scores=none + 0.0)
        for number, one in enumerate(seen)
    ]


def many(count: int = 12) -> list[Image]:
    disc = boxes([square(0)], ["disc"])
    return [image(disc, disc, [0.9], f"patient {number}") for number in range(count)]


def test_a_detector_that_sees_is_better_than_one_that_does_not():
    found = detection_report.compare(many(), blind(many()), CLASSES)
    assert found["map50_difference"] == pytest.approx(1)
    assert found["p"] < 0.01
    assert detection_report.compare(blind(many()), many(), CLASSES)["map50_difference"] == pytest.approx(-1)


def test_a_difference_in_one_of_many_patients_is_chance():
    assert detection_report.compare(many(), blind(many(), 11), CLASSES)["p"] == 1
    assert detection_report.compare(many(), many(), CLASSES) == {"map50_difference": 0, "p": 1}


def test_detectors_on_other_images_are_not_compared():
    other = [image(boxes([square(1)], ["disc"]), one.found, one.scores.tolist(), one.patient) for one in many()]
    for images in (many(11), other):
        with pytest.raises(ValueError, match="on the same images"):
            detection_report.compare(many(), images, CLASSES)


def test_detectors_without_a_drawn_box_have_no_difference():
    nothing = [image(NOTHING, NOTHING, [])]
    assert detection_report.compare(nothing, nothing, CLASSES) == {"map50_difference": None, "p": None}
