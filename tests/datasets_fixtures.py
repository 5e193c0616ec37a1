"""Miniature public data sets: the layouts and quirks of the real ones, with a spine of four vertebrae."""

from __future__ import annotations

import csv
import gzip
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import SimpleITK
from pydicom import Dataset
from pydicom.uid import UID, JPEGLosslessSV1, SegmentationStorage

from inference.datasets.labelled import CERVICAL
from tests.sources import AXIAL, SHAPE, SPACING, as_file, ct_headers, enhanced_header

INTERCEPT = -1024  # HU of a stored 0
ORIGIN = (-20.0, -90.0, 400.0)  # of the first voxel, LPS in mm, as in tests.sources
STUDY = "1.2.826.0.1.3680043.1"


def spine(shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Return HU, int16, and the map of C5 to T1, uint8, feet to head, front to back, right to left.

    The vertebrae lie off the middle and one behind the other: no flip brings the map back onto bone.
    """
    hu = np.random.default_rng(7).integers(20, 60, shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    for index, level in enumerate((8, 7, 6, 5)):
        labels[1 + 2 * index : 3 + 2 * index, 5 + 6 * index : 11 + 6 * index, 8:16] = level
    hu[labels > 0] += 700
    return hu, labels


def write_series(
    folder: Path,
    hu: np.ndarray,
    *,
    numbers: Sequence[int] | None = None,
    orientation: Sequence[float] = AXIAL,
    syntax: UID | None = None,
    edit: Callable[[Dataset], None] = lambda header: None,
) -> list[Path]:
    """Write NUMBER.dcm for each slice; `hu` lies as its orientation says, and slice 0 lowest along the normal."""
    folder.mkdir(parents=True)
    paths = []
    headers = ct_headers(len(hu), orientation=orientation, rows=hu.shape[1], columns=hu.shape[2])
    for number, header, plane in zip(numbers or range(1, len(hu) + 1), headers, hu, strict=True):
        header.InstanceNumber, header.WindowCenter, header.WindowWidth = number, [300, 40], [1500, 400]
        path = folder / f"{number}.dcm"
        _with_pixels(header, plane - INTERCEPT)
        if syntax not in (None, JPEGLosslessSV1):
            header.compress(syntax, generate_instance_uid=False)
        edit(header)
        header.save_as(path, enforce_file_format=True)
        if syntax == JPEGLosslessSV1:
            _to_jpeg_lossless(path)
        paths.append(path)
    return paths


def write_frames(path: Path, hu: np.ndarray, *, order: Sequence[int] | None = None, **attributes: Any) -> None:
    """Write one Enhanced CT object; `order` shuffles its frames, `attributes` change its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    headers = ct_headers(len(hu), rows=hu.shape[1], columns=hu.shape[2])
    dataset = enhanced_header(headers, order)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    _with_pixels(dataset, hu[list(order or range(len(hu)))] - INTERCEPT)
    rescale = Dataset()
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        rescale[keyword] = dataset.pop(keyword)
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [rescale]
    dataset.save_as(path, enforce_file_format=True)


def write_segmentation(path: Path, mask: np.ndarray) -> None:
    """Write a binary Segmentation with a frame for every slice, one bit per pixel."""
    headers = ct_headers(len(mask), rows=mask.shape[1], columns=mask.shape[2])
    dataset = enhanced_header(headers)
    dataset.SOPClassUID, dataset.Modality, dataset.SegmentationType = SegmentationStorage, "SEG", "BINARY"
    dataset.SOPInstanceUID += ".2"
    _with_pixels(dataset, mask)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    packed = np.packbits(mask.astype(np.uint8).ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.save_as(path, enforce_file_format=True)


def _with_pixels(header: Dataset, stored: np.ndarray) -> None:
    header.Rows, header.Columns = stored.shape[-2:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.RescaleSlope, header.RescaleIntercept = 1, INTERCEPT
    header.PixelData = stored.astype("<u2").tobytes()
    as_file(header)


def _to_jpeg_lossless(path: Path) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def label_row(study: str = STUDY, *, fractured: Iterable[str] = ()) -> dict[str, object]:
    """Return a row of train.csv with these fractured levels."""
    broken = set(fractured)
    return {"StudyInstanceUID": study, "patient_overall": int(bool(broken))} | {
        level: int(level in broken) for level in CERVICAL
    }


def box_row(number: float, *, x: float, y: float, width: float, height: float, study: str = STUDY) -> dict[str, object]:
    """Return a row of train_bounding_boxes.csv."""
    return {"StudyInstanceUID": study, "x": x, "y": y, "width": width, "height": height, "slice_number": number}


def write_nifti(path: Path, array: np.ndarray, *, axes: str = "LPS", origin: Sequence[float] = ORIGIN) -> None:
    """Write an array that runs from feet to head, front to back, right to left, stored in another order of axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(origin)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, axes), str(path))


def write_raw_nifti(path: Path, stored: np.ndarray, affine: np.ndarray) -> None:
    """Write NIfTI-1 from its specification: `stored` int16 (i, j, k), `affine` 4x4 to RAS in mm."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *stored.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)  # int16
    struct.pack_into("<8f", header, 76, 1, *np.linalg.norm(affine[:3, :3], axis=0), 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)  # offset of the voxels, slope, intercept
    struct.pack_into("<2h", header, 252, 0, 1)  # no qform; sform: scanner coordinates
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(header) + stored.astype("<i2").tobytes(order="F")))


def write_verse(
    root: Path, name: str, *, axes: str = "PIR", hu: np.ndarray | None = None, labels: np.ndarray | None = None
) -> None:
    """Write one scan of the subject based release with its map and centroids."""
    plain_hu, plain_labels = spine()
    labels = plain_labels if labels is None else labels
    subject = name.split("_")[0]
    derived = root / "derivatives" / subject
    write_nifti(root / "rawdata" / subject / f"{name}_ct.nii.gz", plain_hu if hu is None else hu, axes=axes)
    write_nifti(derived / f"{name}_seg-vert_msk.nii.gz", labels, axes=axes)
    centroids = [{"label": int(label), "X": 1.0, "Y": 2.0, "Z": 3.0} for label in np.unique(labels[labels > 0])]
    direction: dict[str, object] = {"direction": list(axes)}
    (derived / f"{name}_seg-subreg_ctd.json").write_text(json.dumps([direction, *centroids]))
