"""The experiments of papers 000 (Shao 2024, doi 10.18280/ts.410212) and 002 (Ma 2020, doi 10.1002/acm2.13001).

Two backbones of Faster R-CNN, and its speed beside R-CNN and Fast R-CNN. Read `evaluate`, then `_speed`. All networks
of a run learn from the same slices and answer for the same test patients, of whom every slice counts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN

from inference import engine
from inference.datasets.mr_store import prepare_mr
from inference.datasets.spine_images import ImageSettings, SpineImages, gather
from inference.evaluation import rcnn, spine_networks
from inference.evaluation.detection_tables import Method
from inference.evaluation.protocol import Request
from inference.evaluation.selective_search import proposals
from inference.evaluation.spine_networks import Answers, Network, networks
from inference.nets.detector_images import Detections
from inference.nets.faster_rcnn import maps_by_name
from inference.spine_mr import CORD_INJURY, SUBJECTS
from inference.training.parts import divided


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """The `[speed]` table, where every key is explained."""

    network: str
    examples: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A file of `config/protocols/`, where every key is explained."""

    #: A data set, or several.
    data: str | Sequence[str]
    shares: Mapping[str, float]
    images: ImageSettings
    speed: SpeedSettings
    networks: tuple[Network, ...]


def read_settings(path: Path) -> Settings:
    """Raises ValueError unless there are shares for exactly the three parts, and the speed is that of a network."""
    table = tomllib.loads(path.read_text())
    nets = networks(table.pop("networks"), table.pop("detection"))
    kinds = {"images": ImageSettings, "speed": SpeedSettings}
    settings = Settings(**{**table, **{name: kind(**table[name]) for name, kind in kinds.items()}}, networks=nets)
    if set(settings.shares) != {"train", "validation", "test"}:
        raise ValueError(f"{path}: [shares] needs train, validation and test, not {', '.join(settings.shares)}")
    if settings.speed.network not in {network.name for network in nets}:
        raise ValueError(f"{path}: [speed] has the network {settings.speed.network!r}, which is none of [networks]")
    return settings


def evaluate(request: Request) -> list[Path]:
    """Train and test all networks, write the result files, and return their paths. Raises UnusableData."""
    from inference.evaluation import spine_report as report

    settings = read_settings(request.settings)
    if request.data is not None:
        settings = replace(settings, data=request.data)
    studies = divided(settings.data, settings.shares, prepare_mr, cache=request.cache, progress=request.progress)
    every = replace(settings.images, with_target=1.0, with_boxes=1.0, without_boxes=1.0)
    parts = {
        part: gather(found, SUBJECTS[CORD_INJURY], every if part == "test" else settings.images)
        for part, found in studies.items()
    }
    answers = {
        network.name: spine_networks.answer(
            network,
            parts,
            timed=settings.speed.images,
            folder=request.cache / request.name / network.name.replace(", ", "-"),
            device=request.device,
            progress=_named(network.name, request.progress),
        )
        for network in settings.networks
    }
    methods = _speed(settings.speed, answers[settings.speed.network], parts, request)
    return report.shao2024(request, settings, parts, answers, (methods, engine.machine(request.device)))


def _named(name: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: progress(f"{name}: {text}")


class Pooled(nn.Module):
    """What R-CNN takes of a proposal: the coarsest level of the pyramid, the mean of its places."""

    def __init__(self, net: FasterRCNN) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, 3, height, width) 0..1 to (batch, n)."""
        batch, _ = self.net.transform(list(images))
        *_, coarsest = maps_by_name(self.net.backbone, batch.tensors).values()
        return torch.as_tensor(coarsest.mean((2, 3)))


def _speed(
    settings: SpeedSettings, answers: Answers, parts: Mapping[str, SpineImages], request: Request
) -> list[Method]:
    """Table 6 of paper 000 on one trained network: the three methods differ in where and how often they look.

    Fast R-CNN is its second stage; R-CNN learns its classifiers on the features of its pyramid, from a few images.
    """
    net: Any = spine_networks.rebuilt(answers, request.device)
    request.progress(f"R-CNN: learns from {settings.examples} images")
    chosen = [parts["train"][n] for n in range(min(settings.examples, len(parts["train"])))]
    inputs = [(image / 255).expand(3, -1, -1).to(request.device) for image, _, _ in chosen]
    targets = [{"boxes": b.to(request.device), "labels": labels.to(request.device)} for _, b, labels in chosen]
    one = rcnn.fit(Pooled(net), proposals, inputs, targets, classes=len(parts["train"].classes))
    rows: list[tuple[str, str, str, str, Callable[[list[torch.Tensor]], Sequence[Detections]]]] = [
        ("R-CNN", "selective search", "of every proposal", "linear SVM", lambda images: one(_moved(images, request))),
        ("Fast R-CNN", "selective search", "of the image", "softmax", rcnn.FastRCNN(net, proposals).eval()),
        ("Faster R-CNN", "RPN", "of the image", "softmax", net),
    ]
    methods = []
    for name, source, features, classifier, call in rows:
        request.progress(f"{name}: {settings.images} images, one by one")
        times = spine_networks.seconds(call, parts["test"], settings.images)
        methods.append(
            Method(name=name, proposals=source, features=features, classifier=classifier, seconds=tuple(times))
        )
    return methods


def _moved(images: Sequence[torch.Tensor], request: Request) -> list[torch.Tensor]:
    return [image.to(request.device) for image in images]
