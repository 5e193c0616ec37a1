"""One slice as the detectors of papers 000, 002 and 004 read it: grey from 0 to 255, in one size for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate, pad


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A slice enlarged until it fills an image of `size` in one direction; the rest, below or to the right, is black.

    All are (rows, columns): `shape` of the slice, `filled` of what it becomes.
    """

    shape: tuple[int, int]
    filled: tuple[int, int]
    size: tuple[int, int]

    def image(self, values: np.ndarray) -> torch.Tensor:
        """Values of a slice, in any unit, to (rows, columns) float32 from 0 to 255."""
        source = torch.from_numpy(np.array(values, np.float32))[None, None]
        shown = interpolate(source, size=self.filled, mode="bilinear", align_corners=False, antialias=True)[0, 0]
        rest = (self.size[1] - self.filled[1], self.size[0] - self.filled[0])
        return pad(grey(shown), (0, rest[0], 0, rest[1]))

    def forth(self, edges: torch.Tensor) -> torch.Tensor:
        """Boxes (n, 4) left, top, right, bottom in pixels of the slice to pixels of the image."""
        return edges * self._factors(edges)

    def back(self, edges: torch.Tensor) -> torch.Tensor:
        """Boxes in pixels of the image to pixels of the slice, cut off at its edge."""
        height, width = self.shape
        most = edges.new_tensor([width, height, width, height])
        return torch.minimum(edges / self._factors(edges), most)

    def _factors(self, edges: torch.Tensor) -> torch.Tensor:
        down, across = (now / before for now, before in zip(self.filled, self.shape, strict=True))
        return edges.new_tensor([across, down, across, down])


def fit(shape: Sequence[int], spacing: Sequence[float], size: Sequence[int]) -> Fit:
    """Where slices of `shape` (rows, columns) with pixels of `spacing` mm (row, column) lie in images of `size`."""
    extent = [count * step for count, step in zip(shape, spacing, strict=True)]
    factor = min(pixels / mm for pixels, mm in zip(size, extent, strict=True))
    rows, columns = (max(1, round(mm * factor)) for mm in extent)
    return Fit(shape=(shape[0], shape[1]), filled=(rows, columns), size=(size[0], size[1]))


def grey(values: torch.Tensor) -> torch.Tensor:
    """Paper 000, section 5.1: G1 = (G0 - min G0) * 255 / (max G0 - min G0); an image of one value is black."""
    low, high = values.min(), values.max()
    return (values - low) * 255 / (high - low) if high > low else torch.zeros_like(values)
