"""Trains the second look at discs on crops around the boxes that readers have drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from inference import disc_looks
from inference.datasets.labelled import UnusableData
from inference.datasets.mr_store import StoredSeries, Study
from inference.datasets.spine_images import read_series
from inference.nets.resnet import ResNet
from inference.spine_levels import thousandths
from inference.training import loop
from inference.training.fracture_slices import area_under_curve

#: How far a crop may be beside its box, mm; and how far its size, its contrast and its brightness may be off: shares.
ASIDE_MM, SIZE, CONTRAST, BRIGHTNESS = 3.0, 0.15, 0.2, 0.1


@dataclass(frozen=True, kw_only=True)
class LookSettings:
    """The `[look]` table of the training configuration, where every key is explained."""

    width: int
    epochs: int
    batch: int
    normal: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Discs:
    """The boxes of one series."""

    series: StoredSeries
    slices: np.ndarray
    #: (n, 4) left, top, right, bottom.
    edges: np.ndarray
    #: (n,) position in the classes; the first one is normal.
    labels: np.ndarray


def discs(studies: Sequence[Study], classes: Sequence[str]) -> list[Discs]:
    """Every read series that has a box."""
    found = [(series, series.boxes) for study in studies for series in read_series(study)]
    return [
        Discs(
            series=series,
            slices=np.array([box.slice for box in boxes]),
            edges=np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], float),
            labels=np.array([classes.index(box.label) for box in boxes]),
        )
        for series, boxes in found
        if boxes
    ]


def arguments(settings: LookSettings, classes: Sequence[str]) -> dict[str, int]:
    """What the network is built by."""
    return {"width": settings.width, "outputs": len(classes)}


def train(  # noqa: PLR0913 - from what, how, and where
    training: Sequence[Discs],
    validation: Sequence[Discs],
    classes: Sequence[str],
    settings: LookSettings,
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None],
) -> tuple[ResNet, loop.History]:
    """Train on crops of all abnormal discs and of some normal ones; the best network in eval mode, and its curves.

    Raises UnusableData where the validation has a class in no box.
    """
    torch.manual_seed(settings.seed)
    net = ResNet(**arguments(settings, classes)).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    count = sum(int((one.labels > 0).sum()) + min(settings.normal, int((one.labels == 0).sum())) for one in training)
    steps = -(-count // settings.batch)
    learner = loop.Learner(
        module=net,
        optimizer=optimizer,
        schedule=loop.cosine(optimizer, steps=steps * settings.epochs, warmup=round(steps * settings.warmup_epochs)),
        rng=np.random.default_rng(settings.seed),
        generator=torch.Generator(),
        epochs=settings.epochs,
        patience=settings.epochs,
    )
    history = loop.fit(
        learner,
        lambda: _epoch(learner, net, training, settings),
        lambda: {"score": score(net, validation, classes)},
        checkpoint=loop.Checkpoint(
            path=folder / "look.checkpoint",
            made_with={"settings": asdict(settings), "series": [str(one.series.folder) for one in training]},
        ),
        progress=lambda text: progress(f"second look: {text}"),
    )
    return net.eval(), history


def score(net: ResNet, series: Sequence[Discs], classes: Sequence[str]) -> float:
    """Area under the ROC curve over all drawn boxes, mean of the abnormal classes. Raises UnusableData."""
    net.eval()
    device = next(net.parameters()).device
    with torch.inference_mode():
        said = [net(_crops(one, np.arange(len(one.labels))).to(device)).softmax(1).cpu().numpy() for one in series]
    labels = np.concatenate([one.labels for one in series])
    shares = np.concatenate(said)
    areas = [area_under_curve(shares[:, n], labels == n) for n in range(1, len(classes))]
    if np.isnan(areas).any():
        raise UnusableData(f"{len(series)} validation series do not show all of {', '.join(classes)}: add studies")
    return float(np.mean(areas))


def _epoch(learner: loop.Learner, net: ResNet, training: Sequence[Discs], settings: LookSettings) -> dict[str, float]:
    net.train()
    device = next(net.parameters()).device
    parts = []
    for images, labels in _batches(training, settings, learner.rng):
        loss = cross_entropy(net(images.to(device)), labels.to(device))
        parts.append(loop.step(learner, {"class loss": loss}))
    return loop.mean(parts)


def _batches(
    training: Sequence[Discs], settings: LookSettings, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Series in random order, each with all its abnormal discs and some of the others, changed at random."""
    images, labels = torch.empty(0), torch.empty(0, dtype=torch.int64)
    for number in rng.permutation(len(training)).tolist():
        one = training[number]
        normal = rng.permutation(np.flatnonzero(one.labels == 0))[: settings.normal]
        chosen = np.concatenate([np.flatnonzero(one.labels), normal])
        images = torch.cat([images.reshape(-1, 3, disc_looks.SIDE, disc_looks.SIDE), _crops(one, chosen, rng)])
        labels = torch.cat([labels, torch.from_numpy(one.labels[chosen])])
        while len(images) >= settings.batch:
            yield images[: settings.batch], labels[: settings.batch]
            images, labels = images[settings.batch :], labels[settings.batch :]
    if len(images) > 1:  # one alone has no mean to be normalised by
        yield images, labels


def _crops(one: Discs, chosen: np.ndarray, rng: np.random.Generator | None = None) -> torch.Tensor:
    """Crops (n, 3, SIDE, SIDE) around boxes; with a generator moved, scaled, brighter and with other contrast."""
    row, column = one.series.spacing[1:]
    shown = disc_looks.windows(one.edges[chosen], (row, column))
    values = thousandths(np.asarray(one.series.values))
    if rng is None:
        return disc_looks.crops(values, one.slices[chosen], shown)
    middle, half = (shown[:, :2] + shown[:, 2:]) / 2, (shown[:, 2:] - shown[:, :2]) / 2
    middle = middle + rng.uniform(-ASIDE_MM, ASIDE_MM, middle.shape) / (column, row)
    half = half * rng.uniform(1 - SIZE, 1 + SIZE, (len(half), 1))
    images = disc_looks.crops(values, one.slices[chosen], np.concatenate([middle - half, middle + half], 1))
    gain, offset = (rng.uniform(-most, most, (len(half), 1, 1, 1)) for most in (CONTRAST, BRIGHTNESS))
    return images * torch.from_numpy(1 + gain).float() + torch.from_numpy(offset).float()
