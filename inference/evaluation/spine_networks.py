"""The detectors of a protocol: each trained once, on the same images as the others, and its answers kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference.datasets.spine_images import SpineImages
from inference.evaluation.detection import Image
from inference.nets import detectors
from inference.nets.detector_images import Detections, network_input
from inference.training import detection, spine_learning
from inference.training.detection import DetectionSettings
from inference.training.loop import Checkpoint
from inference.training.spine_learning import MethodSettings

WARM_UP = 2  # images whose time does not count

#: What one detector leaves, for `torch.save`.
Answers = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Network:
    """One table of `[networks]`: what is not in it is as in `[detection]`."""

    name: str
    detection: DetectionSettings
    method: MethodSettings


def networks(table: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[Network, ...]:
    """The tables `[networks]` and `[detection]` of a protocol."""
    methods = {field.name for field in fields(MethodSettings)}
    return tuple(
        Network(
            name=name,
            detection=DetectionSettings(**{**shared, **{k: v for k, v in own.items() if k not in methods}}),
            method=MethodSettings(**{k: v for k, v in own.items() if k in methods}),
        )
        for name, own in table.items()
    )


def answer(  # noqa: PLR0913 - a network, its images, and where
    network: Network,
    parts: Mapping[str, SpineImages],
    *,
    timed: int,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None],
) -> Answers:
    """Train on `train`, stop by `validation`, answer for both others, and time `timed` images of `test`.

    A network that was finished is not trained again; an interrupted one goes on after its last epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = {part: spine_learning.digest(found) for part, found in parts.items()}
    content = {"network": asdict(network), "images": images, "timed": timed, "device": str(device)}
    done = Checkpoint(path=folder / "answers.checkpoint", made_with=content)
    answers: Answers | None = done.load(progress)
    if answers is not None:
        progress("finished before")
        return answers
    learned = spine_learning.learn(
        parts["train"], parts["validation"], network.detection, network.method,
        folder=folder, device=device, progress=progress,
    )  # fmt: skip
    batch = network.detection.batch
    answers = {
        **{part: detection.detect(learned.net, parts[part], batch) for part in ("validation", "test")},
        "seconds": seconds(learned.net, parts["test"], timed),
        "name": learned.name,
        "arguments": dict(learned.arguments),
        "weights": sum(parameter.numel() for parameter in learned.net.parameters()),
        "net": learned.net.state_dict(),
    }
    done.save(answers)
    return answers


def rebuilt(answers: Answers, device: torch.device) -> nn.Module:
    """The trained detector, in eval mode."""
    net = detectors.build(answers["name"], answers["arguments"])
    net.load_state_dict(answers["net"])
    return net.to(device).eval()


def images(answers: Sequence[Detections], part: SpineImages) -> list[Image]:
    """Answers for a part beside its truth, for the measures."""
    return spine_learning.paired(answers, part.truths, part.classes, [one.patient for one in part.slices])


def seconds(net: Callable[[list[torch.Tensor]], Any], part: SpineImages, timed: int) -> list[float]:
    """Of each of the first `timed` images, from grey values in main memory to boxes there, one after the other."""
    device = next(net.parameters()).device if isinstance(net, nn.Module) else torch.device("cpu")
    times = []
    for number in range(WARM_UP + timed):
        image = part[number % len(part)][0]
        start = time.perf_counter()
        with torch.inference_mode():
            found = net([network_input(image.to(device))])
        found[0]["boxes"].cpu()
        times.append(time.perf_counter() - start)
    return times[WARM_UP:]
