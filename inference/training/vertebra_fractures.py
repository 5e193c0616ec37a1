"""Trains the network that looks at one vertebra at a time: a 2.5D ResNet with a bidirectional LSTM."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from inference import engine
from inference.datasets.labelled import CERVICAL, UnusableData
from inference.datasets.store import POSITIVE_MM2, Case
from inference.nets.resnet import ResNet
from inference.nets.vertebra_fracture import VertebraFracture
from inference.preprocess import vertebra_crop
from inference.preprocess.vertebra_crop import Box, network_input
from inference.training import loop
from inference.training.augmentation import augment
from inference.training.fracture_slices import area_under_curve

logger = logging.getLogger(__name__)

NEAR = 2  # pixels around the outline in which a fracture counts as one of this vertebra
SLICE_LOSS = 0.5
MIN_VOXELS = 200  # of an outline; less is a sliver at the end of the scan


@dataclass(frozen=True, kw_only=True)
class LevelSettings:
    """The `[levels]` table of the training configuration, where every key is explained."""

    size: int
    width: int
    units: int
    epochs: int
    batch: int
    learning_rate: float
    warmup_epochs: float
    dropout: float
    patience: int
    seed: int


@dataclass(frozen=True)
class Outlined:
    """One vertebra of a labelled case."""

    case: Case
    level: str
    box: Box
    fractured: bool

    def inside(self) -> np.ndarray:
        """bool, in the shape of the box."""
        return np.asarray(self.case.vertebrae[self.box] == CERVICAL.index(self.level) + 1)

    def shown(self) -> np.ndarray:
        """(15,) float32: is a fracture of this vertebra in the slice? -1 where the data do not say."""
        if not self.fractured:
            return np.zeros(vertebra_crop.SLICES, np.float32)
        if not self.case.has_fractures:
            return np.full(vertebra_crop.SLICES, -1, np.float32)
        disc = ndimage.generate_binary_structure(2, 1)[None]
        near = ndimage.binary_dilation(np.pad(self.inside(), [(0, 0), (NEAR, NEAR), (NEAR, NEAR)]), disc, NEAR)
        fracture = self.case.fractures[self.box[0]]
        padded = np.pad(fracture, [(0, 0), (NEAR, NEAR), (NEAR, NEAR)])
        wide = (slice(None), *(slice(side.start, side.stop + 2 * NEAR) for side in self.box[1:]))
        area = (padded[wide] & near).sum((1, 2)) * self.case.spacing[1] * self.case.spacing[2]
        seen = area[vertebra_crop.slice_numbers(self.box) - self.box[0].start] >= POSITIVE_MM2
        return np.asarray(seen, np.float32)


def outlined(cases: Sequence[Case]) -> list[Outlined]:
    """Every cervical vertebra of the cases with a label and an outline. Raises UnusableData without both kinds."""
    found = []
    for case in cases:
        if case.levels is None or not case.has_vertebrae:
            continue
        vertebrae = np.asarray(case.vertebrae)
        sizes = np.bincount(vertebrae.ravel(), minlength=len(CERVICAL) + 1)
        for number, box in enumerate(ndimage.find_objects(vertebrae, len(CERVICAL)), start=1):
            if box is not None and sizes[number] >= MIN_VOXELS:
                level = CERVICAL[number - 1]
                found.append(Outlined(case, level, box, case.levels[level]))
    for fractured, kind in ((True, "fractured"), (False, "intact")):
        if not any(one.fractured is fractured for one in found):
            raise UnusableData(f"no vertebra of the {len(cases)} cases is outlined and labelled as {kind}")
    return found


@dataclass(frozen=True)
class Vertebrae(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """HU (15, 5, size, size), outline (15, size, size), and the labels: vertebra, then slices (1 + 15,)."""

    chosen: Sequence[Outlined]
    size: int

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        one = self.chosen[index]
        hu, outline = vertebra_crop.cut(one.case.hu, one.box, one.inside(), one.case.spacing, self.size)
        return hu, outline, torch.from_numpy(np.concatenate([[np.float32(one.fractured)], one.shown()]))


def begin(settings: LevelSettings, trained: ResNet) -> VertebraFracture:
    """A network that begins as one trained on slices, on the device of that. Raises ValueError for another width."""
    torch.manual_seed(settings.seed)
    net = VertebraFracture(width=settings.width, units=settings.units, dropout=settings.dropout)
    try:
        net.begin_with(trained)
    except RuntimeError as error:
        message = f"[levels] width {settings.width}: the pinned fracture model has another; train and pin that first"
        raise ValueError(message) from error
    device = next(trained.parameters()).device
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def train(
    net: VertebraFracture,
    cases: Sequence[Case],
    validation: Sequence[Case],
    settings: LevelSettings,
    *,
    folder: Path,
    progress: Callable[[str], None] = logger.info,
) -> loop.History:
    """Train on the outlined vertebrae; the net ends in eval mode with its best validation AUC. Returns the curves."""
    torch.manual_seed(settings.seed)  # dropout draws from the global generator
    learning, held_out = outlined(cases), outlined(validation)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate)
    steps = -(-len(balanced(learning, np.random.default_rng(0))) // settings.batch)
    learner = loop.Learner(
        module=net,
        optimizer=optimizer,
        schedule=loop.cosine(optimizer, steps=steps * settings.epochs, warmup=round(steps * settings.warmup_epochs)),
        rng=np.random.default_rng(settings.seed),
        generator=torch.Generator().manual_seed(settings.seed),
        epochs=settings.epochs,
        patience=settings.patience,
    )
    # The same vertebrae in every epoch: a new draw would move the score by itself.
    judged = balanced(held_out, np.random.default_rng(0))
    return loop.fit(
        learner,
        lambda: _epoch(learner, learning, settings),
        lambda: {"score": auc(net, judged, settings)},
        checkpoint=loop.Checkpoint(
            path=folder / "levels.checkpoint",
            made_with={"settings": asdict(settings), "cases": [case.name for case in cases]},
        ),
        progress=lambda text: progress(f"levels: {text}"),
    )


def balanced(vertebrae: Sequence[Outlined], rng: np.random.Generator) -> list[Outlined]:
    """Every fractured vertebra and as many intact ones, half of them from fractured cases, in random order."""
    fractured = [one for one in vertebrae if one.fractured]
    chosen = list(fractured)
    for kind in (True, False):
        pool = [one for one in vertebrae if not one.fractured and one.case.fractured is kind]
        count = min(-(-len(fractured) // 2), len(pool))
        chosen += [pool[int(i)] for i in rng.choice(len(pool), size=count, replace=False)] if count else []
    return [chosen[int(i)] for i in rng.permutation(len(chosen))]


def auc(net: VertebraFracture, chosen: Sequence[Outlined], settings: LevelSettings) -> float:
    """Area under the ROC curve of the vertebrae."""
    device = next(net.parameters()).device
    net.eval()
    scores = []
    for hu, outline, _ in DataLoader(Vertebrae(chosen, settings.size), settings.batch):
        with torch.inference_mode():
            scores.append(net(network_input(hu.to(device), outline.to(device)))[1].cpu())
    return area_under_curve(torch.cat(scores).numpy(), np.array([one.fractured for one in chosen]))


def _epoch(learner: loop.Learner, vertebrae: Sequence[Outlined], settings: LevelSettings) -> dict[str, float]:
    learner.module.train()
    device = next(learner.module.parameters()).device
    data = Vertebrae(balanced(vertebrae, learner.rng), settings.size)
    parts = []
    for hu, outline, labels in DataLoader(data, settings.batch, num_workers=engine.loader_processes(device)):
        images = _changed(hu.to(device), outline.to(device), learner.generator)
        with torch.autocast(device.type, torch.bfloat16):
            slices, whole = learner.module(images)
        parts.append(loop.step(learner, _losses(slices.float(), whole.float(), labels.to(device))))
    return loop.mean(parts)


def _changed(hu: torch.Tensor, outline: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Network input of vertebrae that are moved, each as a whole, with an outline as uncertain as a network's."""
    moved, edge = augment(hu.flatten(1, 2), outline, generator)
    level = (torch.rand(len(hu), 1, 1, 1, generator=generator) * 0.6 + 0.2).to(hu.device)
    blurred = avg_pool2d(edge, 5, stride=1, padding=2)
    return network_input(moved.reshape(hu.shape), (blurred > level).float())


def _losses(slices: torch.Tensor, whole: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    truth, shown = labels[:, 0], labels[:, 1:]
    known = (shown >= 0).float()
    per_slice = binary_cross_entropy_with_logits(slices, shown.clamp(min=0), weight=known, reduction="sum")
    return {
        "vertebra loss": binary_cross_entropy_with_logits(whole, truth),
        "slice loss": SLICE_LOSS * per_slice / known.sum().clamp(min=1),
    }
