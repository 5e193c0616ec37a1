"""How the networks of the paper 001 protocol learn, and how all of them answer the same two questions.

The paper minimises a binary cross-entropy of pixels by stochastic gradient descent; the settings say what differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from inference import engine
from inference.evaluation.kannan_images import Images
from inference.nets.cervical_fracture import images as network_input
from inference.nets.slice_classifiers import VERTEBRAE
from inference.nets.unet import VertebraUNet
from inference.training import loop, vertebra_segmentation
from inference.training.augmentation import augment
from inference.training.fracture_slices import area_under_curve

#: The fracture of an image is as likely as its most suspicious pixels: about POSITIVE_MM2 in a phantom's crop.
SUSPICIOUS_PIXELS = 12
#: Background, C1 to C7, and the fracture region.
REGIONS = 1 + VERTEBRAE + 1
BINS = 100  # of probabilities, among which the threshold of a mask is looked for
TIMED, WARM_UP = 50, 5  # images


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The `[training]` table of the protocol, where every key is explained."""

    images: int
    epochs: int
    batch: int
    learning_rate: float
    warmup_epochs: float
    dropout: float
    patience: int


def learn(
    net: nn.Module,
    parts: Mapping[str, Images],
    settings: TrainingSettings,
    *,
    seed: int,
    checkpoint: loop.Checkpoint,
    progress: Callable[[str], None],
) -> None:
    """Train on random images of `train`, half of them fractured; the net ends as it was best on `validation`."""
    torch.manual_seed(seed)  # dropout draws from it, and should not depend on what was trained before
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate)
    steps = -(-settings.images // settings.batch)
    learner = loop.Learner(
        module=net,
        optimizer=optimizer,
        schedule=loop.cosine(optimizer, steps=steps * settings.epochs, warmup=round(steps * settings.warmup_epochs)),
        rng=np.random.default_rng(seed),
        generator=torch.Generator().manual_seed(seed),
        epochs=settings.epochs,
        patience=settings.patience,
    )
    loop.fit(
        learner,
        lambda: _epoch(learner, parts["train"], settings),
        lambda: {"score": score(net, parts["validation"])},
        checkpoint=checkpoint,
        progress=progress,
    )


def made_with(settings: TrainingSettings, parts: Mapping[str, Images], **others: Any) -> dict[str, Any]:
    """Everything that decides what `learn` ends with."""
    patients = {part: sorted(set(images.patients)) for part, images in parts.items()}
    return {"settings": asdict(settings), "patients": patients, **others}


def logits(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(batch, 3, size, size) to (batch, ways, 8): C1 to C7 (softmax) and fracture (sigmoid).

    A classifier has one way to answer. The U-Net has two: with its class head, and by the area of each vertebra in
    its masks; in both the fracture is read off its mask.
    """
    answer = net(images)
    if not isinstance(net, VertebraUNet):
        return torch.cat([answer.vertebra, answer.fracture[:, None]], 1)[:, None].float()
    fracture = answer.fracture.float().flatten(1).topk(SUSPICIOUS_PIXELS).values.mean(1, keepdim=True)
    area = answer.vertebrae.float().softmax(1)[:, 1:].sum((2, 3)).log()
    return torch.stack([torch.cat([vertebra, fracture], 1) for vertebra in (answer.shown.float(), area)], 1)


def answers(net: nn.Module, images: Images) -> torch.Tensor:
    """`logits` for all images, (n, ways, 8) on the CPU."""
    net.eval()
    device = next(net.parameters()).device
    return engine.in_batches(lambda hu: logits(net, network_input(hu)), images.hu, device=device).cpu()


def mask_threshold(net: VertebraUNet, images: Images) -> float:
    """The probability from which a pixel counts as fractured that gives the largest Dice over all images."""
    broken = everything = torch.zeros(BINS)
    for part, maps in _maps(net, images):
        known = images.fractured[part] >= 0
        probability, truth = maps.fracture.sigmoid()[known].cpu(), images.fractures[part][known]
        everything = everything + torch.histc(probability, BINS, 0, 1)
        broken = broken + torch.histc(probability[truth], BINS, 0, 1)
    hits, called = (one.flip(0).cumsum(0).flip(0) for one in (broken, everything))  # from each bin upwards
    dice = 2 * hits / (called + broken.sum()).clamp(min=1)
    best = torch.nonzero(dice == dice.max())[:, 0]  # the middle one of several is furthest from a mistake
    return int(best[len(best) // 2]) / BINS


def overlaps(net: VertebraUNet, images: Images, threshold: float) -> torch.Tensor:
    """(n, 3, 9): pixels in both, in the answer, and in the truth, for background, C1 to C7 and fracture."""
    rows = []
    for part, maps in _maps(net, images):
        found = _regions(maps.vertebrae.argmax(1).cpu(), (maps.fracture.sigmoid() >= threshold).cpu())
        truth = _regions(images.levels[part], images.fractures[part])
        rows.append(torch.stack([one.sum((2, 3)) for one in (found & truth, found, truth)], 1))
    return torch.cat(rows)


def pictures(net: VertebraUNet, images: Images, at: Sequence[int]) -> dict[str, torch.Tensor]:
    """What a person wants to see of some images: HU, true and found vertebrae (0 to 7), true and found fractures."""
    chosen = list(at)
    with torch.inference_mode():
        maps = net(network_input(images.hu[chosen].to(next(net.parameters()).device)))
    return {
        "hu": images.hu[chosen],
        "true levels": images.levels[chosen],
        "found levels": maps.vertebrae.argmax(1).to(torch.uint8).cpu(),
        "true fractures": images.fractures[chosen],
        "fracture probability": maps.fracture.sigmoid().cpu(),
    }


def seconds_per_image(net: nn.Module, images: Images) -> float:
    """Median time for one image, from HU in main memory to logits there; the first few, which warm up, are left out."""
    device = next(net.parameters()).device
    times = []
    with torch.inference_mode():
        for number in range(WARM_UP + TIMED):
            start = time.perf_counter()
            logits(net, network_input(images.hu[number % len(images)][None].to(device))).cpu()
            times.append(time.perf_counter() - start)
    return float(np.median(times[WARM_UP:]))


def checkpoint_of(folder: Path, name: str, content: Mapping[str, Any]) -> loop.Checkpoint:
    return loop.Checkpoint(path=folder / f"{name}.checkpoint", made_with=content)


def _epoch(learner: loop.Learner, images: Images, settings: TrainingSettings) -> dict[str, float]:
    learner.module.train()
    device = next(learner.module.parameters()).device
    parts = []
    for at in np.array_split(drawn(images, settings.images, learner.rng), -(-settings.images // settings.batch)):
        batch = _changed(images, at, device, learner)
        # bfloat16 halves the time of a step; answers are computed in float32 later.
        with torch.autocast(device.type, torch.bfloat16):
            answer = learner.module(network_input(batch[0]))
        vertebra, fractured = images.vertebra[at].to(device), images.fractured[at].to(device)
        parts.append(loop.step(learner, _losses(answer, vertebra, fractured, batch[1])))
    return loop.mean(parts)


def drawn(images: Images, count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of random images, with replacement: half show a fracture, if any does."""
    positive = images.fractured.numpy() == 1
    chance = np.where(positive, 1 / max(positive.sum(), 1), 1 / max((~positive).sum(), 1))
    return rng.choice(len(images), size=count, p=chance / chance.sum())


def _changed(
    images: Images, at: np.ndarray, device: torch.device, learner: loop.Learner
) -> tuple[torch.Tensor, torch.Tensor]:
    """HU (n, size, size) and the labels (n, 2, size, size) of `vertebra_segmentation`, moved at random alike.

    Classifiers get no masks: moving them would take longer than learning.
    """
    hu = images.hu[at][:, None].to(device)
    masks = hu.new_zeros(len(hu), 0, *hu.shape[2:])
    if isinstance(learner.module, VertebraUNet):
        masks = _regions(images.levels[at].to(device), images.fractures[at].to(device))[:, 1:]
    hu, masks = augment(hu, masks, learner.generator)
    if not masks.shape[1]:
        return hu[:, 0], masks
    most, level = masks[:, :VERTEBRAE].max(1)
    broken = (masks[:, VERTEBRAE] > 0.5).float()
    unknown = images.fractured[at].to(device) < 0
    broken[unknown] = -1
    return hu[:, 0], torch.stack([torch.where(most > 0.5, level + 1, 0).float(), broken], 1)


def _losses(
    answer: Any, vertebra: torch.Tensor, fractured: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    if labels.shape[1]:  # the losses of the masks; the class head names one vertebra, as the classifiers do
        return {
            **vertebra_segmentation.losses(answer, labels),
            "shown loss": cross_entropy(answer.shown.float(), vertebra),
        }
    known = fractured >= 0
    broken = binary_cross_entropy_with_logits(answer.fracture.float(), fractured.clamp(min=0).float(), reduction="none")
    return {
        "vertebra loss": cross_entropy(answer.vertebra.float(), vertebra),
        "fracture loss": (broken * known).sum() / known.sum().clamp(min=1),
    }


def score(net: nn.Module, images: Images) -> float:
    """Mean of the vertebra accuracy and, where fractures are known, the area under their ROC curve."""
    found = answers(net, images)[:, 0]
    known = images.fractured >= 0
    area = area_under_curve(found[known, VERTEBRAE].numpy(), images.fractured[known].numpy())
    accuracy = float((found[:, :VERTEBRAE].argmax(1) == images.vertebra).double().mean())
    return float(np.nanmean([accuracy, area]))


def _regions(levels: torch.Tensor, fractures: torch.Tensor) -> torch.Tensor:
    """Maps (n, size, size) to bool (n, 9, size, size): background, C1 to C7, fracture."""
    each = one_hot(levels.long(), 1 + VERTEBRAE).permute(0, 3, 1, 2).bool()
    return torch.cat([each, fractures[:, None]], 1)


def _maps(net: VertebraUNet, images: Images) -> Any:
    """Pairs of positions and the maps of these images."""
    net.eval()
    device = next(net.parameters()).device
    for start in range(0, len(images), engine.BATCH):
        part = slice(start, start + engine.BATCH)
        with torch.inference_mode():
            yield part, net(network_input(images.hu[part].to(device)))
