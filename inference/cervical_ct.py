"""The three cervical CT models and their answers about one volume.

Training calibrates on these answers and the pipeline reports them: one path for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import engine, weights
from inference.datasets.labelled import CERVICAL
from inference.nets.cervical_fracture import FractureNets
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.nets.unet import VertebraUNet
from inference.nets.vertebra_fracture import VertebraFracture
from inference.novelty import Novelty
from inference.preprocess import vertebra_crop
from inference.vertebrae import Vertebrae

#: The pipeline whose table pins the three models.
NAME = "cervical-ct-fracture"

#: A slice goes through the core of a vertebra where the outline has at least this share of its largest area.
CORE = 0.5

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class LevelNet:
    """The network for single vertebrae, and the pixels of its images."""

    net: VertebraFracture
    size: int


def fracture_nets(folder: Path, manifest: Manifest, device: str) -> FractureNets:
    """The networks of paper 003, filled with the verified weights of a manifest."""
    slices = ResNet(**manifest["networks"]["slices"]["arguments"])
    sequence = SliceSequence(**manifest["networks"]["sequence"]["arguments"])
    _fill(folder, manifest, device, {"slices": slices, "sequence": sequence})
    return FractureNets(slices, sequence)


def gate(folder: Path, manifest: Manifest, device: str) -> Novelty:
    """How far a case may be from those of paper 003's networks. Raises UntrustedWeights for a model without."""
    missing = [key for key in ("content", "novelty") if key not in manifest]
    if missing:
        raise weights.UntrustedWeights(f"{folder}: the manifest lacks {' and '.join(missing)}; retrain the model")
    novelty = Novelty(features=2 * manifest["networks"]["sequence"]["arguments"]["features"])
    _fill(folder, manifest, device, {"novelty": novelty})
    return novelty


def vertebra_net(folder: Path, manifest: Manifest, device: str) -> VertebraUNet:
    """The U-Net of paper 001, filled with the verified weights of a manifest."""
    net = VertebraUNet(**manifest["networks"]["unet"]["arguments"])
    _fill(folder, manifest, device, {"unet": net})
    return net


def level_net(folder: Path, manifest: Manifest, device: str) -> LevelNet:
    """The network for single vertebrae, filled with the verified weights of a manifest."""
    net = VertebraFracture(**manifest["networks"]["levels"]["arguments"])
    _fill(folder, manifest, device, {"levels": net})
    return LevelNet(net, manifest["input"]["size"])


def _fill(folder: Path, manifest: Manifest, device: str, nets: Mapping[str, torch.nn.Module]) -> None:
    tensors = weights.load_tensors(folder, manifest)
    target = engine.choose_device(device)
    for part, net in nets.items():
        weights.fill(net, tensors, part=part)
        net.to(target, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def level_answers(
    levels: LevelNet, volume: np.ndarray, found: Vertebrae, spacing: Sequence[float], slices: np.ndarray
) -> dict[str, np.ndarray]:
    """What the networks say of each named cervical vertebra of a volume, which is as `vertebrae.locate` wants it.

    `slices` are the logits of paper 003, (views, slices). Of each vertebra (views, 2): the logit of its own network,
    and the highest of the slices through its core. Views are as acquired and mirrored.
    """
    device = next(levels.net.parameters()).device
    answers = {}
    for level in [level for level in CERVICAL if level in found.named]:
        one = found.named[level]
        hu, outline = vertebra_crop.cut(volume, one.box, one.inside, spacing, levels.size)
        images = vertebra_crop.network_input(hu, outline)
        with torch.inference_mode():
            _, logits = levels.net(torch.stack([images, images.flip(-1)]).to(device))
        area = one.inside.sum((1, 2))
        core = one.box[0].start + np.flatnonzero(area >= CORE * area.max())
        answers[level] = np.stack([logits.float().cpu().numpy(), slices[:, core].max(1)], axis=1)
    return answers


def vertebra_logits(fitted: Mapping[str, float], answers: np.ndarray) -> np.ndarray:
    """Calibrated logits (...,) of vertebrae, by logistic regression on both answers (..., 2)."""
    return np.asarray(fitted["bias"] + answers @ np.array([fitted["network"], fitted["slices"]]))


def case_logit(fitted: Mapping[str, float], case: float, vertebrae: Iterable[float]) -> float:
    """Calibrated logit of the case, by logistic regression on that of paper 003 and the most suspicious vertebra's."""
    return fitted["bias"] + fitted["sequence"] * case + fitted["vertebra"] * max(vertebrae)
