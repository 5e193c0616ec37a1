"""Sizes that a YOLO starts from: the published ones, or those of the boxes at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

#: Width and height in pixels of images of about 416, from the finest map to the coarsest: YOLOv3, section 2.3.
PUBLISHED = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
MAPS, PER_MAP = 3, 3


def of_boxes(boxes: Sequence[torch.Tensor], *, seed: int) -> list[tuple[int, int]]:
    """Nine typical sizes of the boxes (k, 4) of all images in whole pixels, from small to large.

    k-means of logarithms: what counts for a size is by which factor it misses. Raises ValueError for boxes of fewer
    than nine sizes.
    """
    edges = torch.cat(list(boxes)).double().numpy()
    sizes = np.log(edges[:, 2:] - edges[:, :2])
    count = MAPS * PER_MAP
    if len(np.unique(sizes, axis=0)) < count:
        raise ValueError(f"{len(sizes)} boxes have fewer than {count} sizes: use the published anchors")
    centres, _ = kmeans2(sizes, count, minit="++", seed=seed, missing="raise")
    found = np.exp(centres[centres.sum(1).argsort()]).round().astype(int)
    return [(int(width), int(height)) for width, height in found]
