"""One slice of a random series is missing, there twice, or damaged: the volume gate names it, every time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from inference.volume import read_volume
from tests.series import COLUMNS, ROWS, refusal, with_pixels
from tests.sources import AXIAL, FEET_FIRST, OBLIQUE, SAGITTAL, ct_headers

CASES = 70  # of each harm


def random_series(rng: random.Random, folder: Path) -> tuple[list[Dataset], list[Path]]:
    """A whole series of 6 to 10 slices, straight and a little uneven or tilted, in any plane and encoding."""
    count, step, tilt = rng.randint(6, 10), rng.uniform(0.6, 5), rng.choice([0.0, rng.uniform(0.1, 0.5)])
    waver = 0.0 if tilt else 0.02
    headers = ct_headers(
        count,
        orientation=rng.choice([AXIAL, FEET_FIRST, SAGITTAL, OBLIQUE]),
        tilt=tilt,
        positions=[step * (index + rng.uniform(-waver, waver)) for index in range(count)],
        rows=ROWS,
        columns=COLUMNS,
    )
    syntax = rng.choice([ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
    paths = [store(header, folder / f"{number}.dcm", rng, syntax) for number, header in enumerate(headers)]
    return headers, paths


def store(header: Dataset, path: Path, rng: random.Random, syntax: str) -> Path:
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 4000, (ROWS, COLUMNS))
    dataset = with_pixels(header, noise)
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path


def height(header: Dataset) -> float:
    """Where a slice lies along the normal of its plane, mm."""
    row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    return float(np.cross(row, column) @ np.array(header.ImagePositionPatient, float))


def miss(rng: random.Random, headers: list[Dataset], paths: list[Path]) -> str:
    """A slice between two others is not there; what an end lacks only the sender's count can tell."""
    index = rng.randrange(1, len(paths) - 1)
    del paths[index]
    return f"1 missing slice(s): between {height(headers[index - 1]):.1f} and {height(headers[index + 1]):.1f} mm"


def double(rng: random.Random, headers: list[Dataset], paths: list[Path]) -> str:
    """Another image lies where one is already."""
    index = rng.randrange(len(paths))
    copy = pydicom.dcmread(paths[index])
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    copy.InstanceNumber = 99
    paths.append(paths[index].with_name("copy.dcm"))
    copy.save_as(paths[-1])
    return f"1 duplicate slice position(s), the first at {height(headers[index]):.1f} mm"


def damage(rng: random.Random, headers: list[Dataset], paths: list[Path]) -> str:
    """A file ends somewhere inside its pixels, or lacks what says where it lies."""
    index = rng.randrange(len(paths))
    if rng.random() < 0.3:
        dataset = pydicom.dcmread(paths[index])
        del dataset[rng.choice(["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])]
        dataset.save_as(paths[index])
    else:
        content = paths[index].read_bytes()
        pixels = content.index(b"\xe0\x7f\x10\x00")  # (7FE0,0010)
        paths[index].write_bytes(content[: rng.randrange(pixels, len(content) - 20)])
    return f"image {headers[index].SOPInstanceUID}"


@pytest.mark.fault(12, "d")
@pytest.mark.fault(13, "d")
@pytest.mark.parametrize("harm", [miss, double, damage])
def test_one_slice_that_is_missing_doubled_or_damaged_is_named_in_every_random_series(tmp_path, harm):
    for seed in range(CASES):
        rng = random.Random(seed)
        (folder := tmp_path / f"{seed}").mkdir()
        headers, paths = random_series(rng, folder)
        if seed % 2 == 0:
            assert len(read_volume(paths).headers) == len(paths), f"seed {seed}: nothing is wrong yet"
        named = harm(rng, headers, paths)
        rng.shuffle(paths)
        assert named in refusal(paths), f"seed {seed}"
