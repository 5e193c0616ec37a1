"""The slice network is torchvision's ResNet-50, at any width."""

import pytest
import torch
from torchvision.models import resnet50

from inference.nets.cervical_fracture import features, images
from inference.nets.resnet import ResNet


def with_statistics(net: torch.nn.Module) -> torch.nn.Module:
    """Return the net in eval mode with batch statistics that are not the neutral 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def test_at_width_64_it_is_torchvisions_resnet50_in_names_size_and_answer():
    torch.manual_seed(0)
    theirs, ours = with_statistics(resnet50(weights=None)), ResNet().eval()
    ours.fc = torch.nn.Linear(ours.fc.in_features, 1000)  # theirs tells as many classes apart
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == 25_557_032  # as published
    ours.load_state_dict(theirs.state_dict(), strict=True)
    batch = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(batch), theirs(batch))


@pytest.mark.parametrize("width", [2, 4, 16])
def test_a_narrow_net_has_the_same_layers_and_features_of_32_times_its_width(width):
    net = ResNet(width=width).eval()
    assert list(net.state_dict()) == list(resnet50(weights=None, num_classes=1).state_dict())
    with torch.inference_mode():
        assert net.features(torch.rand(1, 3, 64, 64)).shape == (1, 32 * width)
        assert net.middle(torch.rand(1, 3, 64, 96)).shape == (1, 16 * width, 4, 6)
        assert net(torch.rand(5, 3, 64, 64)).shape == (5, 1)


def test_its_parts_in_a_row_are_the_whole():
    net, batch = ResNet(width=2, channels=2).eval(), torch.rand(2, 2, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net.classify(net.pooled(net.middle(batch))), net(batch))


def test_dropout_acts_while_training_only():
    net = ResNet(width=2, dropout=0.5)
    vector = torch.ones(1, 64)
    with torch.inference_mode():
        assert not torch.equal(net.train().classify(vector), net.train().classify(vector))
        assert torch.equal(net.eval().classify(vector), net.eval().classify(vector))


def test_features_of_a_case_do_not_depend_on_the_batches_it_is_cut_into():
    net = ResNet(width=2).train()  # features() has to leave training mode by itself
    hu = torch.randint(-1000, 2000, (35, 32, 32)).float()
    together = features(net, hu)
    one_by_one = torch.cat([features(net, hu[i : i + 1]) for i in (0, 31, 32, 34)])
    torch.testing.assert_close(together[[0, 31, 32, 34]], one_by_one, atol=1e-5, rtol=1e-4)


def test_the_mirrored_view_is_the_view_of_the_mirrored_image():
    net = ResNet(width=2).eval()
    hu = torch.randint(-1000, 2000, (2, 32, 48)).float()
    assert torch.equal(features(net, hu, flip=True), features(net, hu.flip(-1)))
    assert not torch.equal(features(net, hu, flip=True), features(net, hu))


def test_images_are_three_windows_in_the_layout_the_net_wants():
    batch = images(torch.zeros(4, 32, 32))
    assert batch.shape == (4, 3, 32, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
