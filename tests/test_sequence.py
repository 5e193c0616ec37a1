"""The sequence network: padding has no say, order has, both directions are read."""

import pytest
import torch

from inference.nets.cervical_fracture import FractureNets, features
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence


def net(*, size: int = 6, units: int = 5) -> SliceSequence:
    torch.manual_seed(0)
    return SliceSequence(features=size, units=units).eval()


def cases(*lengths: int, size: int = 6, padding: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random features padded to the longest case, and the lengths; the same case for the same position."""
    longest = max(lengths)
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(len(lengths), 40, size, generator=generator)[:, :longest].clone()
    for row, length in enumerate(lengths):
        values[row, length:] = padding
    return values, torch.tensor(lengths)


def test_there_is_one_logit_per_slice_and_one_per_case():
    slices, case = net()(*cases(7, 4))
    assert slices.shape == (2, 7)
    assert case.shape == (2,)


@pytest.mark.parametrize("padding", [0.0, 100.0])
def test_padding_has_no_influence(padding):
    model = net()
    features, lengths = cases(4, 9, 1, padding=padding)
    slices, case = model(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone_slices, alone_case = model(features[row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(slices[row, :length], alone_slices[0])
        torch.testing.assert_close(case[row], alone_case[0])


def test_a_slice_hears_of_slices_on_both_sides():
    model = net()
    features, lengths = cases(9)
    before, _ = model(features, lengths)
    features[0, 4] += 5 * torch.randn(6, generator=torch.Generator().manual_seed(1))
    after, _ = model(features, lengths)
    changed = (after - before).abs()[0] > 1e-7
    assert changed.all()


def test_the_order_of_slices_matters():
    model = net()
    features, lengths = cases(9)
    _, case = model(features, lengths)
    _, reverse = model(features.flip(1), lengths)
    assert not torch.allclose(case, reverse)


def test_sizes_follow_the_paper():
    model = SliceSequence()
    assert (model.lstm.input_size, model.lstm.hidden_size, model.lstm.num_layers) == (2048, 128, 1)
    assert model.lstm.bidirectional


def test_a_case_without_slices_is_refused():
    with pytest.raises(RuntimeError, match="greater than 0"):
        net()(torch.zeros(1, 3, 6), torch.tensor([0]))


def test_a_case_is_scored_as_acquired_and_mirrored():
    nets = FractureNets(ResNet(width=2).eval(), SliceSequence(features=64, units=4).train())
    hu = torch.randint(-500, 1500, (6, 32, 32)).float()
    scores, mirrored = nets.score(hu), nets.score(hu.flip(-1))
    assert scores.slices.shape == (2, 6)
    assert scores.case.shape == (2,)
    torch.testing.assert_close(scores.case, mirrored.case.flip(0))
    torch.testing.assert_close(scores.slices, mirrored.slices.flip(0))


def test_scores_from_features_are_the_scores_from_images():
    nets = FractureNets(ResNet(width=2).eval(), SliceSequence(features=64, units=4).eval())
    hu = torch.randint(-500, 1500, (5, 32, 32)).float()
    views = [features(nets.slices, hu), features(nets.slices, hu, flip=True)]
    assert torch.equal(nets.score(hu).case, nets.score_features(views).case)
