"""One vertebra as images: centred, in the right order, with its neighbours and its outline, at any edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.preprocess.crop import PAD_HU
from inference.preprocess.vertebra_crop import CHANNELS, SLICES, cut, network_input

SPACING = (1.0, 0.5, 0.5)


def volume() -> np.ndarray:
    """HU that tell the slice: 10 times its number, with a bright bar in front of every vertebra."""
    array = np.zeros((40, 80, 90), np.int16) + (np.arange(40, dtype=np.int16) * 10)[:, None, None]
    array[:, 20:24, 30:60] = 2000
    return array


def test_slices_run_evenly_from_the_lowest_to_the_highest_with_their_neighbours():
    box = (slice(5, 34), slice(20, 50), slice(30, 60))
    hu, outline = cut(np.where(volume() == 2000, 0, volume()), box, np.ones((29, 30, 30), bool), SPACING, 32)
    assert hu.shape == (SLICES, 5, 32, 32)
    assert outline.shape == (SLICES, 32, 32)
    middle = hu[:, 2, 24, 16] / 10
    np.testing.assert_allclose(middle, np.linspace(5, 33, SLICES), atol=0.51)
    np.testing.assert_allclose(
        hu[:, :, 24, 16] / 10 - middle[:, None], np.tile([-2, -1, 0, 1, 2], (SLICES, 1)), atol=1e-4
    )


def test_the_outline_is_in_the_middle_with_a_margin():
    box = (slice(5, 34), slice(20, 50), slice(30, 60))
    _, outline = cut(volume(), box, np.ones((29, 30, 30), bool), SPACING, 39)
    shown = outline > 0.5
    rows, columns = torch.nonzero(shown[7].any(1))[:, 0], torch.nonzero(shown[7].any(0))[:, 0]
    for place in (rows, columns):
        assert abs(int(place[0]) - 4.5) <= 1.5
        assert abs(38 - int(place[-1]) - 4.5) <= 1.5


def test_a_pixel_is_square_in_mm_even_if_the_spacing_is_not():
    box = (slice(5, 30), slice(10, 30), slice(30, 70))  # 20 mm each
    _, outline = cut(volume(), box, np.ones((25, 20, 40), bool), (1.0, 1.0, 0.5), 52)
    shown = outline[7] > 0.5
    assert abs(int(shown.any(1).sum()) - int(shown.any(0).sum())) <= 1


@pytest.mark.parametrize(
    "box",
    [
        (slice(0, 3), slice(0, 30), slice(0, 30)),
        (slice(37, 40), slice(50, 80), slice(60, 90)),
        (slice(0, 40), slice(0, 80), slice(0, 90)),
        (slice(7, 8), slice(4, 5), slice(4, 5)),
    ],
)
def test_a_vertebra_at_an_edge_of_the_volume_is_cut_with_black_around(box):
    inside = np.ones([side.stop - side.start for side in box], bool)
    hu, outline = cut(volume(), box, inside, SPACING, 24)
    assert torch.isfinite(hu).all()
    assert hu.min() >= PAD_HU - 0.01
    assert outline[7, 12, 12] > 0.9


def test_planes_beyond_the_ends_repeat_the_last_slice():
    box = (slice(38, 40), slice(30, 60), slice(30, 60))
    hu, _ = cut(volume(), box, np.ones((2, 30, 30), bool), SPACING, 16)
    assert hu[-1, :, 12, 8].tolist() == pytest.approx([370, 380, 390, 390, 390])


def test_network_input_is_windowed_with_the_outline_last():
    hu, outline = torch.full((2, 5, 4, 4), -1000.0), torch.ones(2, 4, 4)
    hu[0] = 5000
    images = network_input(hu, outline)
    assert images.shape == (2, CHANNELS, 4, 4)
    assert images[0].unique().tolist() == [1.0]
    assert images[1, :5].unique().tolist() == [0.0]
    assert images[1, 5].unique().tolist() == [1.0]
