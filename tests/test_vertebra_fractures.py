"""What the network for single vertebrae learns from: its own fractures, balanced; and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.datasets.labelled import CERVICAL, UnusableData
from inference.nets.resnet import ResNet
from inference.nets.vertebra_fracture import VertebraFracture
from inference.preprocess.vertebra_crop import CHANNELS, NEIGHBOURS, SLICES
from inference.training.vertebra_fractures import LevelSettings, Vertebrae, auc, balanced, begin, outlined, train
from tests.blocks import write_neck
from tests.cases import silent, write_case

SETTINGS = LevelSettings(
    size=32,
    width=2,
    units=4,
    epochs=2,
    batch=4,
    learning_rate=1e-3,
    warmup_epochs=0.5,
    dropout=0.1,
    patience=2,
    seed=3,
)


@pytest.fixture(scope="module")
def necks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("necks")
    return [write_neck(folder, number, broken=["C4", "C6"][: number % 3]) for number in range(4)]


def test_every_outlined_cervical_vertebra_has_its_label(necks):
    found = outlined(necks)
    assert [one.level for one in found] == [*CERVICAL] * 4
    assert [(one.case.name[-1], one.level) for one in found if one.fractured] == [("1", "C4"), ("2", "C4"), ("2", "C6")]
    assert all(one.inside().all() for one in found)


def test_slices_show_the_fractures_of_their_own_vertebra_alone(necks):
    by_level = {one.level: one for one in outlined(necks) if one.case is necks[2]}
    assert by_level["C4"].shown().tolist() == [1.0] * SLICES  # the slab goes from top to bottom
    assert not by_level["C5"].shown().any()


def test_slices_of_a_fractured_vertebra_without_marks_are_not_known(necks):
    (necks[1].folder / "fractures.npy").rename(necks[1].folder / "kept.npy")
    one = next(one for one in outlined(necks) if one.fractured and one.case is necks[1])
    shown = one.shown()
    (necks[1].folder / "kept.npy").rename(necks[1].folder / "fractures.npy")
    assert shown.tolist() == [-1.0] * SLICES


def test_as_many_intact_vertebrae_as_fractured_ones_half_of_them_from_fractured_cases(necks):
    found = outlined(necks)
    chosen = balanced(found, np.random.default_rng(0))
    intact = [one for one in chosen if not one.fractured]
    assert len(chosen) - len(intact) == 3
    assert [sum(one.case.fractured is kind for one in intact) for kind in (True, False)] == [2, 2]
    assert [one.level for one in chosen] != [one.level for one in balanced(found, np.random.default_rng(1))]


def test_data_without_both_kinds_are_refused(necks, tmp_path):
    with pytest.raises(UnusableData, match="labelled as fractured"):
        outlined(necks[:1])
    with pytest.raises(UnusableData, match="no vertebra of the 1 cases is outlined"):
        outlined([write_case(tmp_path, 7, fractured=True)])


def test_an_item_has_the_shape_that_the_network_reads(necks):
    found = outlined(necks)
    hu, outline, labels = Vertebrae(found, 32)[3]
    assert (hu.shape, outline.shape, labels.shape) == ((15, 5, 32, 32), (15, 32, 32), (16,))
    slices, whole = VertebraFracture(width=2, units=4).eval()(torch.zeros(2, SLICES, CHANNELS, 32, 32))
    assert (slices.shape, whole.shape) == ((2, SLICES), (2,))


def trained() -> ResNet:
    """Return a network for slices of three windows, the same every time."""
    torch.manual_seed(7)
    return ResNet(width=2).eval()


def test_a_network_begins_as_the_one_for_slices_with_the_three_windows_as_one():
    one = trained()
    net = begin(SETTINGS, one).eval()
    images = torch.rand(2, CHANNELS, 32, 32)
    three = images[:, NEIGHBOURS, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(net.slices.features(images), one.features(three))


def test_a_network_of_another_width_is_no_beginning():
    with pytest.raises(ValueError, match="width 2: the pinned fracture model has another"):
        begin(SETTINGS, ResNet(width=3))


def test_training_goes_on_where_it_stopped_and_scores_what_it_keeps(necks, tmp_path):
    def interrupt(text: str) -> None:
        if "epoch 1/" in text:
            raise KeyboardInterrupt

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    net, stopped, again = (begin(SETTINGS, trained()) for _ in range(3))
    history = train(net, necks, necks, SETTINGS, folder=tmp_path / "a", progress=silent)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, necks, necks, SETTINGS, folder=tmp_path / "b", progress=interrupt)
    resumed = train(again, necks, necks, SETTINGS, folder=tmp_path / "b", progress=silent)
    assert history == resumed
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    judged = balanced(outlined(necks), np.random.default_rng(0))
    assert auc(net, judged, SETTINGS) == max(history["validation score"])
