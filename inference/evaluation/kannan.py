"""The comparison of paper 001 (Kannan et al.): a custom CNN, transfer learning, and a U-Net, on axial CT images.

Read `evaluate`, then `answer`, which is one network. The paper fine-tunes networks that others trained on photographs.
Here a network for transfer first learns to name the vertebrae of other, easier phantoms. All networks of a run learn
from the same images, stop on the same validation patients, and answer for the same test patients.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference.datasets.labelled import UnusableData
from inference.datasets.store import prepare
from inference.evaluation import kannan_training as training
from inference.evaluation.kannan_images import Images, gather
from inference.evaluation.kannan_training import TrainingSettings
from inference.evaluation.protocol import Request
from inference.nets.slice_classifiers import CLASSIFIERS, VERTEBRAE, Widths
from inference.nets.unet import VertebraUNet
from inference.training.parts import divided

#: The three families of the paper's figure 3.
CUSTOM, TRANSFER, ENCODER_DECODER = "custom CNN", "transfer learning", "encoder-decoder"
UNET = "U-Net, Inception-ResNet-v2 encoder"
EXAMPLES = 6

#: What one network leaves, for `torch.save`.
Answers = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """The `[pretraining]` table, where every key is explained."""

    data: str
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A file of `config/protocols/`, where every key is explained."""

    data: str
    size: int
    stride: int
    seed: int
    shares: Mapping[str, float]
    widths: Widths
    training: TrainingSettings
    pretraining: PretrainingSettings


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of the comparison."""

    family: str
    net: str
    #: Trained on another task before; otherwise from random weights.
    transferred: bool = False

    @property
    def name(self) -> str:
        return self.net if self.transferred or self.family != TRANSFER else f"{self.net}, from scratch"


ROWS = (
    Row(family=CUSTOM, net="custom CNN"),
    *(Row(family=TRANSFER, net=net, transferred=True) for net in CLASSIFIERS if net != "custom CNN"),
    # The same network without the transfer: what the transfer is worth.
    Row(family=TRANSFER, net="ResNet-50"),
    Row(family=ENCODER_DECODER, net=UNET),
)


def read_settings(path: Path) -> Settings:
    """Raises ValueError unless there are shares for exactly the three parts."""
    table = tomllib.loads(path.read_text())
    kinds = {"widths": Widths, "training": TrainingSettings, "pretraining": PretrainingSettings}
    settings = Settings(**{**table, **{name: kind(**table[name]) for name, kind in kinds.items()}})
    if set(settings.shares) != {"train", "validation", "test"}:
        raise ValueError(f"{path}: [shares] needs train, validation and test, not {', '.join(settings.shares)}")
    return settings


def evaluate(request: Request) -> list[Path]:
    """Train and test all networks, write the result files, and return their paths.

    A network that was finished is not trained again; an interrupted one goes on after its last epoch. Raises
    UnusableData when a part lacks a class, or a case the map of its vertebrae.
    """
    from inference.evaluation import kannan_report as report

    settings = read_settings(request.settings)
    if request.data is not None:
        settings = replace(settings, data=request.data)
    cases = divided(settings.data, settings.shares, prepare, cache=request.cache, progress=request.progress)
    parts = {
        part: gather(chosen, size=settings.size, stride=1 if part == "train" else settings.stride)
        for part, chosen in cases.items()
    }
    _require_both_classes(parts)
    other = _pretraining(settings, parts, request)
    for part, images in parts.items():
        request.progress(f"{part}: {len(images)} images of {len(cases[part])} cases")
    found = {
        row.name: answer(
            row,
            parts,
            other,
            settings,
            folder=request.cache / request.name / row.name.replace(" ", "-").replace(",", ""),
            device=request.device,
            progress=lambda text, row=row: request.progress(f"{row.name}: {text}"),  # type: ignore[misc]
        )
        for row in ROWS
    }
    return report.write(request, settings, cases, parts, found)


def _require_both_classes(parts: Mapping[str, Images]) -> None:
    for part, images in parts.items():
        for label, kind in ((1, "shows a fracture"), (0, "is without one")):
            if not (images.fractured == label).any():
                raise UnusableData(f"none of the {len(images)} images of the part {part} {kind}: add cases")


def _pretraining(settings: Settings, parts: Mapping[str, Images], request: Request) -> dict[str, Images]:
    """Images for naming vertebrae alone. Raises UnusableData when one of their patients is in another part."""
    shares = {part: settings.shares[part] for part in ("train", "validation")}
    cases = divided(settings.pretraining.data, shares, prepare, cache=request.cache, progress=request.progress)
    patients = {patient for images in parts.values() for patient in images.patients}
    shared = patients & {case.patient for chosen in cases.values() for case in chosen}
    if shared:
        raise UnusableData(
            f"{settings.pretraining.data} shares {len(shared)} patients with {settings.data}, such as {min(shared)}: "
            "the networks would be tested on what they were trained with"
        )
    found = {
        part: gather(chosen, size=settings.size, stride=1 if part == "train" else settings.stride)
        for part, chosen in cases.items()
    }
    return {part: replace(one, fractured=torch.full_like(one.fractured, -1)) for part, one in found.items()}


def answer(  # noqa: PLR0913 - a network, its data, and where
    row: Row,
    parts: Mapping[str, Images],
    other: Mapping[str, Images],
    settings: Settings,
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None],
) -> Answers:
    """Train one network on `train`, decide on `validation`, and answer for `test`; `folder` keeps the state.

    `other` are the images of the first task of a network for transfer. All its weights are kept and learn on.
    """
    content = training.made_with(
        settings.training, parts, row=asdict(row), widths=asdict(settings.widths), size=settings.size,
        stride=settings.stride, seed=settings.seed, device=str(device),
    )  # fmt: skip
    if row.transferred:
        first = replace(settings.training, epochs=settings.pretraining.epochs)
        content["first"] = training.made_with(first, other, data=settings.pretraining.data)
    done = training.checkpoint_of(folder, "answers", content)
    answers: Answers | None = done.load(progress)
    if answers is not None:
        progress("finished before")
        return answers
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    net = build(row.net, settings).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if row.transferred:
        training.learn(
            net, other, first, seed=settings.seed,
            checkpoint=training.checkpoint_of(folder, "first-task", content),
            progress=lambda text: progress(f"first task: {text}"),
        )  # fmt: skip
    training.learn(
        net, parts, settings.training, seed=settings.seed,
        checkpoint=training.checkpoint_of(folder, "training", content), progress=progress,
    )  # fmt: skip
    answers = _tested(net, parts)
    done.save(answers)
    return answers


def build(net: str, settings: Settings) -> nn.Module:
    """A network with random weights."""
    widths = settings.widths
    if net == UNET:
        return VertebraUNet(levels=VERTEBRAE, width=widths.inception, repeats=widths.repeats)
    return CLASSIFIERS[net](widths, settings.training.dropout)


def _tested(net: nn.Module, parts: Mapping[str, Images]) -> Answers:
    test = parts["test"]
    answers: Answers = {
        "weights": sum(parameter.numel() for parameter in net.parameters()),
        **{part: training.answers(net, parts[part]) for part in ("validation", "test")},
        "seconds": training.seconds_per_image(net, test),
    }
    if isinstance(net, VertebraUNet):
        threshold = training.mask_threshold(net, parts["validation"])
        examples = _examples(test)
        answers |= {
            "mask threshold": threshold,
            "overlaps": training.overlaps(net, test, threshold),
            "examples": examples,
            "pictures": training.pictures(net, test, examples),
        }
    return answers


def _examples(images: Images) -> list[int]:
    """Positions of images for people, half of them fractured, spread over the patients."""
    chosen = []
    for label in (1, 0):
        at = torch.nonzero(images.fractured == label)[:, 0]
        chosen += at[torch.linspace(0, len(at) - 1, EXAMPLES // 2).long()].tolist()
    return chosen
