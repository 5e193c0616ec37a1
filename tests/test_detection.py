"""Detections against drawn boxes: the measures of COCO, FROC, levels, the confusion of classes, and their limits."""

import contextlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from inference.datasets.labelled_mr import ImageBox
from inference.evaluation import detection
from inference.evaluation.detection import (
    COCO_OVERLAPS,
    FALSE,
    HIT,
    IMAGE,
    MISSED,
    Image,
    average_precision,
    average_recall,
    confusion,
    drawn,
    froc,
    match,
    mean_average_precision,
    outcomes,
    overlaps,
    precision_recall,
    same_label_and_level,
    sensitivity_at,
)
from tests.detections import CLASSES, NAN, NOTHING, boxes, image, square


def random_images(seed: int) -> list[Image]:
    """Boxes moved, lost, invented, of the wrong class, many in one image at times, with equal scores."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(rng.integers(1, 6)):
        count = rng.integers(0, 7)
        corner = rng.uniform(0, 80, (count, 2))
        truth = boxes(np.hstack([corner, corner + rng.uniform(5, 40, (count, 2))]), rng.choice(CLASSES[:2], count))
        copies = rng.integers(0, 40 if seed % 20 == 0 else 4, count)
        moved = np.repeat(truth.edges, copies, axis=0) + rng.uniform(-2.4, 2.4, (copies.sum(), 4))
        labels = np.where(rng.random(len(moved)) < 0.2, rng.choice(CLASSES, len(moved)), truth.labels.repeat(copies))
        stray = rng.uniform(0, 80, (rng.integers(0, 4), 2))
        edges = np.vstack([moved, np.hstack([stray, stray + rng.uniform(5, 40, stray.shape)])])
        labels = np.concatenate([labels, rng.choice(CLASSES, len(stray))]) if len(edges) else []
        images.append(image(truth, boxes(edges, labels), rng.random(len(edges)).round(2), f"patient {number}"))
    return images


def coco(images: Sequence[Image]) -> COCOeval:
    """Run pycocotools on the same boxes."""
    annotations, detections = [], []
    for number, one in enumerate(images):
        for kind, into in ((one.truth, annotations), (one.found, detections)):
            for (left, top, right, bottom), label in zip(kind.edges.tolist(), kind.labels, strict=True):
                size = [right - left, bottom - top]
                entry = {"image_id": number, "category_id": CLASSES.index(label), "bbox": [left, top, *size]}
                into.append(entry | {"id": len(into) + 1, "area": size[0] * size[1], "iscrowd": 0})
        for entry, score in zip(detections[len(detections) - len(one.scores) :], one.scores, strict=True):
            entry["score"] = float(score)
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        categories = [{"id": number} for number in range(len(CLASSES))]
        for one, entries in ((truth, annotations), (found, detections)):
            one.dataset = {"images": [{"id": n} for n in range(len(images))], "annotations": entries}
            one.dataset["categories"] = categories
            one.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def coco_classes(values: np.ndarray) -> list[float]:
    """Average (thresholds, ..., classes) as COCO does, where -1 stands for a class that nobody drew."""
    each = [values[..., one] for one in range(len(CLASSES))]
    return [float(one[one > -1].mean()) if (one > -1).any() else NAN for one in each]


def ours(images: Sequence[Image], measure: Callable[..., float], overlap: float) -> list[float]:
    found = outcomes(images, CLASSES, overlap)
    return [
        measure(found.scores[found.marks[:, 0] == one], found.marks[found.marks[:, 0] == one, 1])
        for one in range(len(CLASSES))
    ]


@pytest.mark.parametrize("seed", range(200))
def test_average_precision_and_recall_are_those_of_pycocotools(seed):
    images = random_images(seed)
    evaluation = coco(images).eval
    everywhere, hundred = 0, 2  # any area, at most 100 detections
    precision = evaluation["precision"][:, :, :, everywhere, hundred]  # (overlaps, recalls, classes)
    at_half = coco_classes(precision[:1])
    assert ours(images, average_precision, 0.5) == pytest.approx(at_half, abs=1e-6, nan_ok=True)
    assert detection.score(images, CLASSES) == pytest.approx(
        float(np.nanmean(at_half)) if np.isfinite(at_half).any() else NAN, abs=1e-6, nan_ok=True
    )
    # Ten overlaps take ten times as long: every tenth case does.
    if seed % 10 == 0:
        recall = evaluation["recall"][:, :, everywhere, hundred]
        for measure, expected in ((average_precision, precision), (average_recall, recall)):
            found = np.mean([ours(images, measure, overlap) for overlap in COCO_OVERLAPS], axis=0)
            assert found == pytest.approx(coco_classes(expected), abs=1e-6, nan_ok=True)


def test_overlap_of_boxes_by_hand():
    shared = overlaps(np.array([square(0), square(5)]), np.array([square(0), square(100), square(5, 5)]))
    assert shared == pytest.approx(np.array([[1, 0, 25 / 175], [50 / 150, 0, 50 / 150]]))


def test_a_box_takes_its_best_detection_and_the_other_is_false():
    one = image(boxes([square(0)], ["disc"]), boxes([square(1), square(0), square(50)], ["disc"] * 3), [0.9, 0.8, 0.7])
    # The surer one comes first, although the other fits better.
    assert match(one, 0.5).tolist() == [0, -1, -1]
    assert outcomes([one], CLASSES, 0.5).marks.tolist() == [[-1, IMAGE], [0, HIT], [0, FALSE], [0, FALSE]]


def test_a_detection_prefers_the_box_that_it_overlaps_most():
    one = image(boxes([square(0), square(3)], ["disc"] * 2), boxes([square(2), square(1)], ["disc"] * 2), [0.9, 0.8])
    assert match(one, 0.5).tolist() == [1, 0]


def test_a_taken_box_leaves_the_next_best_one():
    one = image(boxes([square(0), square(3)], ["disc"] * 2), boxes([square(0), square(1)], ["disc"] * 2), [0.9, 0.8])
    assert match(one, 0.5).tolist() == [0, 1]


def test_exactly_the_threshold_is_enough():
    one = image(boxes([[0, 0, 10, 10]], ["disc"]), boxes([[0, 0, 10, 5]], ["disc"]), [0.5])
    assert match(one, 0.5).tolist() == [0]
    assert match(one, 0.51).tolist() == [-1]


def test_another_class_is_no_hit_and_classes_that_were_not_asked_for_do_not_count():
    one = image(boxes([square(0)], ["disc"]), boxes([square(0)], ["slip"]), [0.5])
    assert outcomes([one], CLASSES, 0.5).marks.tolist() == [[-1, IMAGE], [0, MISSED], [2, FALSE]]
    assert outcomes([one], ["herniation"], 0.5).marks.tolist() == [[-1, IMAGE]]


def test_only_the_hundred_surest_of_a_class_count_in_an_image():
    places = [square(20 * number, 100) for number in range(100)]
    crowded = image(boxes([square(0)], ["disc"]), boxes([square(0), *places], ["disc"] * 101), [0.1] + [0.9] * 100)
    marks = outcomes([crowded], CLASSES, 0.5).marks
    assert np.bincount(marks[1:, 1], minlength=3).tolist() == [100, 0, 1]


def test_precision_and_recall_after_each_detection():
    scores = np.array([0.9, 0.3, 0.6, NAN])
    precision, recall = precision_recall(scores, np.array([HIT, HIT, FALSE, MISSED]))
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])


def test_both_average_precisions_of_one_curve_in_closed_form():
    scores, kinds = np.array([0.9, 0.3, 0.6, NAN]), np.array([HIT, HIT, FALSE, MISSED])
    # Recall 0 to 1/3 at precision 1, then to 2/3 at precision 2/3, nothing beyond.
    assert average_precision(scores, kinds, "all") == pytest.approx(1 / 3 + 2 / 9)
    assert average_precision(scores, kinds) == pytest.approx((34 + 33 * 2 / 3) / 101)


@pytest.mark.parametrize("points", ["101", "all"])
def test_the_ends_of_average_precision(points):
    assert average_precision(np.array([0.9]), np.array([HIT]), points) == pytest.approx(1)
    assert average_precision(np.array([NAN]), np.array([MISSED]), points) == 0
    assert average_precision(np.array([0.9, NAN]), np.array([FALSE, MISSED]), points) == 0


def test_a_class_that_nobody_drew_has_no_average_and_does_not_lower_the_mean():
    assert np.isnan(average_precision(np.array([0.9]), np.array([FALSE])))
    assert np.isnan(average_recall(np.array([0.9]), np.array([FALSE])))
    one = image(boxes([square(0)], ["disc"]), boxes([square(0), square(50)], ["disc", "slip"]), [0.5, 0.9])
    assert detection.score([one], CLASSES) == pytest.approx(1)


def test_no_drawn_box_at_all_has_no_mean():
    assert np.isnan(detection.score([image(NOTHING, boxes([square(0)], ["disc"]), [0.5])], CLASSES))
    assert np.isnan(detection.score([], CLASSES))
    empty = outcomes([], CLASSES, 0.5)
    assert np.isnan(mean_average_precision(empty.scores, empty.marks))


def test_the_right_box_at_the_wrong_level_is_false_and_missed():
    truth = boxes([square(0), square(20)], ["disc"] * 2, ["L4/L5", "L5/S1"])
    one = image(truth, boxes([square(0), square(20)], ["disc"] * 2, ["L3/L4", "L5/S1"]), [0.9, 0.8])
    marks = outcomes([one], CLASSES, 0.5, same_label_and_level).marks
    assert marks.tolist() == [[-1, IMAGE], [0, FALSE], [0, HIT], [0, MISSED]]
    assert detection.score([one], CLASSES) == pytest.approx(1)


def test_a_box_of_unknown_level_agrees_with_every_level():
    one = image(boxes([square(0)], ["disc"]), boxes([square(0)], ["disc"], ["L3/L4"]), [0.9])
    assert match(one, 0.5, same_label_and_level).tolist() == [0]


def froc_images() -> list[Image]:
    """Four images: hits at 0.9 and 0.6, false ones at 0.8, 0.6, 0.2, one box missed."""
    first = image(
        boxes([square(0), square(20)], ["disc"] * 2), boxes([square(0), square(50)], ["disc"] * 2), [0.9, 0.8]
    )
    second = image(boxes([square(0)], ["disc"]), boxes([square(0), square(50)], ["disc"] * 2), [0.6, 0.6])
    return [first, second, image(NOTHING, boxes([square(0)], ["disc"]), [0.2]), image(NOTHING, NOTHING, [])]


def test_froc_counts_false_detections_over_all_images_the_empty_ones_too():
    found = outcomes(froc_images(), CLASSES, 0.5)
    false, sensitivity = froc(found.scores, found.marks)
    # The hit and the false detection at 0.6 come together: no threshold lies between them.
    assert false.tolist() == [0, 0, 0.25, 0.5, 0.75]
    assert sensitivity.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])


@pytest.mark.parametrize(("rate", "expected"), [(0, 1 / 3), (0.25, 1 / 3), (0.49, 1 / 3), (0.5, 2 / 3), (8, 2 / 3)])
def test_sensitivity_at_a_rate_of_false_detections_is_not_interpolated(rate, expected):
    found = outcomes(froc_images(), CLASSES, 0.5)
    assert sensitivity_at(found.scores, found.marks, rate) == pytest.approx(expected)


def test_froc_without_detections_is_zero_and_without_drawn_boxes_undefined():
    missed = outcomes([image(boxes([square(0)], ["disc"]), NOTHING, [])], CLASSES, 0.5)
    assert sensitivity_at(missed.scores, missed.marks, 1) == 0
    invented = outcomes([image(NOTHING, boxes([square(0)], ["disc"]), [0.5])], CLASSES, 0.5)
    assert np.isnan(sensitivity_at(invented.scores, invented.marks, 1))
    nothing = outcomes([], CLASSES, 0.5)
    assert np.isnan(sensitivity_at(nothing.scores, nothing.marks, 1))


def test_the_confusion_of_classes_has_a_background():
    one = image(
        boxes([square(0), square(20), square(40)], ["disc", "herniation", "slip"]),
        boxes([square(0), square(20), square(80), square(40)], ["disc", "slip", "disc", "slip"]),
        [0.9, 0.8, 0.7, 0.2],
    )
    assert confusion([one], CLASSES, threshold=0.5).tolist() == [
        [1, 0, 0, 0],
        [0, 0, 1, 0],  # the herniation was called a slip
        [0, 0, 0, 1],  # the slip scored too little
        [1, 0, 0, 0],  # a disc where nothing is
    ]
    assert confusion([one], CLASSES, threshold=0.2)[2].tolist() == [0, 0, 1, 0]


def test_the_confusion_of_some_classes_leaves_the_others_out():
    one = image(
        boxes([square(0), square(20)], ["disc", "slip"]), boxes([square(0), square(20)], ["slip", "disc"]), [1, 1]
    )
    assert confusion([one], ["disc"], threshold=0.5).tolist() == [[0, 1], [1, 0]]


def test_a_data_set_gives_its_boxes():
    found = drawn([ImageBox(slice=3, left=1, top=2, right=3, bottom=5, label="slip", level="L4/L5")])
    assert (found.edges.tolist(), found.labels.tolist(), found.levels.tolist()) == ([[1, 2, 3, 5]], ["slip"], ["L4/L5"])
    unknown = drawn([ImageBox(slice=0, left=0, top=0, right=1, bottom=1, label="oedema")])
    assert unknown.levels.tolist() == [""]
    assert drawn([]).edges.shape == (0, 4)


@pytest.mark.parametrize("edges", [[10, 0, 0, 10], [0, 10, 10, 0], [0, 0, NAN, 10]])
def test_a_box_inside_out_is_refused(edges):
    with pytest.raises(ValueError, match="a box has its right edge"):
        boxes([edges], ["disc"])


def test_a_found_box_without_area_is_false_and_nothing_more():
    one = image(boxes([square(0)], ["disc"]), boxes([[5, 5, 5, 5]], ["disc"]), [0.5])
    assert match(one, 0.5).tolist() == [-1]
    assert overlaps(one.found.edges, one.found.edges).tolist() == [[0]]


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="every box needs 4 edges"):
        boxes([square(0)], ["disc", "slip"])
    with pytest.raises(ValueError, match="1 found boxes need as many scores"):
        image(NOTHING, boxes([square(0)], ["disc"]), [])
    with pytest.raises(ValueError, match="none of them NaN"):
        image(NOTHING, boxes([square(0)], ["disc"]), [NAN])
