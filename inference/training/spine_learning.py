"""Any detector learns from sagittal MR slices: for the tasks, and for the protocols of papers 000, 002 and 004."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from inference.datasets.spine_images import SpineImages
from inference.evaluation import detection as measures
from inference.evaluation.detection import Boxes, Image
from inference.nets.detector_images import Detections, Target
from inference.nets.yolo import anchors
from inference.training import alternating, detection
from inference.training.detection import DetectionData, DetectionSettings
from inference.training.loop import History

#: The detectors that learn in the four steps of paper 000; the others start from sizes of boxes.
REGION_BASED = ("faster-rcnn-resnet50-fpn", "faster-rcnn-vgg16")


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """The `[method]` table, where every key is explained."""

    #: Whether a YOLO starts from sizes of the training boxes instead of the published ones.
    fitted_anchors: bool = False
    #: Whether a Faster R-CNN learns in the four steps of paper 000 instead of all at once.
    alternating: bool = False


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A detector in eval mode, by what it can be built again, and its curves by stage."""

    net: nn.Module
    name: str
    arguments: Mapping[str, Any]
    curves: Mapping[str, History]


def learn(  # noqa: PLR0913 - from what, how, and where
    training: SpineImages,
    validation: SpineImages,
    settings: DetectionSettings,
    method: MethodSettings,
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None],
) -> Learned:
    """Train the detector of the settings; its number of classes is that of the images.

    Goes on from the checkpoints in `folder`. Raises ValueError for a method that is not the detector's, and where there
    are too few boxes to fit anchors.
    """
    if (method.fitted_anchors and settings.detector in REGION_BASED) or (
        method.alternating and settings.detector not in REGION_BASED
    ):
        raise ValueError(f"[method]: alternating is for {' and '.join(REGION_BASED)}, fitted_anchors for the others")
    arguments = {**settings.arguments, "classes": len(training.classes)}
    if method.fitted_anchors:
        arguments["anchors"] = anchors.of_boxes(training.boxes, seed=settings.seed)
    settings = replace(settings, arguments=arguments)
    data = DetectionData(
        training=training,
        validation=validation,
        score=lambda answers, truths: measures.score(paired(answers, truths, training.classes), training.classes),
        made_with={part: digest(images) for part, images in (("train", training), ("validation", validation))},
    )
    net: Any = detection.untrained(settings)
    curves: Mapping[str, History]
    if method.alternating:
        net, curves = alternating.train(net, data, settings, folder=folder, device=device, progress=progress)
    else:
        net, history = detection.train(net, data, settings, folder=folder, device=device, progress=progress)
        curves = {"detector": history}
    return Learned(net=net, name=settings.detector, arguments=arguments, curves=curves)


def paired(
    answers: Sequence[Detections],
    truths: Sequence[Target],
    classes: Sequence[str],
    patients: Sequence[str] | None = None,
) -> list[Image]:
    """Answers and truths of the same images for the measures; without patients, each image as if of its own."""
    names = np.array(["", *classes])
    owners = [str(number) for number in range(len(truths))] if patients is None else patients
    return [
        Image(
            patient=owner,
            truth=_boxes(truth, names),
            found=_boxes(answer, names),
            scores=answer["scores"].double().numpy(),
        )
        for owner, answer, truth in zip(owners, answers, truths, strict=True)
    ]


def _boxes(target: Mapping[str, torch.Tensor], names: np.ndarray) -> Boxes:
    labels = names[target["labels"].numpy()]
    return Boxes(edges=target["boxes"].double().numpy(), labels=labels, levels=np.full(len(labels), ""))


def digest(images: SpineImages) -> str:
    """Which slices, at which size: a checkpoint of others is not used."""
    text = f"{images.size} {images.classes} {[one.name for one in images.slices]}"
    return hashlib.sha256(text.encode()).hexdigest()
