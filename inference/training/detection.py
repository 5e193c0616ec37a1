"""Trains any detector of this package on labelled images, by SGD with momentum 0.9, and keeps the best state.

What papers 000 and 004 set differently is in `DetectionSettings`. Convolutions run in float32 (TF32 on a GPU):
torchvision's box decoding rounds coordinates to the precision of the maps, and in bfloat16 that is 4 pixels at 600.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from inference import engine
from inference.nets import detectors
from inference.nets.detector_images import Detections, Target, network_input
from inference.training import loop
from inference.training.box_augmentation import Changed, Labelled, LabelledImages, rescaled

logger = logging.getLogger(__name__)

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """The `[detection]` table of the training configuration, where every key is explained."""

    #: A name in `inference.nets.detectors`, and the arguments of that detector.
    detector: str
    arguments: Mapping[str, Any]
    #: A name in `inference.training.box_augmentation`.
    augmentation: str
    #: Chance of an image to be mixed with another one.
    mixup: float
    #: Every batch is scaled by one of these factors, drawn at random.
    scales: Sequence[float]
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    #: Epochs after which the rate falls to a tenth; empty for half a cosine instead.
    drop_epochs: Sequence[int]
    #: The longest gradient; longer ones are shortened to it.
    clip_norm: float
    #: Decay per step of the moving average of the weights that answers; 0 for the weights themselves.
    average: float
    patience: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """What to learn from, and how answers are judged."""

    training: LabelledImages
    validation: LabelledImages
    #: Of all answers and truths of `validation`; the higher, the better.
    score: Callable[[Sequence[Detections], Sequence[Target]], float]
    #: What the images are. A checkpoint made with others is not used.
    made_with: Mapping[str, Any]


class Averaging(nn.Module):
    """A net that learns, and the moving average of its weights and statistics that answers."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__()
        self.net, self.decay = net, decay
        self.average = AveragedModel(net, use_buffers=True)

    def update(self) -> None:
        """Take the weights after a step into the average; it is shorter over the first steps, which know nothing."""
        steps = int(self.average.n_averaged)
        decay = min(self.decay, (1 + steps) / (10 + steps))
        self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.average.update_parameters(self.net)


def untrained(settings: DetectionSettings) -> nn.Module:
    """The detector of the settings, with the weights of its seed."""
    torch.manual_seed(settings.seed)
    return detectors.build(settings.detector, settings.arguments)


def train(
    net: nn.Module,
    data: DetectionData,
    settings: DetectionSettings,
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None] = logger.info,
) -> tuple[nn.Module, loop.History]:
    """Train what is not frozen in the net; the best one in eval mode, and its curves.

    Goes on from `folder/detector.checkpoint` after an interruption, and ends with the same weights.
    """
    torch.manual_seed(settings.seed)
    both = Averaging(net.to(device), settings.average)
    optimizer = torch.optim.SGD(_groups(net, settings.weight_decay), lr=settings.learning_rate, momentum=MOMENTUM)
    learner = loop.Learner(
        module=both,
        optimizer=optimizer,
        schedule=_schedule(optimizer, settings, -(-len(data.training) // settings.batch)),
        rng=np.random.default_rng(settings.seed),
        generator=torch.Generator(),
        epochs=settings.epochs,
        patience=settings.patience,
    )
    truths = [truth(data.validation[n]) for n in range(len(data.validation))]
    history = loop.fit(
        learner,
        lambda: _epoch(learner, both, data.training, settings),
        lambda: {"score": data.score(detect(both.average.module, data.validation, settings.batch), truths)},
        checkpoint=loop.Checkpoint(
            path=folder / "detector.checkpoint", made_with={"settings": asdict(settings), "data": data.made_with}
        ),
        progress=progress,
    )
    best: nn.Module = both.average.module
    return best.eval(), history


def detect(net: nn.Module, images: LabelledImages, batch: int) -> list[Detections]:
    """The answers for all images, on the CPU."""
    device = next(net.parameters()).device
    net.eval()
    found: list[Detections] = []
    for start in range(0, len(images), batch):
        some = [images[n][0] for n in range(start, min(start + batch, len(images)))]
        with torch.inference_mode():
            answers = net([network_input(image.to(device)) for image in some])
        found += [{key: value.cpu() for key, value in answer.items()} for answer in answers]
    return found


def truth(item: Labelled) -> Target:
    """Boxes and labels as the answer of a perfect detector, without scores."""
    return {"boxes": item[1], "labels": item[2]}


def _groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    """What learns. Weight decay makes filters smaller, not biases nor the scale of a normalisation."""
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in learning if one.ndim > 1], "weight_decay": decay},
        {"params": [one for one in learning if one.ndim <= 1], "weight_decay": 0.0},
    ]


def _schedule(
    optimizer: torch.optim.Optimizer, settings: DetectionSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    warmup = round(steps * settings.warmup_epochs)
    if settings.drop_epochs:
        return loop.falling(optimizer, drops=[epoch * steps for epoch in settings.drop_epochs], warmup=warmup)
    return loop.cosine(optimizer, steps=steps * settings.epochs, warmup=warmup)


def _epoch(
    learner: loop.Learner, both: Averaging, images: LabelledImages, settings: DetectionSettings
) -> dict[str, float]:
    both.net.train()
    device = next(both.net.parameters()).device
    order = learner.rng.permutation(len(images)).tolist()
    items = Changed(images, order, settings.augmentation, settings.mixup, int(learner.rng.integers(2**31)))
    parts = []
    for some in DataLoader(
        items, settings.batch, num_workers=engine.loader_processes(device), collate_fn=list, generator=learner.generator
    ):
        scale = float(learner.rng.choice(settings.scales))
        inputs = [image.to(device) for image, _ in some]
        targets = [{key: value.to(device) for key, value in target.items()} for _, target in some]
        parts.append(loop.step(learner, both.net(*rescaled(inputs, targets, scale)), clip_norm=settings.clip_norm))
        both.update()
    return loop.mean(parts)
