"""Boxes found in single slices that show one thing become one object of the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from inference.findings import Voxel

OVERLAP = 0.3  # intersection over union of boxes in neighbouring slices that show the same thing


@dataclass(frozen=True, kw_only=True)
class SliceBox:
    """What a detector found in one slice; edges in pixels, (0, 0) is the corner of the first pixel."""

    slice: int
    #: left, top, right, bottom
    edges: tuple[float, float, float, float]
    label: str
    #: Calibrated and as it left the network, 0..1.
    probability: float
    raw: float


@dataclass(frozen=True, kw_only=True)
class Linked:
    """Boxes of neighbouring slices that overlap, surest first; all that is said of them is the surest one's."""

    boxes: tuple[SliceBox, ...]

    @property
    def surest(self) -> SliceBox:
        return self.boxes[0]

    @property
    def label(self) -> str:
        """The class for which most was found: the one with the largest sum of probabilities."""
        sums: dict[str, float] = {}
        for box in self.boxes:
            sums[box.label] = sums.get(box.label, 0.0) + box.probability
        return max(sums, key=lambda label: sums[label])

    def extent(self, shape: tuple[int, int, int]) -> tuple[Voxel, Voxel]:
        """First voxel and one past the last of all boxes, inside a volume of this shape."""
        slices = [box.slice for box in self.boxes]
        left, top, right, bottom = np.array([box.edges for box in self.boxes]).T
        low = (min(slices), max(int(np.floor(top.min())), 0), max(int(np.floor(left.min())), 0))
        high = (
            max(slices) + 1,
            min(max(int(np.ceil(bottom.max())), low[1] + 1), shape[1]),
            min(max(int(np.ceil(right.max())), low[2] + 1), shape[2]),
        )
        return low, high


def link(boxes: Sequence[SliceBox], *, same_label: bool) -> list[Linked]:
    """Join boxes of neighbouring slices that overlap by OVERLAP; surest object first.

    `same_label` keeps classes apart: a disc and a herniation of it in the next slice would be two objects. Without it,
    overlapping boxes of one slice are one object, too: the detector was in two minds about its class.
    """
    if not boxes:
        return []
    edges = np.array([box.edges for box in boxes], float)
    places = np.array([box.slice for box in boxes])
    low, high = np.maximum(edges[:, None, :2], edges[None, :, :2]), np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    area = (edges[:, 2:] - edges[:, :2]).prod(1)
    together = shared / np.maximum(area[:, None] + area[None] - shared, 1e-9) >= OVERLAP
    apart = abs(places[:, None] - places[None])
    if same_label:
        labels = np.array([box.label for box in boxes])
        together &= (apart == 1) & (labels[:, None] == labels[None])
    else:
        together &= apart <= 1
    count, group = connected_components(coo_array(together), directed=False)
    linked = []
    for number in range(count):
        members = [boxes[int(n)] for n in np.flatnonzero(group == number)]
        linked.append(Linked(boxes=tuple(sorted(members, key=lambda box: (-box.probability, box.slice)))))
    return sorted(linked, key=lambda one: (-one.surest.probability, one.surest.slice, one.surest.edges))
