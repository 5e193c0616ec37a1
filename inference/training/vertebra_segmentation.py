"""Trains the U-Net of paper 001 on sagittal slices of CT or MR: vertebrae, fractures, and which a slice shows.

Vertebrae can be told apart from the side, where the skull, the dens and the ribs are in the same image; in an axial
slice C4 looks like C5. Where the paper's training differs (SGD, binary cross-entropy), the settings say why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import (
    affine_grid,
    binary_cross_entropy_with_logits,
    cross_entropy,
    grid_sample,
    one_hot,
)
from torch.utils.data import DataLoader, Dataset

from inference import engine
from inference.datasets.isotropic import Isotropic, read
from inference.nets.unet import Maps, VertebraUNet
from inference.preprocess.sagittal import CT, View, images, network_input
from inference.training import loop

logger = logging.getLogger(__name__)

ROTATION, SCALE, SHIFT = 12.0, (0.85, 1.2), 0.15  # degrees, factor, of half the image
CUT_SHARE = 0.4  # of the images lose one end: scans begin and end anywhere
ANYWHERE = 0.2  # of the slices may lie beside the spine, where nothing is to be found
FRACTURE_WEIGHT = 10.0  # of fractured voxels in the loss: there are some thousand times more without


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings:
    """The `[unet]` table of the training configuration, where every key is explained."""

    mm: float
    size: int
    width: float
    repeats: Sequence[int]
    epochs: int
    slices_per_case: int
    batch: int
    learning_rate: float
    warmup_epochs: float
    patience: int
    seed: int


@dataclass(frozen=True)
class Sagittal(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random sagittal slices of prepared cases, each changed at random: HU (3, size, size), labels (2, size, size).

    Labels are the network's output (0 none) and the fracture (1 yes, 0 no, -1 not known). Item n is the same in every
    process.
    """

    paths: Sequence[Path]
    size: int
    seed: int
    view: View = CT

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index])
        hu, labels = section(read(self.paths[index]), rng, self.view)
        return changed(hu, labels, self.size, rng, self.view)


def section(case: Isotropic, rng: np.random.Generator, view: View = CT) -> tuple[torch.Tensor, torch.Tensor]:
    """A random sagittal slice, mostly through the spine: HU (3, slices, rows) and labels (2, slices, rows)."""
    levels = view.outputs_of(case.vertebrae)
    shown = (levels > 0).sum((0, 1))
    chance = (1 - ANYWHERE) * shown / max(shown.sum(), 1) + ANYWHERE / len(shown)
    column = int(rng.choice(len(shown), p=chance / chance.sum()))
    fractures = np.full(levels.shape[:2], -1) if case.fractures is None else case.fractures[:, :, column]
    hu = images(torch.from_numpy(case.hu).permute(2, 0, 1), [column])[0]
    return hu.float(), torch.from_numpy(np.stack([levels[:, :, column], fractures]).astype(np.float32))


