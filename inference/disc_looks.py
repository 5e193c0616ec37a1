"""A second look at every place where the detector of discs found something: closer, and in three slices at once.

Detectors find discs soon, but what makes one herniated or slipped is a few pixels among a thousand, which a small
detector learns late. So a small classifier sees each place at the same scale, with its neighbours to the right and
left, and the detector's score is divided among the classes by what it says. Not in the paper (Ke et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import nms, roi_align

from inference import engine, weights
from inference.nets.resnet import ResNet
from inference.spine_levels import WHITE, thousandths
from inference.spine_mr import Answer, Manifest

#: Of a crop: 48 mm hold a disc and half of both vertebrae.
SIDE, PIXEL_MM = 64, 0.75
#: Of two boxes: they are about the same disc.
OVERLAP = 0.5
#: Places with a smaller score are none.
LEAST = 0.02


def look_net(folder: Path, manifest: Manifest, device: str) -> ResNet | None:
    """The classifier of a manifest, filled with its verified weights; None for a model without."""
    if "look" not in manifest["networks"]:
        return None
    net = ResNet(**manifest["networks"]["look"]["arguments"])
    weights.fill(net, weights.load_tensors(folder, manifest), part="look")
    return net.to(engine.choose_device(device)).eval()


def windows(edges: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """(n, 4) edges of what a crop shows around boxes (n, 4), in pixels of `spacing` (row, column) mm."""
    middle = (edges[:, :2] + edges[:, 2:]) / 2
    half = SIDE * PIXEL_MM / 2 / np.array([spacing[1], spacing[0]])
    return np.concatenate([middle - half, middle + half], 1)


def crops(values: np.ndarray, slices: np.ndarray, shown: np.ndarray) -> torch.Tensor:
    """(n, 3, SIDE, SIDE), 0 black and 1 white: `shown` (n, 4) of slices (n,), and of their right and left neighbours.

    Values (slices, rows, columns) as `thousandths` gives them.
    """
    some, place = np.unique(slices, return_inverse=True)
    neighbours = np.clip(some[:, None] + (-1, 0, 1), 0, len(values) - 1)
    images = torch.from_numpy(values[neighbours]).float() / WHITE
    boxes = torch.from_numpy(np.concatenate([place[:, None], shown], 1)).float()
    return torch.as_tensor(roi_align(images, boxes, (SIDE, SIDE), sampling_ratio=1, aligned=True))


def look_again(
    net: ResNet | None, values: np.ndarray, spacing: Sequence[float], found: Sequence[Answer], classes: Sequence[str]
) -> Sequence[Answer]:
    """The answers for the slices of a series, with one box of every class at every place; `spacing` (row, column).

    Without a classifier, the answers as they are.
    """
    if net is None:
        return found
    places = [_places(one) for one in found]
    slices = np.concatenate([np.full(len(one.scores), number) for number, one in enumerate(places)]).astype(int)
    if not len(slices):
        return places
    shown = windows(np.concatenate([one.edges for one in places]), spacing)
    seen = crops(thousandths(values), slices, shown)
    device = next(net.parameters()).device
    said = engine.in_batches(net, seen, device=device).float().softmax(1).cpu().numpy()
    return [_divided(one, said[slices == number], classes) for number, one in enumerate(places)]


def _places(answer: Answer) -> Answer:
    """The surest box of each place, whatever its class."""
    kept = nms(torch.from_numpy(answer.edges).double(), torch.from_numpy(answer.scores).double(), OVERLAP).numpy()
    kept = kept[answer.scores[kept] >= LEAST]
    return Answer(edges=answer.edges[kept], labels=answer.labels[kept], scores=answer.scores[kept])


def _divided(place: Answer, said: np.ndarray, classes: Sequence[str]) -> Answer:
    """The boxes of every class, surest first."""
    scores = (place.scores[:, None] * said).ravel()
    order = np.argsort(-scores, kind="stable")
    labels = np.tile(np.array(classes), len(place.scores))
    return replace(place, edges=place.edges.repeat(len(classes), 0)[order], labels=labels[order], scores=scores[order])
