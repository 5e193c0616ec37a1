"""The three cervical CT models and their answers about one volume.

Training calibrates on these answers and the pipeline reports them: one path for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class LevelAnswer:
    """Logits of one vertebra, as acquired and mirrored."""

    logits: tuple[float, float]

    @property
    def logit(self) -> float:
        """The mean of both views."""
        return float(np.mean(self.logits))


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


def level_net(folder: Path, manifest: Manifest, device: str) -> VertebraFracture:
    """The network for single vertebrae, filled with the verified weights of a manifest."""
    net = VertebraFracture(**manifest["networks"]["levels"]["arguments"])
    _fill(folder, manifest, device, {"levels": net})
    return net


def _fill(folder: Path, manifest: Manifest, device: str, nets: Mapping[str, torch.nn.Module]) -> None:
    tensors = weights.load_tensors(folder, manifest)
    target = engine.choose_device(device)
    for part, net in nets.items():
        weights.fill(net, tensors, part=part)
        net.to(target, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def level_answers(
    net: VertebraFracture, volume: np.ndarray, found: Vertebrae, spacing: Sequence[float], size: int
) -> dict[str, LevelAnswer]:
    """An answer for each named cervical vertebra of a volume (feet to head, front to back, right to left), in HU."""
    levels = [level for level in CERVICAL if level in found.named]
    device = next(net.parameters()).device
    answers = {}
    for level in levels:
        one = found.named[level]
        hu, outline = vertebra_crop.cut(volume, one.box, one.inside, spacing, size)
        images = vertebra_crop.network_input(hu, outline)
        with torch.inference_mode():
            _, logits = net(torch.stack([images, images.flip(-1)]).to(device))
        answers[level] = LevelAnswer((float(logits[0]), float(logits[1])))
    return answers


def stacked(stacking: Mapping[str, float], case: float, levels: Mapping[str, LevelAnswer]) -> float:
    """Logit of the case, by logistic regression on that of paper 003 and that of the most suspicious vertebra."""
    highest = max(answer.logit for answer in levels.values())
    return stacking["bias"] + stacking["case"] * case + stacking["levels"] * highest
