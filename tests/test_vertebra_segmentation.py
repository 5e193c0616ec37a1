"""What the U-Net learns from: sagittal slices with labels that move with them; and that it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.datasets import isotropic
from inference.datasets.isotropic import Isotropic
from inference.datasets.labelled import UnusableData
from inference.nets.unet import Maps
from inference.preprocess.crop import PAD_HU
from inference.preprocess.sagittal import LEVELS, images
from inference.training.vertebra_segmentation import (
    Sagittal,
    SegmentationSettings,
    changed,
    losses,
    mean_dice,
    section,
    train,
)
from tests.blocks import Painter, write_neck
from tests.cases import silent, write_case

SETTINGS = SegmentationSettings(
    mm=3.0,
    size=64,
    width=1 / 16,
    repeats=(1, 1, 1),
    epochs=2,
    slices_per_case=4,
    batch=4,
    learning_rate=1e-3,
    warmup_epochs=0.5,
    patience=2,
    seed=3,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("necks")
    cases = [write_neck(folder, number, broken=["C4"][: number % 2]) for number in range(3)]
    return isotropic.prepare(cases, 3.0, silent)


def test_a_case_is_resampled_once_and_kept(files, tmp_path):
    case = isotropic.read(files[1])
    assert case.hu.shape == case.vertebrae.shape == case.fractures.shape == (47, 20, 20)
    assert set(np.unique(case.vertebrae)) == set(range(9))
    assert 4 in case.vertebrae[case.fractures]
    assert set(np.unique(case.vertebrae[case.fractures])) <= {0, 4}  # the slab reaches to the edge of the block
    before = files[1].stat().st_mtime_ns
    again = write_neck(tmp_path, 1)
    (path,) = isotropic.prepare([again], 3.0, silent)
    assert isotropic.prepare([again], 3.0, silent) == [path]
    assert files[1].stat().st_mtime_ns == before


def test_a_case_without_a_map_is_named(tmp_path):
    with pytest.raises(UnusableData, match="has no map of vertebrae"):
        isotropic.prepare([write_case(tmp_path, 1, fractured=False)], 3.0, silent)
    with pytest.raises(UnusableData, match="no case has a map"):
        isotropic.prepare([], 3.0, silent)


def test_a_section_has_the_labels_of_its_own_slice_and_mostly_shows_the_spine(files):
    case, rng = isotropic.read(files[1]), np.random.default_rng(0)
    drawn = [section(case, rng) for _ in range(40)]
    shown = [bool(labels[0].any()) for _, labels in drawn]
    assert 0.6 < np.mean(shown) < 1
    for hu, labels in drawn:
        assert hu.shape == (3, 47, 20)
        assert (hu[1][labels[0] > 0] > 100).float().mean() > 0.7 if labels[0].any() else True
        assert set(labels[1].unique().tolist()) <= {0.0, 1.0}


def test_vertebrae_below_t1_are_background_and_unknown_fractures_are_marked():
    levels = np.full((10, 10, 4), 9, np.uint8)
    hu = np.zeros(levels.shape, np.int16)
    _, labels = section(Isotropic(hu=hu, vertebrae=levels, fractures=None), np.random.default_rng(0))
    assert not labels[0].any()
    assert labels[1].unique().tolist() == [-1.0]


def test_neighbours_come_from_either_side_and_stop_at_the_edge():
    hu = torch.arange(10)[:, None, None].expand(10, 2, 2)
    assert images(hu, [0, 5, 9])[:, :, 0, 0].tolist() == [[0, 0, 2], [3, 5, 7], [7, 9, 9]]


def test_labels_move_with_the_image(files):
    case, rng = isotropic.read(files[0]), np.random.default_rng(1)
    for _ in range(20):
        hu, labels = changed(*section(case, rng), 64, rng)
        assert hu.shape == (3, 64, 64)
        bone = labels[0] > 0
        if bone.sum() > 50:
            assert hu[1][bone].mean() > 350
            assert hu[1][~bone].mean() < 50


def test_a_cut_end_is_air_without_labels():
    hu, labels = torch.full((3, 64, 64), 500.0), torch.ones(2, 64, 64)
    ends = [changed(hu, labels, 64, np.random.default_rng(seed)) for seed in range(40)]
    cut = [one for one in ends if not one[1][0, 20:44, 20:44].all(1).all()]
    assert 2 < len(cut) < 30
    for moved, marks in cut:
        lost = ~marks[0].bool().any(1)
        assert moved[:, lost].mean() < PAD_HU * 0.8


def test_the_same_item_is_the_same_in_every_process(files):
    a, b = (Sagittal(files, 64, 5)[2] for _ in range(2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], Sagittal(files, 64, 6)[2][0])


def test_losses_are_small_for_the_truth_and_large_for_anything_else():
    labels = torch.zeros(2, 2, 32, 32)
    labels[:, 0, 4:20, 4:20] = 3
    labels[:, 1, 4:8, 4:8] = 1
    right = torch.nn.functional.one_hot(labels[:, 0].long(), 9).permute(0, 3, 1, 2) * 20.0 - 10
    truth = Maps(right, labels[:, 1] * 20 - 10, torch.where(torch.arange(8) == 2, 10.0, -10.0).expand(2, 8))
    wrong = replace(truth, vertebrae=right.roll(1, 1), fracture=-truth.fracture, shown=-truth.shown)
    small, large = losses(truth, labels), losses(wrong, labels)
    for name, value in small.items():
        assert value < 0.01 if name != "overlap loss" else value < 0.9, name
        assert large[name] > value + 0.09, name


def test_pixels_whose_fracture_is_unknown_do_not_count():
    labels = torch.zeros(1, 2, 32, 32)
    labels[:, 1] = -1
    maps = Maps(torch.zeros(1, 9, 32, 32), torch.full((1, 32, 32), 9.0), torch.zeros(1, 8))
    assert losses(maps, labels)["fracture loss"] == 0


def test_dice_is_high_for_a_network_that_knows(files):
    class Whole(Sagittal):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return section(isotropic.read(self.paths[index]), np.random.default_rng(index))

    assert mean_dice(Painter(3.0), Whole(files, 64, 0), 1) > 0.75


def test_training_learns_and_goes_on_where_it_stopped(files, tmp_path):
    def interrupt(text: str) -> None:
        if "epoch 1/" in text:
            raise KeyboardInterrupt

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    cpu = torch.device("cpu")
    net, history = train(files[:2], files[2:], SETTINGS, folder=tmp_path / "a", device=cpu, progress=silent)
    with pytest.raises(KeyboardInterrupt):
        train(files[:2], files[2:], SETTINGS, folder=tmp_path / "b", device=cpu, progress=interrupt)
    again, resumed = train(files[:2], files[2:], SETTINGS, folder=tmp_path / "b", device=cpu, progress=silent)
    assert history == resumed
    assert history["level loss"][1] < history["level loss"][0]
    assert len(LEVELS) == net.shown.out_features
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
