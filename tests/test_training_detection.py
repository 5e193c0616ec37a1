"""Any detector learns by the same training: it ends in its best state, and an interruption changes nothing."""

import math
from dataclasses import replace

import pytest
import torch

from inference.training import detection, loop
from inference.training.detection import Averaging, DetectionData, DetectionSettings
from tests.cases import silent
from tests.squares import Squares, found

SETTINGS = DetectionSettings(
    detector="yolov3",
    arguments={"classes": 2, "width": 2, "neck": 8, "anchors": [[side, side] for side in range(10, 28, 2)]},
    augmentation="ppyolov2",
    mixup=0.5,
    scales=[0.5, 1.0],
    epochs=3,
    batch=2,
    learning_rate=0.01,
    weight_decay=5e-4,
    warmup_epochs=1,
    drop_epochs=[2],
    clip_norm=35.0,
    average=0.9,
    patience=3,
    seed=5,
)


class Interrupted(Exception):
    """What a test raises where a machine would be switched off."""


def data(**changes):
    values = {
        "training": Squares(4),
        "validation": Squares(4, seed=1),
        "score": found,
        "made_with": {"data": "squares"},
    }
    return DetectionData(**values | changes)


def trained(folder, *, settings=SETTINGS, progress=silent, **changes):
    folder.mkdir(exist_ok=True)
    net = detection.untrained(settings)
    return detection.train(net, data(**changes), settings, folder=folder, device=torch.device("cpu"), progress=progress)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    whole, history = trained(tmp_path / "whole")

    def stop(text: str) -> None:
        if text.startswith("epoch 2/"):
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(tmp_path / "cut", progress=stop)
    said: list[str] = []
    again, same = trained(tmp_path / "cut", progress=said.append)
    assert said[0].startswith("going on after epoch 2")
    assert same == history
    assert equal(whole, again)
    assert not again.training
    assert set(history) == {"centre loss", "size loss", "class loss", "objectness loss", "validation score"}


def test_a_checkpoint_of_other_data_is_not_used(tmp_path):
    settings = replace(SETTINGS, epochs=1)
    trained(tmp_path, settings=settings)
    said: list[str] = []
    trained(tmp_path, settings=settings, progress=said.append, made_with={"data": "others"})
    assert said[0].endswith("is of a training with other data or settings: starting anew")


def test_the_score_is_asked_of_all_answers_with_all_truths_and_decides(tmp_path):
    asked, scores = [], iter([0.2, 0.9, 0.1])

    def score(answers, truths):
        asked.append((len(answers), [len(one["labels"]) for one in truths]))
        return next(scores)

    _, history = trained(tmp_path, score=score)
    assert asked == [(4, [0, 2, 2, 2])] * 3
    assert history["validation score"] == [0.2, 0.9, 0.1]
    state = torch.load(tmp_path / "detector.checkpoint", weights_only=True)
    assert (state["best_epoch"], state["epoch"]) == (2, 3)


def test_frozen_weights_stay(tmp_path):
    net = detection.untrained(SETTINGS)
    net.backbone.requires_grad_(False)
    before = {name: value.clone() for name, value in net.named_parameters()}
    best, _ = detection.train(
        net, data(), replace(SETTINGS, epochs=1), folder=tmp_path, device=torch.device("cpu"), progress=silent
    )
    same = {name for name, value in best.named_parameters() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith("backbone.")}


def test_the_average_follows_slowly_but_forgets_the_start():
    net = torch.nn.Linear(1, 1, bias=False)
    both = Averaging(net, 0.5)
    values = [1.0, 2.0, 3.0, 4.0]
    for value in values:
        net.weight.data.fill_(value)
        both.update()
    expected = values[0]
    for step, value in enumerate(values[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert both.average.module.weight.item() == pytest.approx(expected)


def test_without_an_average_the_weights_themselves_answer():
    net = torch.nn.BatchNorm1d(2)
    both = Averaging(net, 0.0)
    for _ in range(3):
        net(torch.rand(4, 2))
        net.weight.data.add_(0.3)
        both.update()
    assert equal(net, both.average.module)


def test_only_filters_get_smaller_by_weight_decay():
    groups = detection._groups(detection.untrained(SETTINGS), 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert {one.ndim for one in groups[0]["params"]} == {4}
    assert {one.ndim for one in groups[1]["params"]} == {1}


def test_the_rate_rises_and_falls_to_a_tenth_at_each_drop():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = loop.falling(optimizer, drops=[5, 8], warmup=3)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("clip", "step"), [(math.inf, 30), (3.0, 3)])
def test_a_long_gradient_is_shortened(clip, step):
    weight = torch.nn.Parameter(torch.zeros(1))
    module = torch.nn.Module()
    module.weight = weight
    optimizer = torch.optim.SGD([weight], lr=1.0)
    learner = loop.Learner(
        module=module, optimizer=optimizer, schedule=loop.falling(optimizer, drops=[], warmup=0), rng=None,
        generator=torch.Generator(), epochs=1, patience=1,
    )  # fmt: skip
    loop.step(learner, {"loss": -30 * weight.sum()}, clip_norm=clip)
    assert weight.item() == pytest.approx(step, rel=1e-4)
