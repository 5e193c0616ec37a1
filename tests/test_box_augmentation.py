"""Random changes of images move their boxes along, and an item is the same whoever asks for it."""

import pytest
import torch

from inference.training.box_augmentation import AUGMENTATIONS, Changed, mixed, rescaled
from tests.squares import Squares


def changed(augmentation: str, *, mixup: float = 0.0, seed: int = 0, count: int = 8) -> Changed:
    return Changed(Squares(count), list(range(count)), augmentation, mixup, seed)


def bright(image: torch.Tensor, box: torch.Tensor) -> tuple[float, float]:
    """Share of the bright pixels that are in the box, and of the box that is bright."""
    left, top, right, bottom = box.round().int().tolist()
    marks = image[0] > 0.5 * image.max()
    inside = marks[top:bottom, left:right]
    return float(inside.sum() / marks.sum()), float(inside.double().mean())


class OneSquare(Squares):
    """A bright square on black, in a quarter where no change loses it."""

    def __getitem__(self, index):
        image = torch.zeros(64, 64)
        image[24:44, 20:36] = 255
        return image, torch.tensor([[20.0, 24, 36, 44]]), torch.tensor([1])


TURNED = {"shao2024": 0.45, "quarters": 0.65}  # of a box that a turned square fills


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_boxes_stay_around_what_they_are_about(augmentation):
    items = Changed(OneSquare(6), list(range(6)), augmentation, 0.0, 3)
    for image, target in (items[n] for n in range(6)):
        assert image.shape == ((3, 32, 32) if augmentation == "quarters" else (3, 64, 64))
        assert 0 <= image.min() <= image.max() <= 1
        assert target["boxes"].shape == (1, 4)
        within, filled = bright(image, target["boxes"][0])
        assert within > 0.95
        assert filled > TURNED.get(augmentation, 0.85)


@pytest.mark.parametrize("augmentation", sorted(set(AUGMENTATIONS) - {"none"}))
def test_every_item_is_changed_in_its_own_way_and_each_time_alike(augmentation):
    one, again, other = changed(augmentation), changed(augmentation), changed(augmentation, seed=100)
    state = torch.get_rng_state()
    for n in (1, 2):
        assert torch.equal(one[n][0], again[n][0])
        assert all(torch.equal(one[n][1][key], again[n][1][key]) for key in one[n][1])
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(not torch.equal(one[n][0], other[n][0]) for n in (1, 2, 3)) >= 2


def test_without_augmentation_an_item_is_the_image():
    image, target = changed("none")[1]
    grey, boxes, labels = Squares(8)[1]
    assert torch.equal(image, (grey / 255).expand(3, -1, -1))
    assert torch.equal(target["boxes"], boxes)
    assert torch.equal(target["labels"], labels)
    assert target["weights"].tolist() == [1, 1]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_an_image_without_boxes_stays_one(augmentation):
    _, target = changed(augmentation)[0]
    assert [tuple(target[key].shape) for key in ("boxes", "labels", "weights")] == [(0, 4), (0,), (0,)]


def test_mixed_images_have_the_boxes_of_both_weighted_by_their_share():
    items = changed("none")
    one, other = items[1], items[2]
    image, target = mixed(one, other, 0.25)
    torch.testing.assert_close(image, 0.25 * one[0] + 0.75 * other[0])
    assert torch.equal(target["boxes"], torch.cat([one[1]["boxes"], other[1]["boxes"]]))
    assert target["labels"].tolist() == [*one[1]["labels"].tolist(), *other[1]["labels"].tolist()]
    assert target["weights"].tolist() == [0.25, 0.25, 0.75, 0.75]


def test_mixup_happens_as_often_as_is_asked():
    items = changed("none", mixup=0.5, count=40)
    faded = [
        float(target["weights"].min()) < 1 for _, target in (items[n] for n in range(40)) if len(target["weights"])
    ]
    assert 0.25 < sum(faded) / len(faded) < 0.75


def test_a_scaled_batch_has_scaled_boxes():
    images, targets = rescaled([torch.rand(3, 40, 60)], [{"boxes": torch.tensor([[2.0, 4, 20, 30]])}], 1.5)
    assert images[0].shape == (3, 60, 90)
    assert targets[0]["boxes"].tolist() == [[3, 6, 30, 45]]
