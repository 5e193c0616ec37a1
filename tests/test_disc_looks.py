"""The second look at discs: where it looks, what becomes of a score, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import disc_looks
from inference.datasets import mr_store
from inference.datasets.labelled import UnusableData
from inference.nets.resnet import ResNet
from inference.spine_mr import Answer
from inference.training import disc_looks as training
from inference.training.disc_looks import Discs, LookSettings
from tests.cases import silent
from tests.mr_studies import study, write

CLASSES = ("disc", "herniation", "slip")
SETTINGS = LookSettings(
    width=4, epochs=20, batch=8, normal=4, learning_rate=3e-3, weight_decay=1e-2, warmup_epochs=0.5, seed=1
)


class Brightness(torch.nn.Module):
    """Says herniation of bright crops, and disc of dark ones."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images[:, 1, 31:33, 31:33].mean((1, 2)) > 0.5
        return torch.stack([~bright, bright, bright & False], 1) * 20.0


def answer(*boxes: tuple[float, ...], labels: tuple[str, ...], scores: tuple[float, ...]) -> Answer:
    return Answer(edges=np.array(boxes, float).reshape(-1, 4), labels=np.array(labels, str), scores=np.array(scores))


def test_a_crop_shows_its_box_in_the_middle_at_one_scale():
    shown = disc_looks.windows(np.array([[40.0, 20.0, 60.0, 28.0]]), (0.75, 1.5))
    np.testing.assert_allclose(shown, [[50 - 16, 24 - 32, 50 + 16, 24 + 32]])


def test_crops_are_pixels_of_the_slice_and_of_its_neighbours():
    values = (np.arange(3)[:, None, None] * 100 + np.arange(80)[:, None] + np.zeros(80)).astype(np.int16)
    seen = disc_looks.crops(values, np.array([1, 0]), np.array([[8.0, 4, 72, 68], [8, 4, 72, 68]]))
    assert seen.shape == (2, 3, 64, 64)
    np.testing.assert_allclose(seen[0, 1, :, 5].numpy() * 1000, 100 + np.arange(4, 68), atol=1e-3)
    np.testing.assert_allclose(seen[0, 2] - seen[0, 1], 0.1, atol=1e-5)
    assert torch.equal(seen[1, 0], seen[1, 1])  # nothing is beyond the first slice


def test_each_place_has_every_class_by_what_the_second_look_says():
    values = np.zeros((2, 96, 96), np.float32)
    values[0, 30:50, 30:50] = 900
    found = [
        answer(
            *[(36, 36, 44, 44), (35, 36, 44, 44), (70, 70, 90, 90), (5, 5, 9, 9)],
            labels=("disc", "slip", "disc", "disc"),
            scores=(0.8, 0.7, 0.5, 0.01),
        ),
        answer(labels=(), scores=()),
    ]
    bright, empty = disc_looks.look_again(Brightness(), values, (1.0, 1.0), found, CLASSES)
    assert list(zip(bright.labels[:2], bright.scores[:2].round(3), strict=True)) == [("herniation", 0.8), ("disc", 0.5)]
    np.testing.assert_array_equal(bright.edges[:2], [(36, 36, 44, 44), (70, 70, 90, 90)])
    assert len(bright.scores) == 2 * len(CLASSES)
    assert bright.scores.sum() == pytest.approx(1.3)
    assert (np.diff(bright.scores) <= 0).all()
    assert len(empty.scores) == 0


def test_without_a_second_look_or_without_a_box_answers_stay_as_they_are():
    found = [answer((1, 2, 3, 4), labels=("slip",), scores=(0.4,)), answer(labels=(), scores=())]
    values = np.zeros((2, 32, 32), np.float32)
    assert disc_looks.look_again(None, values, (1.0, 1.0), found, CLASSES) is found
    (nothing,) = disc_looks.look_again(Brightness(), values[:1], (1.0, 1.0), found[1:], CLASSES)
    assert len(nothing.scores) == 0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Discs]:
    """Series with boxes whose brightness tells their class."""
    folder = tmp_path_factory.mktemp("looks")
    for number in range(8):
        write(folder, study("lumbar", number, labels=CLASSES))
    return training.discs(mr_store.prepare_mr("phantom_mr:lumbar:standard@0+8", cache=folder, progress=silent), CLASSES)


def learn(series: list[Discs], folder: Path, progress=silent) -> tuple[ResNet, dict[str, list[float]]]:
    folder.mkdir(exist_ok=True)
    cpu = torch.device("cpu")
    return training.train(series[:5], series[5:], CLASSES, SETTINGS, folder=folder, device=cpu, progress=progress)


def test_it_learns_and_goes_on_where_it_stopped(drawn, tmp_path):
    def interrupt(text: str) -> None:
        if "epoch 2/" in text:
            raise KeyboardInterrupt

    net, history = learn(drawn, tmp_path / "a")
    assert history["class loss"][-1] < history["class loss"][0]
    assert max(history["validation score"]) > 0.7
    with pytest.raises(KeyboardInterrupt):
        learn(drawn, tmp_path / "b", interrupt)
    again, resumed = learn(drawn, tmp_path / "b")
    assert resumed == history
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_validation_without_a_class_is_refused(drawn, tmp_path):
    normal = [replace(one, labels=np.zeros_like(one.labels)) for one in drawn]
    with pytest.raises(UnusableData, match="do not show all of disc, herniation, slip"):
        learn([*drawn[:5], *normal[5:]], tmp_path)
