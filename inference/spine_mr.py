"""The detectors of papers 000, 002 and 004 on sagittal MR, and their answers about single slices.

Training calibrates these answers and the pipelines report them: one path for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool1d

from inference import engine, novelty, weights
from inference.calibrated import platt
from inference.nets import detectors
from inference.nets.detector_images import Detections, network_input
from inference.novelty import Novelty
from inference.preprocess import mr_content
from inference.preprocess.detector_image import Fit, fit

BATCH = 8
#: Of a slice, whatever the width of the detector: means of neighbouring channels. Their covariance, of twice as many in
#: a case, can be told from the one or two hundred series that there are for it.
FEATURES = 64

Manifest = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a detector looks for."""

    region: Literal["cervical", "lumbar"]
    #: As in ImageBox; label n + 1 of the detector is the n-th.
    classes: tuple[str, ...]
    #: Those that make a study positive.
    target: tuple[str, ...]
    #: What the study then has, a key of config/codes.toml.
    question: str


LESIONS, ABNORMAL = ("oedema", "haemorrhage", "mixed"), ("herniation", "slip")
CORD_INJURY, LUMBAR_DISC = "cord-injury-mr", "lumbar-disc-mr"
SUBJECTS = {
    CORD_INJURY: Subject(
        region="cervical", classes=(*LESIONS, "herniation"), target=LESIONS, question="spinal_cord_injury"
    ),
    LUMBAR_DISC: Subject(region="lumbar", classes=("disc", *ABNORMAL), target=ABNORMAL, question="abnormal"),
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a detector found in one slice, the surest first."""

    #: (n, 4) left, top, right, bottom in pixels of the slice.
    edges: np.ndarray
    #: (n,) str.
    labels: np.ndarray
    #: (n,) the detector's own, 0..1; of use between boxes of a class only.
    scores: np.ndarray

    def probabilities(self, calibration: Mapping[str, Mapping[str, float]]) -> np.ndarray:
        """(n,) how probable it is that a reader has drawn each box, by the manifest's calibration of its class."""
        pairs = zip(self.scores.tolist(), self.labels.tolist(), strict=True)
        return np.array([platt(score, calibration[label]) for score, label in pairs])


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the gate judges of a series beyond its headers."""

    #: By the quantities of `mr_content`.
    content: Mapping[str, float]
    #: Of the case, as `novelty` wants them.
    features: torch.Tensor


def detector_net(folder: Path, manifest: Manifest, device: str) -> torch.nn.Module:
    """The detector of a manifest, filled with its verified weights."""
    network = manifest["networks"]["detector"]
    net = detectors.build(network["architecture"], network["arguments"])
    weights.fill(net, weights.load_tensors(folder, manifest), part="detector")
    return net.to(engine.choose_device(device)).eval()


def gate(folder: Path, manifest: Manifest, device: str) -> Novelty:
    """How far a series may be from those of the detector. Raises UntrustedWeights for a model without."""
    missing = [key for key in ("content", "novelty") if key not in manifest]
    if missing:
        raise weights.UntrustedWeights(f"{folder}: the manifest lacks {' and '.join(missing)}; retrain the model")
    found = Novelty(features=manifest["novelty"]["features"])
    weights.fill(found, weights.load_tensors(folder, manifest), part="novelty")
    return found.to(engine.choose_device(device))


def look(net: torch.nn.Module, values: np.ndarray, spacing: tuple[float, float, float], *, size: Sequence[int]) -> Look:
    """Of a whole series: slices from right to left, as `answers` takes them; spacing (slice, row, column) in mm."""
    slices = features(net, values, spacing[1:], size=size)
    return Look(content=mr_content.measure(values, spacing), features=novelty.case_features(slices))


def features(
    net: torch.nn.Module, slices: np.ndarray, spacing: Sequence[float], *, size: Sequence[int]
) -> torch.Tensor:
    """Means over the detector's coarsest map, (slices, features), of slices as `answers` takes them."""
    placed = fit(slices.shape[1:], spacing, size)
    with torch.inference_mode():
        found = [detectors.coarsest(net, images).mean((2, 3)) for images in _batches(net, slices, placed)]
    return adaptive_avg_pool1d(torch.cat(found).float(), FEATURES).cpu()


def answers(
    net: torch.nn.Module,
    slices: np.ndarray,
    spacing: Sequence[float],
    *,
    size: Sequence[int],
    classes: Sequence[str],
) -> list[Answer]:
    """Look at sagittal slices (n, rows, columns), head to feet and front to back, with pixels of `spacing` mm."""
    placed = fit(slices.shape[1:], spacing, size)
    names = np.array(["", *classes])
    with torch.inference_mode():
        found: list[Detections] = [one for images in _batches(net, slices, placed) for one in net(images)]
    return [
        Answer(
            edges=placed.back(one["boxes"].cpu()).numpy(),
            labels=names[one["labels"].cpu().numpy()],
            scores=one["scores"].cpu().numpy(),
        )
        for one in found
    ]


def _batches(net: torch.nn.Module, slices: np.ndarray, placed: Fit) -> Iterator[list[torch.Tensor]]:
    device = next(net.parameters()).device
    for start in range(0, len(slices), BATCH):
        yield [network_input(placed.image(one).to(device)) for one in slices[start : start + BATCH]]
