"""The U-Net of paper 001: the published encoder at full width, every resolution, one code path for both sizes."""

from __future__ import annotations

import pytest
import torch

from inference.nets.inception_resnet_v2 import Encoder
from inference.nets.unet import VertebraUNet

#: Without its classifier of 1,000 classes: 55,843,464 weights as published, less 1536 x 1000 + 1000.
PUBLISHED = 55_843_464 - 1_537_000


def weights(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_encoder_at_width_1_has_as_many_weights_as_the_published_network():
    assert weights(Encoder()) == PUBLISHED


def test_the_maps_halve_at_each_step():
    encoder = Encoder(width=1 / 16, repeats=(1, 1, 1)).eval()
    with torch.inference_mode():
        maps = encoder(torch.zeros(2, 3, 64, 96))
    assert [tuple(one.shape[2:]) for one in maps] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert tuple(one.shape[1] for one in maps) == encoder.channels == (4, 12, 20, 68, 96)


@pytest.mark.parametrize(("width", "repeats", "below"), [(1.0, (10, 20, 10), 63e6), (0.25, (5, 10, 5), 2.6e6)])
def test_full_and_compact_size_come_from_one_code_path(width, repeats, below):
    with torch.device("meta"):
        assert 0.95 * below < weights(VertebraUNet(width=width, repeats=repeats)) < below


def test_every_output_has_the_size_of_the_image_and_depends_on_the_image_alone():
    torch.manual_seed(0)
    net = VertebraUNet(levels=8, width=1 / 16, repeats=(1, 1, 1)).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        both, one = net(images), net(images[1:])
    assert both.vertebrae.shape == (2, 9, 64, 96)
    assert both.fracture.shape == (2, 64, 96)
    assert both.shown.shape == (2, 8)
    torch.testing.assert_close(both.vertebrae[1:], one.vertebrae, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.shown[1:], one.shown, rtol=1e-4, atol=1e-5)


def test_every_weight_learns():
    torch.manual_seed(0)
    net = VertebraUNet(levels=2, width=1 / 16, repeats=(2, 2, 2)).train()
    maps = net(torch.randn(2, 3, 64, 64))
    (maps.vertebrae.square().mean() + maps.fracture.square().mean() + maps.shown.square().mean()).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]
