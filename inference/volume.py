"""The volume gate: image files of one series in, one trustworthy Volume out, or the reason why not.

Order and spacing come from Image Position and Image Orientation (Patient) alone (PS3.3 C.7.6.2);
Instance Number and Slice Location are never used for geometry.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pydicom.errors
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import pixel_array

from inference import geometry, pixel_size

logger = logging.getLogger(__name__)

ORIENTATION_TOLERANCE = 1e-3  # largest difference of direction cosines inside one series
SPACING_TOLERANCE = 0.1  # of one slice step: more is a gap, a duplicate or an uneven series
TILT_TOLERANCE = 1.0  # degrees between the slice normal and the line through the slice centres


class UnusableSeries(ValueError):
    """These images do not make one volume; the message says why in words for a radiographer."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Slices of one series in geometric order, in modality units (HU for CT)."""

    #: (slices, rows, columns), float32. Slice 0 lies lowest along the slice normal: the feet end for axial.
    array: np.ndarray
    #: 4x4, voxel index (slice, row, column, 1) -> patient LPS in mm; sheared for a tilted gantry.
    affine: np.ndarray
    #: The header each slice came from, without pixel data; the same object for frames of one file.
    headers: tuple[Dataset, ...]
    #: 1-based frame number for multi-frame sources, else None.
    frames: tuple[int | None, ...]
    #: What was noticed and tolerated, in plain words.
    quality: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres in mm, (slice, row, column); along the axis for a sheared volume."""
        return geometry.spacing(self.affine)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel; less than the product of the spacing where the volume is sheared."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))


class _Slice(NamedTuple):
    header: Dataset
    frame: int | None
    pixels: np.ndarray  # (rows, columns), float32, rescaled
    position: np.ndarray  # centre of the first voxel, LPS mm
    row_direction: np.ndarray  # along a row: increasing column
    column_direction: np.ndarray  # along a column: increasing row
    pixel_spacing: tuple[float, float]  # between rows, between columns, mm
    frame_of_reference: str


def read_volume(paths: Iterable[Path]) -> Volume:
    """Read the files of one series into a Volume.

    Raises UnusableSeries when a file cannot be decoded, an attribute of the geometry is missing, or the
    images do not form one regular stack: it names the file, the position or the difference.
    """
    slices: list[_Slice] = []
    for path in paths:
        slices += _slices_of(path)
        if sum(item.pixels.size for item in slices) > pixel_size.MAX_VOXELS:
            raise UnusableSeries(f"the series has more than {pixel_size.MAX_VOXELS} voxels")
    if len(slices) < 2:
        raise UnusableSeries(f"{len(slices)} image(s) with a position: a volume needs at least 2")
    _refuse_mixtures(slices)

    first = slices[0]
    normal = np.cross(first.row_direction, first.column_direction)
    heights = np.array([item.position @ normal for item in slices])
    order = np.argsort(heights, kind="stable")
    quality = _order_note(slices, order)
    slices, heights = [slices[i] for i in order], heights[order]
    _refuse_uneven(heights)

    step, tilt_note = _step(slices, normal)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.column_direction * first.pixel_spacing[0]
    affine[:3, 2] = first.row_direction * first.pixel_spacing[1]
    affine[:3, 3] = slices[0].position
    return Volume(
        array=np.stack([item.pixels for item in slices]),
        affine=affine,
        headers=tuple(item.header for item in slices),
        frames=tuple(item.frame for item in slices),
        quality=(*quality, *tilt_note),
    )


def _slices_of(path: Path) -> list[_Slice]:
    """Decode one file: one slice, or one per frame of an Enhanced object."""
    try:
        dataset = pydicom.dcmread(path)
        pixels = decode_pixels(dataset, path)
        frames = int(dataset.get("NumberOfFrames") or 1)
        planes = [_plane(dataset, i if "PerFrameFunctionalGroupsSequence" in dataset else None) for i in range(frames)]
    except UnusableSeries:
        raise
    except Exception as error:  # a damaged file can raise anything inside the parser or a decoder
        logger.info("undecodable image: %s", type(error).__name__)
        raise UnusableSeries(f"image {_uid_of(path)} cannot be read: {type(error).__name__}") from error
    if pixels.shape[0] != frames:
        raise UnusableSeries(f"image {dataset.SOPInstanceUID} holds {pixels.shape[0]} frames, declares {frames}")
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            delattr(dataset, keyword)
    return [
        _Slice(dataset, plane.number, frame * np.float32(plane.slope) + np.float32(plane.intercept), *plane.geometry)
        for plane, frame in zip(planes, pixels, strict=True)
    ]


def decode_pixels(dataset: Dataset, path: Path) -> np.ndarray:
    """Stored pixel values, (frames, rows, columns), float32."""
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise UnusableSeries(f"image {dataset.SOPInstanceUID} is in colour: not a CT or MR slice")
    if problem := pixel_size.problem(dataset):
        raise UnusableSeries(f"image {dataset.SOPInstanceUID}: {problem}")
    if str(dataset.get("PhotometricInterpretation", "")).startswith(("RGB", "YBR")):
        # One sample per pixel is grey; over a declared colour in JPEG 2000, GDCM ends the whole process.
        dataset.PhotometricInterpretation = "MONOCHROME2"
    try:
        pixels = pixel_array(dataset)
    except RuntimeError:
        # JPEG Extended 12-bit: none of the permissively licensed plug-ins decodes it, SimpleITK's GDCM does.
        import SimpleITK

        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        pixels = SimpleITK.GetArrayFromImage(reader.Execute())
        # SimpleITK has applied the rescale already: undo it so that both ways give stored values.
        slope, intercept = _rescale(dataset)
        pixels = (pixels - intercept) / slope
    return pixels.reshape(-1, *pixels.shape[-2:]).astype(np.float32)


class _Plane(NamedTuple):
    number: int | None
    slope: float
    intercept: float
    geometry: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float], str]


def _plane(dataset: Dataset, index: int | None) -> _Plane:
    """Geometry and rescale of one frame: from the image itself, or from its functional groups (PS3.3 C.7.6.16)."""
    groups = [dataset]
    if index is not None:
        groups = [*_functional_groups(dataset.PerFrameFunctionalGroupsSequence[index])]
        groups += _functional_groups(dataset.SharedFunctionalGroupsSequence[0])
    orientation = _numbers(dataset, groups, "ImageOrientationPatient", 6)
    position = _numbers(dataset, groups, "ImagePositionPatient", 3)
    spacing = _numbers(dataset, groups, "PixelSpacing", 2)
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm([row, column], axis=1)
    if abs(row @ column) > ORIENTATION_TOLERANCE or np.abs(lengths - 1).max() > 0.01:
        raise UnusableSeries(f"image {dataset.SOPInstanceUID}: Image Orientation is not two perpendicular unit vectors")
    if spacing.min() <= 0:
        raise UnusableSeries(f"image {dataset.SOPInstanceUID}: Pixel Spacing is not positive")
    slope, intercept = next((_rescale(group) for group in groups if "RescaleSlope" in group), _rescale(dataset))
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise UnusableSeries(f"image {dataset.SOPInstanceUID}: Rescale Slope {slope} and Intercept {intercept}")
    geometry = (
        position,
        row,
        column,
        (float(spacing[0]), float(spacing[1])),
        str(dataset.get("FrameOfReferenceUID", "")),
    )
    return _Plane(None if index is None else index + 1, slope, intercept, geometry)


def _functional_groups(item: Dataset) -> list[Dataset]:
    return [element.value[0] for element in item if element.VR == "SQ" and element.value]


def _rescale(dataset: Dataset) -> tuple[float, float]:
    return float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))


def _numbers(dataset: Dataset, groups: Sequence[Dataset], keyword: str, count: int) -> np.ndarray:
    value: Any = next((group.get(keyword) for group in groups if group.get(keyword) is not None), None)
    if not isinstance(value, MultiValue) or len(value) != count:
        raise UnusableSeries(f"image {dataset.SOPInstanceUID} has no {keyword}")
    numbers = np.array([float(x) for x in value])
    if not np.isfinite(numbers).all():
        raise UnusableSeries(f"image {dataset.SOPInstanceUID}: {keyword} is not a number")
    return numbers


def _uid_of(path: Path) -> str:
    """The SOP Instance UID for a message, without trusting the rest of the file."""
    try:
        return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
    except (pydicom.errors.InvalidDicomError, AttributeError, OSError, ValueError, TypeError, EOFError):
        return path.name  # the file is damaged: its name is all there is


def _refuse_mixtures(slices: Sequence[_Slice]) -> None:
    first = slices[0]
    if len({item.frame_of_reference for item in slices}) > 1:
        raise UnusableSeries("the series mixes several Frames of Reference: the images share no coordinate system")
    if len({item.pixels.shape for item in slices}) > 1:
        raise UnusableSeries("the series mixes several image sizes")
    directions = np.array([[*item.row_direction, *item.column_direction] for item in slices])
    if np.abs(directions - directions[0]).max() > ORIENTATION_TOLERANCE:
        groups = len(np.unique(directions.round(2), axis=0))
        raise UnusableSeries(f"the series mixes {max(groups, 2)} orientations: a scout or several planes in one series")
    spacings = np.array([item.pixel_spacing for item in slices])
    if np.abs(spacings - first.pixel_spacing).max() > 1e-3 * max(first.pixel_spacing):
        raise UnusableSeries("the series mixes several pixel spacings")


def _order_note(slices: Sequence[_Slice], order: np.ndarray) -> tuple[str, ...]:
    """Say so when Instance Numbers jump about relative to the positions: something upstream renumbered them."""
    try:
        numbers = [int(item.header.InstanceNumber) for item in slices]
    except (AttributeError, TypeError, ValueError):  # missing or damaged: the positions count, not the numbers
        return ()
    if slices[0].frame is not None or len(set(numbers)) < len(numbers):
        return ()
    rises = np.diff([numbers[i] for i in order]) > 0
    if rises.all() or not rises.any():
        return ()
    return ("instance numbers do not follow the slice positions: ordered by position",)


def _refuse_uneven(heights: np.ndarray) -> None:
    """Name duplicate and missing positions. `heights` are sorted mm along the slice normal."""
    steps = np.diff(heights)
    positive = steps[steps > 0.01]
    if len(positive) == 0:
        raise UnusableSeries("all images lie at the same position")
    step = float(np.median(positive))
    duplicates = heights[1:][steps <= 0.01]
    if len(duplicates):
        raise UnusableSeries(f"{len(duplicates)} duplicate slice position(s), the first at {duplicates[0]:.1f} mm")
    gaps = np.flatnonzero(steps > step * (1 + SPACING_TOLERANCE))
    whole = np.abs(steps / step - (steps / step).round()) < SPACING_TOLERANCE
    if len(gaps) and whole[gaps].all():
        missing = int((steps[gaps] / step).round().sum()) - len(gaps)
        places = ", ".join(f"between {heights[i]:.1f} and {heights[i + 1]:.1f} mm" for i in gaps[:5])
        raise UnusableSeries(f"{missing} missing slice(s): {places}")
    if (np.abs(steps - step) > step * SPACING_TOLERANCE).any():
        raise UnusableSeries(f"uneven slice spacing: {steps.min():.2f} to {steps.max():.2f} mm")


def _step(slices: Sequence[_Slice], normal: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Vector from one slice to the next by a least-squares line through all positions, with a note on tilt."""
    positions = np.array([item.position for item in slices])
    index = np.arange(len(slices)) - (len(slices) - 1) / 2
    step = index @ (positions - positions.mean(axis=0)) / (index @ index)
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    residual = np.abs(positions - positions.mean(axis=0) - np.outer(index, step)).max()
    if residual > max(1.0, 0.5 * float(np.linalg.norm(step))):
        raise UnusableSeries(f"the slices do not lie on one straight line (off by {residual:.1f} mm)")
    if tilt > TILT_TOLERANCE:
        return step, (f"gantry tilt of {tilt:.1f} degrees: the volume is sheared",)
    return step, ()
