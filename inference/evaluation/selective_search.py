"""Selective search (Uijlings et al. 2013, doi 10.1007/s11263-013-0620-5): proposals that nobody had to learn.

R-CNN and Fast R-CNN take their proposals from it in the speed table of paper 000. It needs scikit-image, which is in
`requirements/test.in`: nothing that answers for a patient uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

SCALES = (50, 100)  # of the first segmentation: the paper's fast version
SIGMA, SMALLEST = 0.8, 20  # pixels: smoothing before it, and its smallest region
GREYS, DIRECTIONS, SLOPES = 25, 8, 10  # bins of the histograms
LEAST = 8  # pixels: smaller boxes are no proposals
NEVER = -1.0  # similarity of regions that do not touch


@dataclass
class _Regions:
    """Regions by number; merging puts the union where the first one was."""

    sizes: np.ndarray  # (n,) pixels
    boxes: np.ndarray  # (n, 4) left, top, right, bottom
    greys: np.ndarray  # (n, GREYS) shares
    slopes: np.ndarray  # (n, DIRECTIONS x SLOPES) shares
    touching: np.ndarray  # (n, n) bool
    pixels: int  # of the image

    def similarity(self, one: int) -> np.ndarray:
        """(n,) to every region, `NEVER` for those that do not touch: the paper's equations 2 to 6."""
        colour = np.minimum(self.greys, self.greys[one]).sum(1)
        texture = np.minimum(self.slopes, self.slopes[one]).sum(1)
        together = self.sizes + self.sizes[one]
        union = _union(self.boxes, self.boxes[one])
        gap = ((union[:, 2:] - union[:, :2]).prod(1) - together) / self.pixels
        similar = colour + texture + (1 - together / self.pixels) + (1 - gap)
        return np.where(self.touching[one], similar, NEVER)

    def merge(self, one: int, other: int) -> None:
        """Replace `one` by the union of both; nothing touches `other` any more."""
        share = self.sizes[other] / (self.sizes[one] + self.sizes[other])
        for histograms in (self.greys, self.slopes):
            histograms[one] += share * (histograms[other] - histograms[one])
        self.sizes[one] += self.sizes[other]
        self.boxes[one] = _union(self.boxes[[one]], self.boxes[other])[0]
        self.touching[one] |= self.touching[other]
        self.touching[:, one] = self.touching[one]
        self.touching[one, one] = False
        self.touching[other] = self.touching[:, other] = False


def proposals(image: np.ndarray, *, most: int = 2000) -> torch.Tensor:
    """Boxes (k, 4) left, top, right, bottom of a grey image 0..255, each once, from the largest to the smallest.

    All regions of a hierarchy count: those of the first segmentation, and every union of the two most similar ones.
    """
    found = np.concatenate([_hierarchy(image, scale) for scale in SCALES])
    sides = found[:, 2:] - found[:, :2]
    found = np.unique(found[(sides >= LEAST).all(1)], axis=0)
    areas = (found[:, 2:] - found[:, :2]).prod(1)
    return torch.from_numpy(found[np.argsort(-areas, kind="stable")][:most]).float()


def _hierarchy(image: np.ndarray, scale: int) -> np.ndarray:
    """Boxes (k, 4) of all regions that come about while regions merge."""
    from skimage.segmentation import felzenszwalb

    regions = _described(image, felzenszwalb(image / 255, scale=scale, sigma=SIGMA, min_size=SMALLEST))
    boxes = [regions.boxes.copy()]
    similar = np.stack([regions.similarity(n) for n in range(len(regions.sizes))])
    for _ in range(len(regions.sizes) - 1):
        one, other = np.unravel_index(similar.argmax(), similar.shape)
        regions.merge(int(one), int(other))
        similar[other] = similar[:, other] = NEVER
        similar[one] = similar[:, one] = regions.similarity(int(one))
        boxes.append(regions.boxes[[one]].copy())
    return np.concatenate(boxes)


def _described(image: np.ndarray, labels: np.ndarray) -> _Regions:
    """The regions of a map of labels 0..n-1."""
    count = int(labels.max()) + 1
    edges = [(part[1].start, part[0].start, part[1].stop, part[0].stop) for part in ndimage.find_objects(labels + 1)]
    touching = np.zeros((count, count), bool)
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        touching[one, other] = touching[other, one] = True
    np.fill_diagonal(touching, val=False)
    down, right = (ndimage.gaussian_filter(image.astype(float), 1.0, order=order) for order in ((1, 0), (0, 1)))
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    slopes = [np.maximum(np.cos(angle) * right + np.sin(angle) * down, 0) for angle in angles]
    steepest = max(float(np.max(slopes)), 1e-9)
    textures = [_histogram(slope / steepest, labels, SLOPES, count) for slope in slopes]
    return _Regions(
        sizes=np.bincount(labels.ravel(), minlength=count).astype(float),
        boxes=np.array(edges),
        greys=_histogram(image / 255, labels, GREYS, count),
        slopes=np.concatenate(textures, 1) / DIRECTIONS,
        touching=touching,
        pixels=labels.size,
    )


def _histogram(values: np.ndarray, labels: np.ndarray, bins: int, count: int) -> np.ndarray:
    """(count, bins) shares of the pixels of each region with values 0..1."""
    at = np.minimum((values * bins).astype(int), bins - 1)
    counts = np.bincount((labels * bins + at).ravel(), minlength=count * bins).reshape(count, bins)
    shares: np.ndarray = counts / counts.sum(1, keepdims=True)
    return shares


def _union(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(boxes[:, :2], box[:2]), np.maximum(boxes[:, 2:], box[2:])], 1)
