"""The classifiers of paper 001: published topologies at full width, one answer per image, every weight learns."""

import pytest
import torch
import torchvision

from inference.nets.slice_classifiers import CLASSIFIERS, PUBLISHED, Widths

SLIM = Widths(cnn=(24, 48, 96, 128), resnet=16, vgg=8, densenet=8, inception=0.25, repeats=(5, 10, 5))
TINY = Widths(cnn=(4, 8), resnet=2, vgg=2, densenet=2, inception=1 / 16, repeats=(1, 1, 1))


def weights(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "published", "head"),
    [
        ("ResNet-50", torchvision.models.resnet50, 2048 * 1000),
        ("DenseNet-121", torchvision.models.densenet121, 1024 * 1000),
    ],
)
def test_at_the_published_width_only_the_last_layer_differs_from_the_published_network(name, published, head):
    with torch.device("meta"):
        net = CLASSIFIERS[name](PUBLISHED, 0.0)
        assert weights(net) - weights(net.head) == weights(published()) - head - 1000


def test_the_convolutions_of_vgg_at_the_published_width_are_the_published_ones():
    with torch.device("meta"):
        net = CLASSIFIERS["VGG-16"](PUBLISHED, 0.0)
        assert weights(net.features[0]) == weights(torchvision.models.vgg16_bn().features)
    hidden = [layer.out_features for layer in net.features if isinstance(layer, torch.nn.Linear)]
    assert hidden == [4096, 4096]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_slim_networks_have_at_most_about_two_million_weights(name):
    with torch.device("meta"):
        count = weights(CLASSIFIERS[name](SLIM, 0.0))
    assert 0.38e6 < count < 2.1e6
    if name == "custom CNN":
        assert count == pytest.approx(0.42e6, rel=0.02)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_answer_has_seven_vertebrae_and_a_fracture_and_depends_on_its_image_alone(name):
    torch.manual_seed(0)
    net = CLASSIFIERS[name](TINY, 0.5).eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        every, last = net(images), net(images[2:])
    assert every.vertebra.shape == (3, 7)
    assert every.fracture.shape == (3,)
    torch.testing.assert_close(every.vertebra[2:], last.vertebra, rtol=1e-4, atol=1e-5)
    assert every.fracture.std() > 0


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_weight_learns(name):
    torch.manual_seed(0)
    net = CLASSIFIERS[name](TINY, 0.0).train()
    answer = net(torch.rand(4, 3, 64, 64))
    (answer.vertebra.square().mean() + answer.fracture.square().mean()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    net = CLASSIFIERS["custom CNN"](TINY, 0.5)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert not torch.equal(net.train()(images).vertebra, net(images).vertebra)
        assert torch.equal(net.eval()(images).vertebra, net(images).vertebra)
