"""First stage of paper 003: a ResNet learns, from single slices, whether they show a fracture.

Section 3.2: random slices of all cases, Adam, random flip and rotation, binary cross-entropy, early stopping.

One thing is added: while it learns, a 1x1 convolution on the third stage has to say which cells of the image
hold the fracture. The paper had far more images and only their labels; with a few hundred cases, labels alone
leave the network guessing for most of the training. The convolution is dropped afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from inference import engine
from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case
from inference.nets.cervical_fracture import images
from inference.nets.resnet import ResNet
from inference.training import loop
from inference.training.augmentation import augment

logger = logging.getLogger(__name__)

VALIDATION_STRIDE = 4  # of the negative slices: neighbours look alike
CELL_WEIGHT = 10.0  # of cells with a fracture in the loss: there are about 100 times more without
DECAY = 0.2  # of the learning rate, paper 003 section 3.2
CELL_OVERLAP = 0.3  # interpolated mask value from which a pixel counts as fracture


@dataclass(frozen=True, kw_only=True)
class SliceSettings:
    """The `[slices]` table of the training configuration, where every key is explained."""

    size: int
    width: int
    epochs: int
    batch: int
    learning_rate: float
    warmup_epochs: float
    dropout: float
    patience: int
    seed: int
    #: As in the paper, multiply the learning rate by 0.2 every so many epochs; without, one cosine.
    decay_epochs: int | None = None


Chosen = tuple[int, int, bool]  # case, slice, label


@dataclass(frozen=True)
class Slices(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """(HU, mask, label) of chosen slices."""

    cases: Sequence[Case]
    chosen: Sequence[Chosen]
    size: int

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        number, at, label = self.chosen[index]
        case = self.cases[number]
        mask = case.fractures_at([at], self.size)[0] if label else torch.zeros(self.size, self.size)
        return case.hu_at([at], self.size)[0], mask, torch.tensor(float(label))


def train(
    cases: Sequence[Case],
    validation: Sequence[Case],
    settings: SliceSettings,
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None] = logger.info,
) -> tuple[ResNet, loop.History]:
    """Train on balanced random slices; the network of the best validation epoch, in eval mode, and its curves.

    `folder` keeps the checkpoint. Raises UnusableData if the training or the validation cases show no fracture.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    net = ResNet(width=settings.width, dropout=settings.dropout)
    local = nn.Conv2d(16 * settings.width, 1, kernel_size=1)
    both = nn.ModuleList([net, local]).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(both.parameters(), lr=settings.learning_rate)
    steps = -(-len(balanced_slices(cases, np.random.default_rng(0))) // settings.batch)
    learner = loop.Learner(
        module=both,
        optimizer=optimizer,
        schedule=_schedule(optimizer, settings, steps),
        rng=rng,
        generator=torch.Generator().manual_seed(settings.seed),
        epochs=settings.epochs,
        patience=settings.patience,
    )
    history = loop.fit(
        learner,
        lambda: _epoch(learner, net, local, cases, settings),
        lambda: {"score": slice_auc(net, validation, settings.size)},
        checkpoint=loop.Checkpoint(
            path=folder / "slices.checkpoint",
            made_with={"settings": asdict(settings), "cases": [case.name for case in (*cases, *validation)]},
        ),
        progress=lambda text: progress(f"slices: {text}"),
    )
    return net.eval(), history


def balanced_slices(cases: Sequence[Case], rng: np.random.Generator) -> list[Chosen]:
    """Every positive slice and as many negative ones, as (case, slice, label) in random order.

    Half of the negatives come from fractured cases, so that the network cannot learn the case instead.
    Raises UnusableData when no case shows a fracture, or none is without.
    """
    labels, clear = [case.labels for case in cases], [case.clear for case in cases]
    positive = [(c, int(s), True) for c, shown in enumerate(labels) for s in np.nonzero(shown)[0]]
    chosen = list(positive)
    for fractured in (True, False):
        pool = [
            (c, int(s), False)
            for c, case in enumerate(cases)
            if case.fractured is fractured
            for s in np.nonzero(clear[c] & ~labels[c])[0]
        ]
        count = min(len(positive) // 2, len(pool))
        chosen += [pool[int(i)] for i in rng.choice(len(pool), size=count, replace=False)] if count else []
    if not positive or len(chosen) == len(positive):
        kind = "shows a marked fracture" if not positive else "is free of fractures"
        raise UnusableData(f"none of the {len(cases)} training cases {kind}: slices cannot be learned from them")
    return [chosen[int(i)] for i in rng.permutation(len(chosen))]


def slice_logits(net: ResNet, hu: torch.Tensor) -> np.ndarray:
    """(slices, size, size) HU to logits (slices,)."""
    net.eval()
    device = next(net.parameters()).device
    return np.asarray(engine.in_batches(lambda part: net(images(part)), hu, device=device)[:, 0].cpu().numpy())


def slice_auc(net: ResNet, cases: Sequence[Case], size: int) -> float:
    """Area under the ROC curve over all positive and every fourth negative slice."""
    scores, labels = [], []
    for case in cases:
        negative = case.clear & ~case.labels & (np.arange(len(case.labels)) % VALIDATION_STRIDE == 0)
        keep = np.nonzero(case.labels | negative)[0]
        if len(keep):
            scores.append(slice_logits(net, case.hu_at(list(keep), size)))
            labels.append(case.labels[keep])
    area = area_under_curve(np.concatenate(scores), np.concatenate(labels)) if scores else float("nan")
    if np.isnan(area):
        raise UnusableData("the validation cases do not show both slices with and without a fracture: add cases")
    return area


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative; ties count half; NaN without both classes."""
    positive, negative = scores[labels.astype(bool)], np.sort(scores[~labels.astype(bool)])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / 2 / len(negative))


def _schedule(
    optimizer: torch.optim.Optimizer, settings: SliceSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """One step per batch, of which an epoch has `steps`."""
    if settings.decay_epochs is not None:
        return torch.optim.lr_scheduler.StepLR(optimizer, settings.decay_epochs * steps, gamma=DECAY)
    return loop.cosine(optimizer, steps=steps * settings.epochs, warmup=round(steps * settings.warmup_epochs))


def _epoch(
    learner: loop.Learner, net: ResNet, local: nn.Conv2d, cases: Sequence[Case], settings: SliceSettings
) -> dict[str, float]:
    """One pass over a new balanced sample; the mean losses."""
    learner.module.train()
    chosen = balanced_slices(cases, learner.rng)
    device = next(net.parameters()).device
    loader = DataLoader(
        Slices(cases, chosen, settings.size), settings.batch, num_workers=engine.loader_processes(device)
    )
    parts = []
    for hu, masks, target in loader:
        hu, masks = augment(hu[:, None].to(device), masks[:, None].to(device), learner.generator)
        parts.append(loop.step(learner, _losses((net, local), hu[:, 0], masks[:, 0], target.to(device))))
    return loop.mean(parts)


def _losses(
    nets: tuple[ResNet, nn.Conv2d], hu: torch.Tensor, masks: torch.Tensor, target: torch.Tensor
) -> Mapping[str, torch.Tensor]:
    net, local = nets
    # bfloat16 halves the time of a step; scores are computed in float32 later.
    with torch.autocast(hu.device.type, torch.bfloat16):
        middle = net.middle(images(hu))
        logits = net.classify(net.pooled(middle))[:, 0].float()
        cells = local(middle)[:, 0].float()  # (batch, size / 16, size / 16)
    truth = adaptive_max_pool2d((masks > CELL_OVERLAP).float(), cells.shape[1:])
    weight = torch.tensor(CELL_WEIGHT, device=hu.device)
    return {
        "image loss": binary_cross_entropy_with_logits(logits, target),
        "cell loss": binary_cross_entropy_with_logits(cells, truth, pos_weight=weight),
    }