def changed(
    hu: torch.Tensor, labels: torch.Tensor, size: int, rng: np.random.Generator, view: View = CT
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turned, scaled, shifted, perhaps cut off at one end, on a square of `size`; other contrast and noise."""
    height, width = hu.shape[1:]
    angle, scale = math.radians(rng.uniform(-ROTATION, ROTATION)), rng.uniform(*SCALE)
    cos, sin = math.cos(angle) * scale * size, math.sin(angle) * scale * size
    # affine_grid's units are half images; the input need not be square.
    matrix = [
        [cos / width, -sin / width, rng.uniform(-SHIFT, SHIFT)],
        [sin / height, cos / height, rng.uniform(-SHIFT, SHIFT)],
    ]
    grid = affine_grid(torch.tensor([matrix], dtype=torch.float32), [1, 1, size, size], align_corners=False)
    moved = grid_sample(hu[None] - view.outside, grid, align_corners=False)[0]
    marks = grid_sample(labels[None], grid, mode="nearest", align_corners=False)[0]
    if rng.random() < CUT_SHARE:
        end = int(rng.integers(0, size // 2))
        lost = slice(0, end) if rng.random() < 0.5 else slice(size - end, size)
        moved[:, lost], marks[:, lost] = 0, 0
    noise = torch.from_numpy(rng.standard_normal(moved.shape, dtype=np.float32)) * rng.uniform(0, view.noise)
    gain, offset = rng.uniform(1 - view.gain, 1 + view.gain), rng.uniform(-view.offset, view.offset)
    return (moved + view.outside) * gain + offset + noise, marks


def train(  # noqa: PLR0913 - from what, how, and where
    cases: Sequence[Path],
    validation: Sequence[Path],
    settings: SegmentationSettings,
    *,
    view: View = CT,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None] = logger.info,
) -> tuple[VertebraUNet, loop.History]:
    """Train on random sagittal slices of prepared cases; the best network in eval mode, and its curves."""
    torch.manual_seed(settings.seed)
    net = VertebraUNet(levels=len(view.outputs), width=settings.width, repeats=settings.repeats)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate)
    steps = -(-len(cases) * settings.slices_per_case // settings.batch)
    rng = np.random.default_rng(settings.seed)
    learner = loop.Learner(
        module=net,
        optimizer=optimizer,
        schedule=loop.cosine(optimizer, steps=steps * settings.epochs, warmup=round(steps * settings.warmup_epochs)),
        rng=rng,
        generator=torch.Generator().manual_seed(settings.seed),
        epochs=settings.epochs,
        patience=settings.patience,
    )
    held_out = Sagittal([path for path in validation for _ in range(4)], settings.size, settings.seed, view)
    history = loop.fit(
        learner,
        lambda: _epoch(learner, cases, settings, view),
        lambda: {"score": mean_dice(net, held_out, settings.batch)},
        checkpoint=loop.Checkpoint(
            path=folder / "unet.checkpoint",
            made_with={"settings": asdict(settings), "view": asdict(view), "cases": [str(path) for path in cases]},
        ),
        progress=lambda text: progress(f"unet: {text}"),
    )
    return net.eval(), history


def losses(maps: Maps, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cross-entropy and Dice of the levels, cross-entropy of fractures and of the levels that are shown."""
    levels, fractures = labels[:, 0].long(), labels[:, 1]
    truth = one_hot(levels, maps.vertebrae.shape[1]).permute(0, 3, 1, 2)[:, 1:].float()
    share = maps.vertebrae.float().softmax(1)[:, 1:]
    overlap, total = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))
    known = fractures >= 0
    weight = torch.tensor(FRACTURE_WEIGHT, device=labels.device)
    broken = binary_cross_entropy_with_logits(
        maps.fracture.float(), fractures.clamp(min=0), pos_weight=weight, reduction="none"
    )
    return {
        "level loss": cross_entropy(maps.vertebrae.float(), levels),
        "overlap loss": 1 - ((2 * overlap + 1) / (total + 1)).mean(),
        "fracture loss": (broken * known).sum() / known.sum().clamp(min=1),
        "shown loss": 0.2 * binary_cross_entropy_with_logits(maps.shown.float(), truth.amax((2, 3))),
    }


def mean_dice(net: VertebraUNet, sections: Sagittal, batch: int) -> float:
    """Dice over all voxels of all sections, mean of the outputs that they show."""
    device = next(net.parameters()).device
    net.eval()
    view, count = sections.view, len(sections.view.outputs)
    both = truth = torch.zeros(count, dtype=torch.float64)
    for hu, labels in DataLoader(sections, batch):
        levels = labels[:, 0].long()
        with torch.inference_mode():
            found = net(network_input(hu.to(device), view)).vertebrae.argmax(1).cpu()
        marks = [one_hot(part, 1 + count)[..., 1:].double() for part in (found, levels)]
        both = both + (marks[0] * marks[1]).sum((0, 1, 2))
        truth = truth + (marks[0] + marks[1]).sum((0, 1, 2)) / 2
    return float((both / truth)[truth > 0].mean())


def _epoch(
    learner: loop.Learner, cases: Sequence[Path], settings: SegmentationSettings, view: View
) -> dict[str, float]:
    learner.module.train()
    device = next(learner.module.parameters()).device
    order = learner.rng.permutation(np.repeat(np.arange(len(cases)), settings.slices_per_case))
    sections = Sagittal([cases[int(n)] for n in order], settings.size, int(learner.rng.integers(2**31)), view)
    parts = []
    for hu, labels in DataLoader(sections, settings.batch, num_workers=engine.loader_processes(device)):
        with torch.autocast(device.type, torch.bfloat16):  # 0.6 of the time on a CPU that has it in hardware
            maps = learner.module(network_input(hu.to(device), view))
        parts.append(loop.step(learner, losses(maps, labels.to(device))))
    return loop.mean(parts)
