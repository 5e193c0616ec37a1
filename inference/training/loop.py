"""The epochs of every training: early stopping, the best state, and a checkpoint from which to go on exactly."""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

logger = logging.getLogger(__name__)

History = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What learns, and everything whose state decides how it goes on."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    #: Draws the order and the changes of the images. Dropout draws from torch's global generator.
    rng: np.random.Generator
    generator: torch.Generator
    epochs: int
    #: Stop after this many epochs without a better score.
    patience: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where an interrupted training goes on, if it is the same training."""

    path: Path
    #: Everything that decides the outcome: data, settings, versions. A checkpoint made with others is not used.
    made_with: Mapping[str, Any]

    def load(self, progress: Callable[[str], None] = logger.info) -> dict[str, Any] | None:
        """The saved state, or None where there is none of this very training; says why if there is another."""
        if not self.path.exists():
            return None
        content = io.BytesIO(self.path.read_bytes())  # an OSError of torch could mean either a bad disk or a bad file
        try:
            state: dict[str, Any] = torch.load(content, weights_only=True, map_location="cpu")
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):  # cut off, as by a power failure
            progress(f"{self.path} is damaged: starting anew")
            return None
        if state["made_with"] != self._text():
            progress(f"{self.path} is of a training with other data or settings: starting anew")
            return None
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file in one step: an interrupted write leaves the one before."""
        part = self.path.with_suffix(".part")
        torch.save({**state, "made_with": self._text()}, part)
        part.replace(self.path)

    def _text(self) -> str:
        return json.dumps(self.made_with, sort_keys=True, default=str)


def fit(
    learner: Learner,
    epoch: Callable[[], dict[str, float]],
    validate: Callable[[], dict[str, float]],
    *,
    checkpoint: Checkpoint,
    progress: Callable[[str], None] = logger.info,
) -> History:
    """Run epochs until `epochs` or `patience` is reached; the module ends in its best state, in eval mode.

    `epoch` trains once over the data and returns mean losses; `validate` returns numbers of which "score" decides,
    the higher the better. Raises FloatingPointError when a loss or the score is not a number.
    """
    state = checkpoint.load(progress)
    history: History = {}
    best, best_score, best_epoch, done = copy.deepcopy(learner.module.state_dict()), -math.inf, 0, 0
    if state is not None:
        history, best, best_score = state["history"], state["best"], state["best_score"]
        best_epoch, done = state["best_epoch"], state["epoch"]
        _restore(learner, state)
        progress(f"going on after epoch {done} from {checkpoint.path}")
    start, first = time.monotonic(), done
    while done < learner.epochs and (done == 0 or done - best_epoch < learner.patience):
        done += 1
        numbers = {**epoch(), **{f"validation {name}": value for name, value in validate().items()}}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"epoch {done}: {name} is {value}; lower the learning rate or check the data")
            history.setdefault(name, []).append(value)
        if numbers["validation score"] > best_score:
            best, best_score, best_epoch = copy.deepcopy(learner.module.state_dict()), numbers["validation score"], done
        checkpoint.save(
            {"history": history, "best": best, "best_score": best_score, "best_epoch": best_epoch, "epoch": done}
            | _state(learner)
        )
        left = (time.monotonic() - start) / (done - first) * (learner.epochs - done)
        shown = " ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        progress(f"epoch {done}/{learner.epochs} {shown}, at most {left / 60:.1f} min left")
    learner.module.load_state_dict(best)
    learner.module.eval()
    return history


def cosine(optimizer: torch.optim.Optimizer, *, steps: int, warmup: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then half a cosine down to zero; one step per batch."""

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def falling(
    optimizer: torch.optim.Optimizer, *, drops: Sequence[int], warmup: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then a tenth of the rate before from each of the steps `drops` on; one step per batch."""

    def rate(step: int) -> float:
        return min((step + 1) / (warmup + 1), 1.0) * 0.1 ** sum(step >= drop for drop in drops)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def step(learner: Learner, losses: Mapping[str, torch.Tensor], *, clip_norm: float = math.inf) -> dict[str, float]:
    """One update by the sum of the losses, the gradient no longer than `clip_norm`; returns them as numbers."""
    total = torch.stack(list(losses.values())).sum()
    learner.optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    if clip_norm < math.inf:
        nn.utils.clip_grad_norm_(learner.module.parameters(), clip_norm)
    learner.optimizer.step()
    learner.schedule.step()
    return {name: float(value.detach()) for name, value in losses.items()}


def mean(parts: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each loss over the batches of an epoch."""
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def _state(learner: Learner) -> dict[str, Any]:
    device = next(learner.module.parameters()).device
    return {
        "module": learner.module.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "schedule": learner.schedule.state_dict(),
        "rng": learner.rng.bit_generator.state,
        "generator": learner.generator.get_state(),
        "global": torch.get_rng_state(),
        **({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}),
    }


def _restore(learner: Learner, state: Mapping[str, Any]) -> None:
    learner.module.load_state_dict(state["module"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.schedule.load_state_dict(state["schedule"])
    learner.rng.bit_generator.state = state["rng"]
    learner.generator.set_state(state["generator"])
    torch.set_rng_state(state["global"])
    device = next(learner.module.parameters()).device
    if device.type == "cuda" and "cuda" in state:  # a training can go on on another kind of machine
        torch.cuda.set_rng_state(state["cuda"], device)
