"""Volumes and label maps on cubic voxels, and back: what a network that looks from the side needs.

The extent of a volume, from edge to edge, stays what it was; voxel sizes are rounded to fit it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate

#: A voxel belongs to a label from this share on: the most probable label of two.
INSIDE = 0.5


def shape_at(shape: Sequence[int], spacing: Sequence[float], mm: float) -> tuple[int, int, int]:
    """The shape of a (slices, rows, columns) volume with voxels of `mm` instead of `spacing` mm."""
    slices, rows, columns = (max(1, round(count * step / mm)) for count, step in zip(shape, spacing, strict=True))
    return slices, rows, columns


def resample(volume: np.ndarray, spacing: Sequence[float], mm: float) -> np.ndarray:
    """(slices, rows, columns) to float32 on cubic voxels; linear, without aliasing."""
    slices, rows, columns = shape_at(volume.shape, spacing, mm)
    across = _resize(torch.from_numpy(np.array(volume, np.float32)), (rows, columns))
    along = _resize(across.permute(1, 0, 2), (slices, columns))
    return along.permute(1, 0, 2).contiguous().numpy()


def resample_labels(labels: np.ndarray, spacing: Sequence[float], mm: float) -> np.ndarray:
    """uint8 labels to uint8 labels on cubic voxels: each voxel gets the label that fills most of it."""
    shape = shape_at(labels.shape, spacing, mm)
    found, most = np.zeros(shape, np.uint8), np.full(shape, INSIDE, np.float32)
    for label in np.unique(labels[labels > 0]):
        share = resample((labels == label).astype(np.float32), spacing, mm)
        larger = share >= most
        found[larger], most[larger] = label, share[larger]
    return found


def enlarge(share: np.ndarray, shape: Sequence[int]) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Where a float32 map of 0..1 reaches a half, on a finer grid of the same extent: a box of it, and bool inside."""
    places = [np.nonzero(share.max(axis=tuple({0, 1, 2} - {axis})) > 0)[0] for axis in range(3)]
    box, out = [], share
    for axis, place in enumerate(places):
        ratio = share.shape[axis] / shape[axis]
        low = max(0, int((place[0] - 0.5) / ratio)) if len(place) else 0
        high = min(shape[axis], int(np.ceil((place[-1] + 1.5) / ratio))) if len(place) else 0
        at = ((np.arange(low, high) + 0.5) * ratio - 0.5).clip(0, share.shape[axis] - 1)
        below = at.astype(int)
        above = np.minimum(below + 1, share.shape[axis] - 1)
        weight = (at - below).astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])
        out = out.take(below, axis) * (1 - weight) + out.take(above, axis) * weight
        box.append(slice(low, high))
    return (box[0], box[1], box[2]), out >= INSIDE


def _resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(images, rows, columns) to another number of rows and columns."""
    return interpolate(images[:, None], size=size, mode="bilinear", align_corners=False, antialias=True)[:, 0]
