"""The loop of every training: it stops in time, keeps the best, and an interruption changes nothing."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from inference.training import loop
from inference.training.loop import Checkpoint, Learner
from tests.cases import silent

EPOCHS, STEPS = 6, 3


class Interrupted(Exception):
    """What a test raises where a machine would be switched off."""


@dataclass
class Toy:
    """A regression that draws from every source of chance that a real training draws from."""

    folder: Path
    epochs: int = EPOCHS
    patience: int = EPOCHS
    made_with: str = "these data"
    #: Validation scores to report instead of the measured ones.
    scores: Iterator[float] | None = None
    learner: Learner = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(7)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        self.learner = Learner(
            module=net,
            optimizer=optimizer,
            schedule=loop.cosine(optimizer, steps=STEPS * self.epochs, warmup=2),
            rng=np.random.default_rng(1),
            generator=torch.Generator().manual_seed(2),
            epochs=self.epochs,
            patience=self.patience,
        )

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(path=self.folder / "toy.checkpoint", made_with={"data": self.made_with})

    def epoch(self) -> dict[str, float]:
        self.learner.module.train()
        inputs = torch.linspace(-1, 1, 64).reshape(16, 4)
        parts = []
        for _ in range(STEPS):
            chosen = inputs[self.learner.rng.permutation(16)[:8]]
            noisy = chosen + 0.1 * torch.randn(chosen.shape, generator=self.learner.generator)
            parts.append(loop.step(self.learner, {"loss": mse_loss(self.learner.module(noisy)[:, 0], chosen.sum(1))}))
        return loop.mean(parts)

    def validate(self) -> dict[str, float]:
        if self.scores is not None:
            return {"score": next(self.scores)}
        self.learner.module.eval()
        with torch.inference_mode():
            inputs = torch.linspace(-1, 1, 64).reshape(16, 4)
            return {"score": -float(mse_loss(self.learner.module(inputs)[:, 0], inputs.sum(1)))}

    def fit(self, progress: Callable[[str], None] = silent) -> loop.History:
        return loop.fit(self.learner, self.epoch, self.validate, checkpoint=self.checkpoint, progress=progress)

    @property
    def weights(self) -> list[torch.Tensor]:
        return [tensor.clone() for tensor in self.learner.module.state_dict().values()]


def stop_after(epoch: int) -> Callable[[str], None]:
    def progress(text: str) -> None:
        if text.startswith(f"epoch {epoch}/"):
            raise Interrupted

    return progress


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def uninterrupted(folder: Path, **changes: object) -> tuple[list[torch.Tensor], loop.History]:
    folder.mkdir()
    toy = Toy(folder, **changes)  # type: ignore[arg-type]
    history = toy.fit()
    return toy.weights, history


@pytest.mark.parametrize("epochs", [[1], [EPOCHS - 1], [EPOCHS], [2, 3, 5]])
def test_an_interrupted_training_ends_as_if_there_had_been_no_interruption(epochs, tmp_path):
    weights, history = uninterrupted(tmp_path / "whole")
    for epoch in epochs:
        with pytest.raises(Interrupted):
            Toy(tmp_path).fit(stop_after(epoch))
    said: list[str] = []
    last = Toy(tmp_path)
    assert last.fit(said.append) == history
    assert equal(last.weights, weights)
    assert said[0] == f"going on after epoch {epochs[-1]} from {tmp_path / 'toy.checkpoint'}"
    assert len(said) == 1 + EPOCHS - epochs[-1]


def test_an_interruption_within_an_epoch_goes_back_to_its_start(tmp_path):
    weights, history = uninterrupted(tmp_path / "whole")
    toy = Toy(tmp_path)
    left = iter([1, 2, 3])

    def interrupted() -> dict[str, float]:
        numbers = toy.epoch()
        if next(left) == 3:
            raise Interrupted
        return numbers

    with pytest.raises(Interrupted):
        loop.fit(toy.learner, interrupted, toy.validate, checkpoint=toy.checkpoint, progress=silent)
    again = Toy(tmp_path)
    assert again.fit() == history
    assert equal(again.weights, weights)


def test_a_finished_training_is_taken_up_without_another_epoch(tmp_path):
    weights, history = uninterrupted(tmp_path / "whole", patience=2, scores=iter([3.0, 2.0, 1.0]))
    again = Toy(tmp_path / "whole", patience=2, scores=iter([]))
    assert again.fit() == history
    assert equal(again.weights, weights)
    assert not again.learner.module.training


def test_a_checkpoint_of_other_data_or_settings_is_not_used_and_this_is_said(tmp_path):
    weights, _ = uninterrupted(tmp_path / "whole", made_with="other data")
    with pytest.raises(Interrupted):
        Toy(tmp_path).fit(stop_after(3))
    said: list[str] = []
    other = Toy(tmp_path, made_with="other data")
    other.fit(said.append)
    assert said[0] == f"{tmp_path / 'toy.checkpoint'} is of a training with other data or settings: starting anew"
    assert len(said) == 1 + EPOCHS
    assert equal(other.weights, weights)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"no checkpoint",
        lambda whole: whole[:-1],
    ],
)
def test_a_damaged_checkpoint_is_said_and_the_training_starts_anew(damage, tmp_path):
    weights, history = uninterrupted(tmp_path / "whole")
    with pytest.raises(Interrupted):
        Toy(tmp_path).fit(stop_after(3))
    path = tmp_path / "toy.checkpoint"
    path.write_bytes(damage(path.read_bytes()))
    said: list[str] = []
    again = Toy(tmp_path)
    assert again.fit(said.append) == history
    assert said[0] == f"{path} is damaged: starting anew"
    assert equal(again.weights, weights)


def test_a_checkpoint_whose_writing_was_interrupted_leaves_the_one_before(tmp_path):
    with pytest.raises(Interrupted):
        Toy(tmp_path).fit(stop_after(2))
    path = tmp_path / "toy.checkpoint"
    (tmp_path / "toy.part").write_bytes(path.read_bytes()[:100])
    said: list[str] = []
    Toy(tmp_path).fit(said.append)
    assert said[0].startswith("going on after epoch 2")
    assert [file.name for file in tmp_path.iterdir()] == ["toy.checkpoint"]


def test_training_stops_when_nothing_gets_better_and_ends_in_the_best_epoch(tmp_path):
    toy, seen = Toy(tmp_path, patience=2, scores=iter([0.1, 0.3, 0.3, 0.2])), []

    def validate() -> dict[str, float]:
        seen.append(toy.weights)
        return toy.validate()

    history = loop.fit(toy.learner, toy.epoch, validate, checkpoint=toy.checkpoint, progress=silent)
    assert history["validation score"] == [0.1, 0.3, 0.3, 0.2]
    assert len(history["loss"]) == 4
    assert equal(toy.weights, seen[1])  # an equal score is no better one
    assert not equal(toy.weights, seen[3])
    assert not toy.learner.module.training


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training_with_its_name_and_keeps_the_epoch_before(value, tmp_path):
    toy = Toy(tmp_path)
    losses = iter([0.5, value])
    with pytest.raises(FloatingPointError, match=rf"epoch 2: loss is {value}; lower the learning rate"):
        loop.fit(toy.learner, lambda: {"loss": next(losses)}, toy.validate, checkpoint=toy.checkpoint, progress=silent)
    state = toy.checkpoint.load(silent)
    assert state is not None
    assert (state["epoch"], state["history"]["loss"]) == (1, [0.5])


def test_weights_that_are_no_numbers_end_the_training(tmp_path):
    toy = Toy(tmp_path)
    with torch.no_grad():
        toy.learner.module[0].weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1: loss is nan"):
        toy.fit()
    assert not (tmp_path / "toy.checkpoint").exists()


def test_a_score_that_is_no_number_ends_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match="epoch 1: validation score is nan"):
        Toy(tmp_path, scores=iter([math.nan])).fit()


def test_the_learning_rate_rises_once_and_falls_to_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = loop.cosine(optimizer, steps=30, warmup=10)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert 0 < rates[0] < 0.2
    assert max(rates) == pytest.approx(2) == rates[10]
    assert rates[20] == pytest.approx(1)
    assert rates[30] == pytest.approx(0)
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:31]) < 0).all()
    assert rates[30:] == pytest.approx([0] * 10)  # a last epoch with one batch more does not turn it up again


def test_without_warm_up_the_learning_rate_starts_at_its_height():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    loop.cosine(optimizer, steps=30, warmup=0)
    assert optimizer.param_groups[0]["lr"] == 2


def test_a_step_goes_down_the_sum_of_the_losses(tmp_path):
    weight = nn.Parameter(torch.tensor([1.0]))
    module = nn.Module()
    module.weight = weight
    optimizer = torch.optim.SGD([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    learner = Learner(
        module=module, optimizer=optimizer, schedule=schedule, rng=np.random.default_rng(0),
        generator=torch.Generator(), epochs=1, patience=1,
    )  # fmt: skip
    assert loop.step(learner, {"a": 2 * weight.sum(), "b": 3 * weight.sum()}) == {"a": 2.0, "b": 3.0}
    assert weight.item() == pytest.approx(1 - 0.1 * 5)
    loop.step(learner, {"a": 2 * weight.sum()})
    assert weight.item() == pytest.approx(0.5 - 0.05 * 2)  # gradients do not add up, and the rate has fallen


def test_the_mean_of_an_epoch_is_taken_loss_by_loss():
    assert loop.mean([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}]) == {"a": 2.0, "b": 2.0}
