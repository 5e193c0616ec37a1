"""Second stage of paper 003: a bidirectional LSTM learns, from the slice features of a case, its label.

Section 3.2: Adam, binary cross-entropy, early stopping; the features are computed once. The loss has one
part per slice in addition, which the paper does not have: it gives every slice a probability of its own.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from inference.nets.cervical_fracture import features
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.training.phantom_cases import Case

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


def extract(net: ResNet, case: Case, *, flip: bool = False) -> FeatureCase:
    """Compute the slice features of a case, of its mirror image with `flip`."""
    return FeatureCase(
        features=features(net, torch.from_numpy(np.array(case.hu)), flip=flip).clone(),
        labels=torch.from_numpy(case.labels).float(),
        weights=torch.from_numpy(case.clear).float(),
        fractured=float(case.fractured),
    )


def train(
    cases: Sequence[FeatureCase],
    validation: Sequence[FeatureCase],
    settings: SequenceSettings,
    *,
    progress: Callable[[str], None] = logger.info,
) -> SliceSequence:
    """Train; return the network of the epoch with the lowest validation loss, in eval mode."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    net = SliceSequence(features=cases[0].features.shape[1], units=settings.units, dropout=settings.dropout)
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    best, best_loss, best_epoch = copy.deepcopy(net), float("inf"), 0
    for epoch in range(1, settings.epochs + 1):
        net.train()
        order, losses = rng.permutation(len(cases)), []
        for first in range(0, len(order), settings.batch):
            parts = _losses(net, [cases[int(i)] for i in order[first : first + settings.batch]])
            total = torch.stack(list(parts.values())).sum()
            if not torch.isfinite(total):
                raise FloatingPointError(f"sequence losses in epoch {epoch}: {parts}; lower learning_rate")
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(total.item())
        held_out = validation_loss(net, validation)
        if held_out < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(net), held_out, epoch
        progress(f"cases epoch {epoch}/{settings.epochs} loss {np.mean(losses):.4f} val loss {held_out:.4f}")
        if epoch - best_epoch >= settings.patience:
            break
    return best.eval()


def validation_loss(net: SliceSequence, cases: Sequence[FeatureCase]) -> float:
    """Sum of the case and slice losses over all cases."""
    net.eval()
    with torch.inference_mode():
        return float(torch.stack(list(_losses(net, cases).values())).sum())


def _losses(net: SliceSequence, cases: Sequence[FeatureCase]) -> dict[str, torch.Tensor]:
    features = pad_sequence([case.features for case in cases], batch_first=True)  # (cases, longest, features)
    labels = pad_sequence([case.labels for case in cases], batch_first=True)
    weights = pad_sequence([case.weights for case in cases], batch_first=True)  # 0 on padding
    slices, whole = net(features, torch.tensor([len(case.features) for case in cases]))
    per_slice = binary_cross_entropy_with_logits(slices, labels, weight=weights, reduction="sum") / weights.sum()
    target = torch.tensor([case.fractured for case in cases])
    return {"case": binary_cross_entropy_with_logits(whole, target), "slices": per_slice}
