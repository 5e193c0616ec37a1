"""The image series of a study, as arrays in the patient's coordinates: what a scanner makes of one volume.

Volumes are (slices, rows, columns) in HU, slice 0 the lowest; positions are patient LPS in mm, of the centre of an
image's first pixel (PS3.3 C.7.6.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from inference.phantom.specification import Point, Scan

AXIAL = (1, 0, 0, 0, 1, 0)
#: Rows of the image run to the feet; along a row, to the back or to the patient's left.
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)
SOFT_BLUR_MM = 0.7
MPR_STEP_MM = 2.0
#: Reformats show this share of the field of view around its centre: the spine, not the shoulders.
MPR_SHARE = 0.6


@dataclass(frozen=True, kw_only=True)
class Plane:
    """How an image lies in the patient."""

    #: Direction cosines along a row and along a column.
    orientation: tuple[float, ...]
    #: mm between rows and between columns.
    pixel_spacing: tuple[float, float]
    thickness_mm: float


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image of a series."""

    #: Tells the image from the others of its series, in its UID.
    name: str
    #: int16 (rows, columns): HU of a CT.
    pixels: np.ndarray
    position: Point
    plane: Plane


@dataclass(frozen=True, kw_only=True)
class Series:
    """Images that belong together, in the order of their Instance Numbers."""

    #: Such as scout, axial or "sagittal T2": also its part in UIDs.
    kind: str
    images: tuple[Image, ...]


def position(scan: Scan, index: float) -> Point:
    """Image Position (Patient) of axial slice `index`, mm; between slices for a fraction."""
    x, y, z = (o + t for o, t in zip(scan.origin, scan.table, strict=True))
    return round(x, 4), round(y, 4), round(z + index * scan.spacing[0], 4)


def all_series(volume: np.ndarray, scan: Scan) -> Iterator[Series]:
    """Every image series of a study, in the order in which a scanner makes them."""
    for make in (scout, axial, soft, sagittal, coronal):
        yield make(volume, scan)


def scout(volume: np.ndarray, scan: Scan) -> Series:
    """A side view and a front view: mean HU along x and along y, head up."""
    step, row, column = scan.spacing
    width, depth = scan.shape[2] * column, scan.shape[1] * row
    x, y, z = position(scan, len(volume) - 1)
    side = Plane(orientation=SAGITTAL, pixel_spacing=(step, row), thickness_mm=round(width, 4))
    front = Plane(orientation=CORONAL, pixel_spacing=(step, column), thickness_mm=round(depth, 4))
    views = ((side, 2, (x + width / 2, y, z)), (front, 1, (x, y + depth / 2, z)))
    images = tuple(
        Image(name=str(i), pixels=_int16(volume[::-1].mean(axis)), position=_rounded(place), plane=plane)
        for i, (plane, axis, place) in enumerate(views)
    )
    return Series(kind="scout", images=images)


def axial(volume: np.ndarray, scan: Scan) -> Series:
    """The thin series with the bone kernel: the volume as it is."""
    plane = Plane(orientation=AXIAL, pixel_spacing=scan.spacing[1:], thickness_mm=scan.spacing[0])
    images = tuple(
        Image(name=str(i), pixels=volume[i], position=position(scan, i), plane=plane)
        for i in _scanned(len(volume), scan)
    )
    return Series(kind="axial", images=images)


def soft(volume: np.ndarray, scan: Scan) -> Series:
    """Twice as thick and smoother, as with a soft-tissue kernel; an odd slice at the head is left out."""
    pairs = len(volume) // 2
    thick = volume[: 2 * pairs].reshape(pairs, 2, *volume.shape[1:]).mean(1, dtype=np.float32)
    for axis in (1, 2):
        thick = gaussian_filter1d(thick, SOFT_BLUR_MM / scan.spacing[axis], axis)
    pixels = _int16(thick)
    plane = Plane(orientation=AXIAL, pixel_spacing=scan.spacing[1:], thickness_mm=2 * scan.spacing[0])
    images = tuple(
        Image(name=str(i), pixels=pixels[i], position=position(scan, 2 * i + 0.5), plane=plane)
        for i in _scanned(pairs, scan)
    )
    return Series(kind="soft", images=images)


def sagittal(volume: np.ndarray, scan: Scan) -> Series:
    """Reformats from the patient's right to the left, each the mean over about MPR_STEP_MM."""
    x, y, z = position(scan, len(volume) - 1)
    step, row, column = scan.spacing
    slabs, centres, thickness = _slabs(volume, 2, column)
    pixels = _int16(_upright(slabs, step / row))
    plane = Plane(orientation=SAGITTAL, pixel_spacing=(row, row), thickness_mm=thickness)
    images = tuple(
        Image(name=str(i), pixels=pixels[:, :, i], position=_rounded((x + centre, y, z)), plane=plane)
        for i, centre in enumerate(centres)
    )
    return Series(kind="sagittal", images=images)


def coronal(volume: np.ndarray, scan: Scan) -> Series:
    """Reformats from front to back, each the mean over about MPR_STEP_MM."""
    x, y, z = position(scan, len(volume) - 1)
    step, row, column = scan.spacing
    slabs, centres, thickness = _slabs(volume, 1, row)
    pixels = _int16(_upright(slabs, step / column))
    plane = Plane(orientation=CORONAL, pixel_spacing=(column, column), thickness_mm=thickness)
    images = tuple(
        Image(name=str(i), pixels=pixels[:, i], position=_rounded((x, y + centre, z)), plane=plane)
        for i, centre in enumerate(centres)
    )
    return Series(kind="coronal", images=images)


def _scanned(count: int, scan: Scan) -> range:
    """Indices of axial slices in the order of their Instance Numbers."""
    return range(count) if scan.upwards else range(count)[::-1]


def _slabs(volume: np.ndarray, axis: int, pixel_mm: float) -> tuple[np.ndarray, list[float], float]:
    """Means over neighbouring pixels along an axis around its middle, their centres and their thickness in mm."""
    size, thick = volume.shape[axis], max(round(MPR_STEP_MM / pixel_mm), 1)
    count = max(int(size * MPR_SHARE) // thick, 1)
    first = (size - count * thick) // 2
    part = volume.take(range(first, first + count * thick), axis)
    shape = (*part.shape[:axis], count, thick, *part.shape[axis + 1 :])
    means = part.reshape(shape).mean(axis + 1, dtype=np.float32)
    centres = [(first + thick * i + (thick - 1) / 2) * pixel_mm for i in range(count)]
    return means, centres, round(thick * pixel_mm, 4)


def _upright(slabs: np.ndarray, pixels_per_slice: float) -> np.ndarray:
    """Interpolate between slices so that pixels become square, and turn the head up."""
    top = len(slabs) - 1
    at = top - np.arange(int(top * pixels_per_slice) + 1) / pixels_per_slice
    low = np.minimum(at.astype(int), top - 1)
    share = (at - low).astype(np.float32)[:, None, None]
    return np.asarray(slabs[low] * (1 - share) + slabs[low + 1] * share)


def _int16(hu: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(hu).astype(np.int16))


def _rounded(place: Point) -> Point:
    x, y, z = place
    return round(x, 4), round(y, 4), round(z, 4)
