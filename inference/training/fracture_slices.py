"""First stage of paper 003: a ResNet learns, from single slices, whether they show a fracture.

Section 3.2: random slices of all cases, Adam, random flip and rotation, binary cross-entropy, early stopping.

One thing is added: while it learns, a 1x1 convolution on the third stage has to say which cells of the image
hold the fracture. The paper had far more images and only their labels; with a few hundred cases, labels alone
leave the network guessing for most of the training. The convolution is dropped afterwards.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits

from inference.nets.cervical_fracture import images
from inference.nets.resnet import ResNet
from inference.training.augmentation import augment
from inference.training.phantom_cases import Case

logger = logging.getLogger(__name__)

VALIDATION_STRIDE = 4  # of the negative slices: neighbours look alike
CELL_WEIGHT = 10.0  # of cells with a fracture in the loss: there are about 100 times more without
CELL_OVERLAP = 0.3  # interpolated mask value from which a pixel counts as fracture


@dataclass(frozen=True, kw_only=True)
class SliceSettings:
    """The `[slices]` table of the training configuration, where every key is explained."""

    width: int
    epochs: int
    batch: int
    learning_rate: float
    warmup_epochs: float
    dropout: float
    patience: int
    seed: int


def train(
    cases: Sequence[Case],
    validation: Sequence[Case],
    settings: SliceSettings,
    *,
    progress: Callable[[str], None] = logger.info,
) -> ResNet:
    """Train on balanced random slices; return the network of the best validation epoch, in eval mode."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    net = ResNet(width=settings.width, dropout=settings.dropout).to(memory_format=torch.channels_last)
    local = nn.Conv2d(16 * settings.width, 1, kernel_size=1)
    optimizer = torch.optim.Adam([*net.parameters(), *local.parameters()], lr=settings.learning_rate)
    steps = math.ceil(len(balanced_slices(cases, rng)) / settings.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / steps, settings))
    best, best_auc, best_epoch, start = copy.deepcopy(net), -1.0, 0, time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        loss = _epoch((net, local), cases, settings, (optimizer, schedule, generator, rng))
        auc = slice_auc(net, validation)
        if math.isnan(auc):
            raise ValueError("the validation cases show no fracture: no epoch can be chosen; add validation cases")
        if auc > best_auc:
            best, best_auc, best_epoch = copy.deepcopy(net), auc, epoch
        left = (time.monotonic() - start) / epoch * (settings.epochs - epoch)
        progress(f"slices epoch {epoch}/{settings.epochs} loss {loss:.4f} val AUC {auc:.4f} {left / 60:.1f} min left")
        if epoch - best_epoch >= settings.patience:
            break
    return best.eval()


def balanced_slices(cases: Sequence[Case], rng: np.random.Generator) -> list[tuple[int, int, bool]]:
    """Every positive slice and as many negative ones, as (case, slice, label) in random order.

    Half of the negatives come from fractured cases, so that the network cannot learn the case instead.
    """
    positive = [(c, int(s), True) for c, case in enumerate(cases) for s in np.nonzero(case.labels)[0]]
    chosen = list(positive)
    for fractured in (True, False):
        pool = [
            (c, int(s), False)
            for c, case in enumerate(cases)
            if case.fractured is fractured
            for s in np.nonzero(case.area == 0)[0]
        ]
        count = min(len(positive) // 2, len(pool))
        chosen += [pool[int(i)] for i in rng.choice(len(pool), size=count, replace=False)] if count else []
    return [chosen[int(i)] for i in rng.permutation(len(chosen))]


def rate(epoch: float, settings: SliceSettings) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to zero."""
    if epoch < settings.warmup_epochs:
        return (epoch + 0.01) / (settings.warmup_epochs + 0.01)
    done = (epoch - settings.warmup_epochs) / max(settings.epochs - settings.warmup_epochs, 1e-6)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def slice_logits(net: ResNet, hu: np.ndarray, batch: int = 64) -> np.ndarray:
    """(slices, size, size) HU to logits (slices,)."""
    net.eval()
    with torch.inference_mode():
        parts = [net(images(torch.from_numpy(np.array(hu[i : i + batch])))) for i in range(0, len(hu), batch)]
    return np.asarray(torch.cat(parts)[:, 0].numpy())


def slice_auc(net: ResNet, cases: Sequence[Case]) -> float:
    """Area under the ROC curve over all positive and every fourth negative slice."""
    scores, labels = [], []
    for case in cases:
        keep = case.labels | ((case.area == 0) & (np.arange(len(case.area)) % VALIDATION_STRIDE == 0))
        scores.append(slice_logits(net, case.hu[keep]))
        labels.append(case.labels[keep])
    return area_under_curve(np.concatenate(scores), np.concatenate(labels))


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative; ties count half; NaN without both classes."""
    positive, negative = scores[labels.astype(bool)], np.sort(scores[~labels.astype(bool)])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / 2 / len(negative))


def _epoch(
    nets: tuple[ResNet, nn.Conv2d],
    cases: Sequence[Case],
    settings: SliceSettings,
    state: tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.Generator, np.random.Generator],
) -> float:
    """One pass over a new balanced sample; the mean loss of the image labels."""
    optimizer, schedule, generator, rng = state
    nets[0].train()
    order = balanced_slices(cases, rng)
    losses = []
    for first in range(0, len(order), settings.batch):
        chosen = order[first : first + settings.batch]
        hu = torch.from_numpy(np.stack([cases[c].hu[s] for c, s, _ in chosen]))
        masks = torch.from_numpy(np.stack([cases[c].slice_mask(s) for c, s, _ in chosen]))
        target = torch.tensor([label for _, _, label in chosen], dtype=torch.float32)
        parts = _losses(nets, *augment(hu, masks, generator), target)
        loss = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"slice losses at image {first} of an epoch: {parts}; lower learning_rate")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(parts["image"].item())
    return float(np.mean(losses))


def _losses(
    nets: tuple[ResNet, nn.Conv2d], hu: torch.Tensor, masks: torch.Tensor, target: torch.Tensor
) -> dict[str, torch.Tensor]:
    net, local = nets
    # bfloat16 halves the time of a step on CPU; scores are computed in float32 later.
    with torch.autocast("cpu", torch.bfloat16):
        middle = net.middle(images(hu))
        logits = net.classify(net.pooled(middle))[:, 0].float()
        cells = local(middle)[:, 0].float()  # (batch, size / 16, size / 16)
    truth = adaptive_max_pool2d((masks > CELL_OVERLAP).float(), cells.shape[1:])
    weight = torch.tensor(CELL_WEIGHT)
    return {
        "image": binary_cross_entropy_with_logits(logits, target),
        "cells": binary_cross_entropy_with_logits(cells, truth, pos_weight=weight),
    }
