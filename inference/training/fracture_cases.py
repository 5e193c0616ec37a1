"""Second stage of paper 003: a bidirectional LSTM learns, from the slice features of a case, its label.

Section 3.2: Adam, binary cross-entropy, early stopping; the features are computed once. The loss has one
part per slice in addition, which the paper does not have: it gives every slice a probability of its own.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case
from inference.nets.cervical_fracture import features
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.training import loop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SequenceSettings:
    """The `[sequence]` table of the training configuration, where every key is explained."""

    units: int
    epochs: int
    batch: int
    learning_rate: float
    dropout: float
    patience: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class FeatureCase:
    """One case as the sequence network sees it."""

    #: (slices, features) float32.
    features: torch.Tensor
    #: (slices,) float32, 0 or 1.
    labels: torch.Tensor
    #: (slices,) float32: 0 for slices that are left out of the loss.
    weights: torch.Tensor
    fractured: float


def extract(net: ResNet, case: Case, size: int, *, flip: bool = False) -> FeatureCase:
    """Compute the slice features of a case, of its mirror image with `flip`."""
    if case.fractured is None:
        raise UnusableData(f"{case.name} ({case.source}) does not say whether there is a fracture")
    return FeatureCase(
        features=features(net, case.hu_at(slice(None), size), flip=flip).cpu().clone(),
        labels=torch.from_numpy(case.labels).float(),
        weights=torch.from_numpy(case.clear).float(),
        fractured=float(case.fractured),
    )


def train(
    cases: Sequence[FeatureCase],
    validation: Sequence[FeatureCase],
    settings: SequenceSettings,
    *,
    folder: Path,
    progress: Callable[[str], None] = logger.info,
) -> tuple[SliceSequence, loop.History]:
    """Train on the CPU; the network of the epoch with the lowest validation loss, in eval mode, and its curves."""
    torch.manual_seed(settings.seed)
    net = SliceSequence(features=cases[0].features.shape[1], units=settings.units, dropout=settings.dropout)
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    learner = loop.Learner(
        module=net,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0),
        rng=np.random.default_rng(settings.seed),
        generator=torch.Generator(),
        epochs=settings.epochs,
        patience=settings.patience,
    )
    history = loop.fit(
        learner,
        lambda: _epoch(learner, cases, settings.batch),
        lambda: {"score": -validation_loss(net, validation)},
        checkpoint=loop.Checkpoint(
            path=folder / f"sequence-{settings.units}.checkpoint",
            made_with={"settings": asdict(settings), "features": _digest([*cases, *validation])},
        ),
        progress=lambda text: progress(f"sequence of {settings.units} units: {text}"),
    )
    return net.eval(), history


def validation_loss(net: SliceSequence, cases: Sequence[FeatureCase]) -> float:
    """Sum of the case and slice losses over all cases."""
    net.eval()
    with torch.inference_mode():
        return float(torch.stack(list(_losses(net, cases).values())).sum())


def _epoch(learner: loop.Learner, cases: Sequence[FeatureCase], batch: int) -> dict[str, float]:
    learner.module.train()
    order = learner.rng.permutation(len(cases))
    return loop.mean(
        [
            loop.step(learner, _losses(learner.module, [cases[int(i)] for i in order[first : first + batch]]))
            for first in range(0, len(order), batch)
        ]
    )


def _digest(cases: Sequence[FeatureCase]) -> str:
    """Features of another slice network, or of other cases, are another training."""
    digest = hashlib.sha256()
    for case in cases:
        for part in (case.features, case.labels, case.weights):
            digest.update(part.numpy().tobytes())
        digest.update(str(case.fractured).encode())
    return digest.hexdigest()


def _losses(net: nn.Module, cases: Sequence[FeatureCase]) -> dict[str, torch.Tensor]:
    features = pad_sequence([case.features for case in cases], batch_first=True)  # (cases, longest, features)
    labels = pad_sequence([case.labels for case in cases], batch_first=True)
    weights = pad_sequence([case.weights for case in cases], batch_first=True)  # 0 on padding
    slices, whole = net(features, torch.tensor([len(case.features) for case in cases]))
    known = weights.sum().clamp(min=1)  # no slice of the batch may be labelled
    per_slice = binary_cross_entropy_with_logits(slices, labels, weight=weights, reduction="sum") / known
    target = torch.tensor([case.fractured for case in cases])
    return {"case loss": binary_cross_entropy_with_logits(whole, target), "slice loss": per_slice}
