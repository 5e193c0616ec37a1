"""Small CT series on disk with a value of its own in every voxel, and the real ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from inference.volume import UnusableSeries, read_volume
from tests.sources import as_file, ct_headers

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
ROWS, COLUMNS = 6, 8


def real_series(name: str) -> list[Path]:
    """Return the files of a real series, or skip."""
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"real scans are not here: ../shared/data/{name}")
    return sorted(folder.glob("*.dcm")) or sorted(path for path in folder.iterdir() if path.is_file())


def pixels_of(count: int) -> np.ndarray:
    """Return stored values that differ in every voxel, (count, ROWS, COLUMNS)."""
    return np.arange(count * ROWS * COLUMNS, dtype=np.uint16).reshape(count, ROWS, COLUMNS)


def with_pixels(header: Dataset, pixels: np.ndarray) -> Dataset:
    header.Rows, header.Columns = pixels.shape[-2:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.PixelData = pixels.astype("<u2").tobytes()
    return as_file(header)


def headers(count: int = 5, **options: object) -> list[Dataset]:
    return ct_headers(count, rows=ROWS, columns=COLUMNS, **options)  # type: ignore[arg-type]


def write(folder: Path, images: Sequence[Dataset], *, pixels: np.ndarray | None = None) -> list[Path]:
    """Write one file per header; return the paths in the same order."""
    folder.mkdir(exist_ok=True, parents=True)
    values = pixels_of(len(images)) if pixels is None else pixels
    paths = [folder / f"{index:03d}.dcm" for index in range(len(images))]
    for path, image, plane in zip(paths, images, values, strict=True):
        with_pixels(image, plane).save_as(path, enforce_file_format=True)
    return paths


def refusal(paths: Sequence[Path]) -> str:
    with pytest.raises(UnusableSeries) as refused:
        read_volume(paths)
    return str(refused.value)


def expected_point(header: Dataset, row: int, column: int) -> np.ndarray:
    """Where PS3.3 C.7.6.2.1.1 puts a pixel."""
    orientation = np.array(header.ImageOrientationPatient, float)
    along_column, along_row = orientation[3:] * header.PixelSpacing[0], orientation[:3] * header.PixelSpacing[1]
    return np.array(header.ImagePositionPatient, float) + row * along_column + column * along_row
