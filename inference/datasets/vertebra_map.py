"""A map of vertebrae that was stored apart from its CT, brought onto the CT and checked against its bone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from inference.datasets import nifti
from inference.datasets.labelled import UnusableData

BONE = 200  # HU
BONE_SHARE = 0.5  # of the voxels of a map that fits; soft tissue and air fill one that does not


def read_onto(hu: np.ndarray, path: Path) -> np.ndarray:
    """Read a map of vertebrae onto the grid of a CT in the order of a labelled case: uint8, the shape of `hu`.

    The affine of the map decides, unless the map lies better on bone upside down. Raises UnusableData where the sizes
    differ, neither way lies on bone, or the vertebrae run from the head to the feet.
    """
    labels = nifti.vertebrae(nifti.read_image(path).array, path)
    if labels.shape != hu.shape:
        sizes = " and ".join(" x ".join(str(n) for n in shape) for shape in (labels.shape, hu.shape))
        raise UnusableData(f"{path}: the map and the images differ in slices, rows or columns ({sizes})")
    labels = _largest_parts(labels)
    if not labels.any():
        raise UnusableData(f"{path}: no vertebra from C1 to T12 in it; move it away to use the study without a map")
    shares = {flip: float((hu[labels[::flip] > 0] > BONE).mean()) for flip in (1, -1)}
    flip = max(shares, key=lambda one: shares[one])
    if shares[flip] <= BONE_SHARE:
        raise UnusableData(f"{path}: {shares[flip]:.0%} of the map lies on bone at best; it belongs to other images")
    labels = np.ascontiguousarray(labels[::flip])
    present = np.unique(labels[labels > 0])
    upper, lower = (np.flatnonzero((labels == end).any(axis=(1, 2))).mean() for end in (present[0], present[-1]))
    if upper < lower:
        raise UnusableData(f"{path}: C1 is at the feet end; the images or the map have wrong positions")
    return labels


def _largest_parts(labels: np.ndarray) -> np.ndarray:
    """Each vertebra without its stray voxels: the maps are a network's, not all of them cleaned by hand."""
    result = np.zeros_like(labels)
    for index, place in enumerate(ndimage.find_objects(labels), 1):
        if place is not None:
            parts, _ = ndimage.label(labels[place] == index, structure=np.ones((3, 3, 3)))
            result[place][parts == np.bincount(parts.ravel())[1:].argmax() + 1] = index
    return result
