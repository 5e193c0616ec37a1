"""Grad-CAM against its definition: the weights are mean gradients, the map is where they add up above zero."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from inference.explain import grad_cam
from inference.nets.resnet import ResNet


class TwoChannels(nn.Module):
    """Means of the two image channels; output k adds them with the weights of row k."""

    def __init__(self, *rows: tuple[float, float]) -> None:
        super().__init__()
        self.maps = nn.Conv2d(2, 2, 1, bias=False)
        self.maps.weight.data = torch.eye(2)[..., None, None]
        self.fc = nn.Linear(2, len(rows), bias=False)
        self.fc.weight.data = torch.tensor(rows)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.maps(images).mean((2, 3)))


def spots() -> torch.Tensor:
    """Return one image of 4 x 6 with a spot in each channel at another place."""
    image = torch.zeros(1, 2, 4, 6)
    image[0, 0, 1, 2] = 3
    image[0, 1, 3, 5] = 2
    return image


def test_the_map_is_the_weighted_sum_of_the_channels_without_what_speaks_against():
    found = grad_cam(net := TwoChannels((1.0, -1.0)), net.maps, spots())
    expected = torch.zeros(1, 4, 6)
    expected[0, 1, 2] = 3 / 24  # the gradient of a mean over 24 places
    torch.testing.assert_close(found, expected)


def test_each_output_has_its_own_map():
    net = TwoChannels((1.0, -1.0), (-1.0, 1.0))
    found = grad_cam(net, net.maps, spots(), output=1)
    assert found[0].nonzero().tolist() == [[3, 5]]


def test_nothing_that_speaks_for_the_output_gives_an_empty_map():
    net = TwoChannels((-1.0, -1.0))
    assert grad_cam(net, net.maps, spots()).sum() == 0


def test_the_map_of_a_resnet_is_gradient_times_activation_by_hand():
    torch.manual_seed(0)
    net, images = ResNet(width=2).eval(), torch.rand(3, 3, 64, 96)
    maps = net.layer4(net.middle(images)).detach().requires_grad_()
    net.fc(net.avgpool(maps).flatten(1))[:, 0].sum().backward()
    expected = relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1))
    found = grad_cam(net, net.layer4, images)
    assert found.shape == (3, 2, 3)
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("count", [1, 16, 17])
def test_a_map_does_not_depend_on_the_other_images_of_the_call(count):
    net = TwoChannels((1.0, 0.5))
    images = torch.rand(count, 2, 4, 6, generator=torch.Generator().manual_seed(2))
    found = grad_cam(net, net.maps, images)
    assert found.shape == (count, 4, 6)
    torch.testing.assert_close(found[-1:], grad_cam(net, net.maps, images[-1:]))


def test_explaining_changes_neither_network_nor_images():
    net = ResNet(width=2).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images = torch.rand(2, 3, 32, 32)
    original = images.clone()
    grad_cam(net, net.layer4, images)
    assert not net.training  # batch statistics of the explained image must not count
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(images, original)
    assert not images.requires_grad
