"""Slices as detectors read them: grey from 0 to 255, boxes on what they mark, and only what somebody has read."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.datasets import mr_store, spine_images
from inference.datasets.labelled import UnusableData
from inference.datasets.lots import lot
from inference.datasets.spine_images import ImageSettings
from inference.preprocess.detector_image import fit, grey
from inference.spine_mr import CORD_INJURY, LUMBAR_DISC, SUBJECTS
from tests.cases import silent
from tests.mr_studies import LABELS, MARKED, SHAPE, study, write

CORD, DISC = SUBJECTS[CORD_INJURY], SUBJECTS[LUMBAR_DISC]
ALL = LABELS["lumbar"]


def stored(cache, *made):
    for one in made:
        write(cache, one)
    numbers = [int(one.name.rsplit("-", 1)[1]) for one in made]
    text = f"phantom_mr:{made[0].region}:standard@{min(numbers)}+{len(numbers)}"
    return mr_store.prepare_mr(text, cache=cache, progress=silent)


def gathered(studies, subject=DISC, *, size=(72, 64), target=1.0, with_boxes=1.0, empty=1.0):
    settings = ImageSettings(size=size, with_target=target, with_boxes=with_boxes, without_boxes=empty)
    return spine_images.gather(studies, subject, settings)


def test_grey_is_the_formula_of_paper_000():
    values = torch.tensor([[-3.0, 0.0], [2.0, 7.0]])
    assert grey(values).tolist() == [[0.0, 76.5], [127.5, 255.0]]
    assert grey(torch.full((2, 2), 5.0)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("shape", "spacing", "size", "filled"),
    [
        ((100, 100), (1.0, 1.0), (200, 300), (200, 200)),
        ((100, 50), (1.0, 1.0), (200, 100), (200, 100)),
        ((50, 100), (2.0, 1.0), (64, 96), (64, 64)),  # square in mm
        ((400, 100), (1.0, 1.0), (100, 100), (100, 25)),
    ],
)
def test_a_slice_keeps_its_shape_in_mm_and_the_rest_is_black(shape, spacing, size, filled):
    placed = fit(shape, spacing, size)
    assert placed.filled == filled
    ramp = np.linspace(1, 2, shape[0] * shape[1]).reshape(shape)
    image = placed.image(ramp)
    assert image.shape == size
    assert float(image[: filled[0], : filled[1]].max()) == pytest.approx(255)
    assert not image[filled[0] :].any()
    assert not image[:, filled[1] :].any()


def test_boxes_go_with_their_pixels_and_come_back():
    values = np.zeros((40, 20))
    values[8:16, 4:10] = 9
    placed = fit(values.shape, (1.0, 2.0), (120, 160))
    box = placed.forth(torch.tensor([[4.0, 8.0, 10.0, 16.0]]))
    rows, columns = np.nonzero(placed.image(values).numpy() > 127)
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(box[0], edges, atol=1)
    np.testing.assert_allclose(placed.back(box), [[4, 8, 10, 16]], rtol=1e-6)
    assert placed.back(torch.tensor([[0.0, 0.0, 160.0, 120.0]])).tolist() == [[0, 0, 20, 40]]


def test_images_have_the_boxes_and_labels_of_their_slices(tmp_path):
    made = study("lumbar", 0, labels=ALL[:2])
    images = gathered(stored(tmp_path, made, study("lumbar", 1, labels=ALL)), size=(144, 128), empty=0)
    assert len(images) == 2 * len(MARKED)
    image, boxes, labels = images[0]
    assert image.shape == (144, 128)
    assert labels.tolist() == [1, 2]
    first = made.series[1].boxes[0]
    assert boxes[0].tolist() == [2 * first.left, 2 * first.top, 2 * first.right, 2 * first.bottom]
    left, top, right, bottom = (int(edge) for edge in boxes[1])
    assert image[top + 2 : bottom - 2, left + 2 : right - 2].mean() > 150
    assert all(torch.equal(one, images[n][1]) for n, one in enumerate(images.boxes))


def test_shares_of_the_slices_with_and_without_boxes_are_always_the_same(tmp_path):
    studies = stored(tmp_path, *(study("lumbar", n, labels=ALL) for n in range(12)))
    everything, half, none = (gathered(studies, empty=share) for share in (1.0, 0.5, 0.0))
    assert len(everything) == 12 * SHAPE[0]
    assert len(none) == 12 * len(MARKED)
    assert 0.25 < (len(half) - len(none)) / (len(everything) - len(none)) < 0.75
    again = gathered(studies[:6], empty=0.5)
    assert [one.name for one in again.slices] == [one.name for one in half.slices][: len(again)]
    few = gathered(studies, target=0.5, empty=0)
    assert 0.25 < len(few) / len(none) < 0.75
    _, boxes, labels = next(everything[n] for n, one in enumerate(everything.slices) if not one.boxes)
    assert boxes.shape == (0, 4)
    assert labels.dtype == torch.int64


def test_slices_with_a_target_have_a_share_of_their_own(tmp_path):
    normal = [study("lumbar", n, labels=["disc"]) for n in range(12)]
    studies = stored(tmp_path, *normal, *(study("lumbar", n, labels=ALL) for n in range(12, 15)))
    few = gathered(studies, with_boxes=0.3, empty=0)
    abnormal = [one for one in few.slices if any(box.label in DISC.target for box in one.boxes)]
    assert len(abnormal) == 3 * len(MARKED)
    assert 0 < len(few) - len(abnormal) < 12 * len(MARKED)


def test_only_t2_that_was_read_counts(tmp_path):
    made = study("lumbar", 0, labels=ALL)
    axial = replace(made.series[1], plane="axial")
    unread = replace(made.series[1], boxes=None)
    (one,) = stored(tmp_path, replace(made, series=(*made.series, axial, unread)))
    assert {found.series.number for found in spine_images.marked(one)} == {1}
    assert all(found.patient == made.patient for found in spine_images.marked(one))


def test_another_region_is_left_out_and_a_class_without_a_box_is_named(tmp_path):
    studies = stored(tmp_path, study("lumbar", 0, labels=ALL[:2]))
    with pytest.raises(UnusableData, match=r"none of the 2 sagittal T2 slices of 1 studies has a box of slip in a lum"):
        gathered(studies, empty=0)
    with pytest.raises(UnusableData, match=r"none of the 0 .* in a cervical spine"):
        gathered(studies, CORD, empty=0)


def test_a_class_of_another_task_is_named_with_its_slice(tmp_path):
    (one,) = stored(tmp_path, study("lumbar", 0, labels=ALL))
    with pytest.raises(UnusableData, match=r"standard-0/1/2: has a box of disc, slip; this task knows oedema"):
        gathered([replace(one, region="cervical")], CORD, empty=0)


def test_lots_are_even_and_stay():
    lots = np.array([lot(f"name {n}") for n in range(2000)])
    assert lots.min() >= 0
    assert lots.max() < 1
    np.testing.assert_allclose(np.quantile(lots, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert lot("a") == pytest.approx(0.79137, abs=1e-5)
