"""Augmentation moves image and mask together and stays within its limits."""

import pytest
import torch

from inference.preprocess.crop import PAD_HU
from inference.training.augmentation import HU_GAIN, HU_OFFSET, augment

SIZE = 64


def batch(count: int = 32, *, value: float = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images with a bright bar left of the middle, and masks of the same bar."""
    masks = torch.zeros(count, 1, SIZE, SIZE)
    masks[:, :, 24:40, 14:26] = 1
    return torch.where(masks > 0, value, 0.0), masks


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre(mask: torch.Tensor) -> torch.Tensor:
    return (mask[0] > 0.5).nonzero().float().mean(0)


def test_the_same_generator_gives_the_same_images_and_another_gives_others():
    first, again, other = (augment(*batch(), seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_image_moves_with_its_mask():
    moved, masks = augment(*batch(), seeded())
    for image, mask in zip(moved, masks, strict=True):
        bright = image > 500
        assert (bright != (mask > 0.5)).float().mean() < 0.02


def test_neighbouring_slices_and_several_masks_of_one_image_move_alike():
    hu, masks = batch(8)
    moved, both = augment(hu.expand(-1, 3, -1, -1), masks.expand(-1, 2, -1, -1), seeded())
    assert moved.shape == (8, 3, SIZE, SIZE)
    assert torch.equal(both[:, 0], both[:, 1])
    bright = moved > 500
    assert (bright != (both[:, :1] > 0.5)).float().mean() < 0.02


def test_each_image_moves_by_itself():
    _, masks = augment(*batch(), seeded())
    assert len({tuple(centre(mask).tolist()) for mask in masks}) > 20


def test_about_half_of_the_images_are_mirrored():
    _, masks = augment(*batch(200), seeded())
    left = sum(bool(centre(mask)[1] < SIZE / 2) for mask in masks)
    assert 70 < left < 130


def test_nothing_is_turned_upside_down_or_moved_out_of_the_middle():
    _, masks = augment(*batch(200), seeded())
    rows = torch.stack([centre(mask)[0] for mask in masks])
    assert (rows - 31.5).abs().max() < 8


def test_masks_stay_between_0_and_1():
    _, masks = augment(*batch(), seeded())
    assert masks.min() >= 0
    assert masks.max() <= 1
    sizes = masks.sum((1, 2, 3)) / batch()[1].sum((1, 2, 3))
    assert sizes.min() > 0.6  # seen from 1.2 times as far
    assert sizes.max() < 1.5


def test_what_comes_in_from_outside_is_black():
    hu = torch.zeros(64, 1, SIZE, SIZE)
    moved, _ = augment(hu, torch.zeros_like(hu), seeded())
    lowest = moved.amin((1, 2, 3))
    assert (lowest < PAD_HU * (1 - HU_GAIN) + HU_OFFSET).any()  # some image shows a black corner
    assert moved[:, :, 24:40, 24:40].mean((1, 2, 3)).abs().max() < HU_OFFSET + 8  # and none a black middle


def test_brightness_changes_within_its_limits():
    hu = torch.full((100, 1, SIZE, SIZE), 1000.0)
    moved, _ = augment(hu, torch.zeros_like(hu), seeded())
    middle = moved[:, :, 24:40, 24:40].mean((1, 2, 3))
    assert middle.max() < 1000 * (1 + HU_GAIN) + HU_OFFSET + 8
    assert middle.min() > 1000 * (1 - HU_GAIN) - HU_OFFSET - 8
    assert middle.std() > 10


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_stored_integers_are_accepted_and_the_originals_are_left_alone(dtype):
    hu, masks = batch(2)
    hu = hu.to(dtype)
    before = hu.clone(), masks.clone()
    moved, _ = augment(hu, masks.bool(), seeded())
    assert moved.dtype == torch.float32
    assert torch.equal(hu, before[0])
    assert torch.equal(masks, before[1])
