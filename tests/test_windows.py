"""The windows of paper 003: where they begin, end, and that they are linear between."""

import pytest
import torch

from inference.preprocess.windows import CERVICAL_WINDOWS, GROSS_BONE, SOFT_TISSUE, STANDARD_BONE, Window, apply, stack


@pytest.mark.parametrize(
    ("window", "low", "high"),  # HU, by hand from (width; centre) of paper 003, section 2.1
    [(SOFT_TISSUE, -70, 230), (STANDARD_BONE, -400, 1400), (GROSS_BONE, 75, 725)],
)
def test_a_window_maps_its_ends_to_0_and_1_and_its_centre_to_a_half(window, low, high):
    values = apply(torch.tensor([low, (low + high) / 2, high]), window)
    assert values.tolist() == pytest.approx([0, 0.5, 1])


def test_a_window_is_linear_between_its_ends():
    assert apply(torch.tensor([10.0, 20.0, 30.0, 40.0]), Window(25, 40)).tolist() == pytest.approx(
        [0.125, 0.375, 0.625, 0.875]
    )


def test_everything_beyond_a_window_is_black_or_white():
    assert apply(torch.tensor([-3000.0, -1024.0, 1400.1, 32767.0]), STANDARD_BONE).tolist() == [0, 0, 1, 1]


def test_stored_int16_becomes_float32_without_overflow():
    values = apply(torch.tensor([-32768, 500, 32767], dtype=torch.int16), STANDARD_BONE)
    assert values.dtype == torch.float32
    assert values.tolist() == [0, 0.5, 1]


def test_channels_are_soft_tissue_standard_bone_gross_bone_in_the_order_of_the_paper():
    stacked = stack(torch.full((2, 3, 5), 230.0))
    assert stacked.shape == (2, 3, 3, 5)
    assert stacked[1, :, 2, 4].tolist() == pytest.approx([1, 630 / 1800, 155 / 650])


def test_each_channel_is_the_window_applied_to_every_slice():
    hu = torch.linspace(-1024, 3071, 2 * 4 * 4).reshape(2, 4, 4)
    for channel, window in enumerate(CERVICAL_WINDOWS):
        assert torch.equal(stack(hu)[:, channel], apply(hu, window))
