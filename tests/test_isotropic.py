"""Cubic voxels and back: places and values survive the way there, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from inference.preprocess.isotropic import enlarge, resample, resample_labels, shape_at

SPACING = (2.0, 0.5, 0.75)
SHAPE = (30, 120, 80)  # 60 x 60 x 60 mm


def ball(centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    at = np.meshgrid(
        *((np.arange(n) + 0.5) * step for n, step in zip(SHAPE, SPACING, strict=True)), indexing="ij", sparse=True
    )
    return sum((axis - c) ** 2 for axis, c in zip(at, centre_mm, strict=True)) <= radius_mm**2


def centre_mm(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    return (np.array(ndimage.center_of_mass(mask)) + 0.5) * spacing


def test_the_extent_is_kept():
    assert shape_at(SHAPE, SPACING, 1.5) == (40, 40, 40)
    assert shape_at((1, 3, 3), (0.4, 0.4, 0.4), 1.5) == (1, 1, 1)


def test_a_constant_stays_what_it_is():
    np.testing.assert_allclose(resample(np.full(SHAPE, -712, np.int16), SPACING, 1.5), -712, atol=1e-3)


def test_a_gradient_along_each_axis_keeps_its_values_in_mm():
    for axis, (count, step) in enumerate(zip(SHAPE, SPACING, strict=True)):
        ramp = np.moveaxis(np.broadcast_to((np.arange(count) + 0.5) * step, np.roll(SHAPE, -axis - 1)), -1, axis)
        there = np.moveaxis(resample(np.ascontiguousarray(ramp), SPACING, 1.5), axis, 0)[2:-2]
        expected = (np.arange(40) + 0.5)[2:-2] * 1.5
        np.testing.assert_allclose(there, expected[:, None, None] * np.ones_like(there), atol=0.02)


def test_labels_keep_their_place_and_size():
    labels = np.zeros(SHAPE, np.uint8)
    labels[ball((20, 30, 30), 9)] = 3
    labels[ball((42, 30, 30), 9)] = 7
    there = resample_labels(labels, SPACING, 1.5)
    assert set(np.unique(there)) == {0, 3, 7}
    for value, place in ((3, (20, 30, 30)), (7, (42, 30, 30))):
        np.testing.assert_allclose(centre_mm(there == value, (1.5, 1.5, 1.5)), place, atol=0.4)
        assert (there == value).sum() * 1.5**3 == pytest.approx((labels == value).sum() * 0.75, rel=0.08)


@pytest.mark.parametrize("place", [(30, 30, 30), (4, 4, 4), (56, 55, 57)])
def test_the_way_back_gives_the_mask_again(place):
    mask = ball(place, 8)
    share = resample(mask.astype(np.float32), SPACING, 1.5)
    box, inside = enlarge(share, SHAPE)
    back = np.zeros(SHAPE, bool)
    back[box] = inside
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.94


def test_nothing_stays_nothing():
    _, inside = enlarge(np.zeros((4, 5, 6), np.float32), (8, 10, 12))
    assert not inside.any()
