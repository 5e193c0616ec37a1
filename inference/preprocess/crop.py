"""Find the spine with Otsu's method, cut it out as a square, and put maps back onto the full image.

Paper 003, section 2.1: Otsu on the gross-bone window, a margin of 5 % on each side, zero padding to a
square, resizing. The paper crops every slice by itself; those boxes jump between neighbours (jaw, skull
base, noise), so the default here is one box per case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from inference.preprocess.windows import GROSS_BONE

MARGIN = 0.05  # of the box on each side, as in the paper
PAD_HU = -1024.0  # black in all windows: the zero padding of the paper
BINS = 256
MIN_BONE_PIXELS = 20  # fewer bright pixels are noise, not a vertebra


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square in image pixels, which may reach beyond the image."""

    top: int
    left: int
    side: int
    #: (rows, columns) of the full image.
    image: tuple[int, int]

    def inside(self, array: np.ndarray) -> np.ndarray:
        """The part of (slices, rows, columns) that lies in the square, as it is."""
        rows, columns = self._inside()
        return np.asarray(array[:, rows, columns])

    def cut(self, hu: torch.Tensor, size: int) -> torch.Tensor:
        """(slices, rows, columns) HU to (slices, size, size), black outside the image."""
        rows, columns = self._inside()
        square = hu.new_full((len(hu), self.side, self.side), PAD_HU, dtype=torch.float32)
        square[:, self._shifted(rows, self.top), self._shifted(columns, self.left)] = hu[:, rows, columns].float()
        return interpolate(square[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]

    def put_back(self, maps: torch.Tensor) -> torch.Tensor:
        """(slices, height, width) maps of the crop, at any resolution, to (slices, rows, columns); 0 outside."""
        square = interpolate(maps[:, None], size=(self.side, self.side), mode="bilinear", align_corners=False)[:, 0]
        rows, columns = self._inside()
        full = maps.new_zeros((len(maps), *self.image))
        full[:, rows, columns] = square[:, self._shifted(rows, self.top), self._shifted(columns, self.left)]
        return full

    def _inside(self) -> tuple[slice, slice]:
        rows = slice(max(self.top, 0), min(self.top + self.side, self.image[0]))
        columns = slice(max(self.left, 0), min(self.left + self.side, self.image[1]))
        return rows, columns

    @staticmethod
    def _shifted(span: slice, start: int) -> slice:
        return slice(span.start - start, span.stop - start)


def otsu(values: np.ndarray) -> float:
    """The threshold that separates values in 0..1 into two classes with the greatest variance between them."""
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts, dtype=np.float64)
    above = below[-1] - below
    moment = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (moment / below - (moment[-1] - moment) / above) ** 2
    between = np.nan_to_num(between, nan=0.0, posinf=0.0)
    best = np.nonzero(between == between.max())[0]  # a plateau between two separate classes: take its middle
    return float(edges[1:][best].mean())


def slice_box(hu: np.ndarray) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) of the bone in one slice (rows, columns) of HU; None without bone."""
    low, high = GROSS_BONE.centre - GROSS_BONE.width / 2, GROSS_BONE.centre + GROSS_BONE.width / 2
    image = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)
    bone = _without_specks(image > max(otsu(image), 0.2))
    if bone.sum() < MIN_BONE_PIXELS:
        return None
    rows, columns = np.nonzero(bone.any(1))[0], np.nonzero(bone.any(0))[0]
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def slice_crops(hu: np.ndarray) -> list[Crop | None]:
    """The paper's crop: one square per slice (slices, rows, columns); None for slices without bone."""
    boxes = [slice_box(plane) for plane in hu]
    rows, columns = hu.shape[1:]
    return [None if box is None else _square(box, (rows, columns)) for box in boxes]


def case_crop(hu: np.ndarray) -> Crop | None:
    """One square for all slices: each edge is the median of the slices' edges. None without bone."""
    found = [box for box in (slice_box(plane) for plane in hu) if box is not None]
    if not found:
        return None
    top, left, bottom, right = np.median(found, axis=0).astype(int)
    rows, columns = hu.shape[1:]
    return _square((int(top), int(left), int(bottom), int(right)), (rows, columns))


def _square(box: tuple[int, int, int, int], image: tuple[int, int]) -> Crop:
    top, left, bottom, right = box
    side = max(round(max(bottom - top, right - left) * (1 + 2 * MARGIN)), 8)
    return Crop(top=round((top + bottom - side) / 2), left=round((left + right - side) / 2), side=side, image=image)


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Keep pixels with at least 5 of 9 neighbours set: single noisy pixels must not move the box."""
    padded = np.pad(mask.astype(np.uint8), 1)
    rows, columns = mask.shape
    count = sum(padded[r : r + rows, c : c + columns] for r in range(3) for c in range(3))
    return np.asarray(mask & (np.asarray(count) >= 5))
