"""Pixels that would be larger than their header, or than reason: refused before a decoder allocates them."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from dicomnode.doctor import encode_sample
from dicomnode.network.listen import TRANSFER_SYNTAXES
from inference import pixel_size, volume
from tests.series import headers, refusal, write

#: Where each code stream declares rows and columns: a marker, the distance from it, the format.
SIZES = {
    JPEG2000Lossless: (b"\xff\x51", 6, ">2L"),
    JPEGLosslessSV1: (b"\xff\xc3", 5, ">2H"),
    JPEGLSLossless: (b"\xff\xf7", 5, ">2H"),
}


def sample(folder: Path, syntax: str) -> Dataset:
    return pydicom.dcmread(encode_sample(syntax, folder)[0])


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=[s.name for s in TRANSFER_SYNTAXES])
def test_pixels_of_every_transfer_syntax_may_be_decoded(tmp_path, syntax):
    assert pixel_size.problem(sample(tmp_path, syntax)) == ""


@pytest.mark.parametrize("syntax", SIZES, ids=[s.name for s in SIZES])
def test_a_code_stream_of_another_size_than_its_header_is_not_decoded(tmp_path, syntax):
    dataset = sample(tmp_path, syntax)
    marker, distance, numbers = SIZES[syntax]
    data = bytearray(dataset.PixelData)
    struct.pack_into(numbers, data, data.index(marker) + distance, 40_000, 40_000)
    dataset.PixelData = bytes(data)
    assert "its code stream holds (40000, 40000, 1)" in pixel_size.problem(dataset)


@pytest.mark.parametrize("changes", [{"Rows": 40_000, "Columns": 40_000}, {"NumberOfFrames": 2**31 - 1}, {"Rows": 0}])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda s: s.name)
def test_a_header_beyond_reason_is_not_decoded(tmp_path, syntax, changes):
    dataset = sample(tmp_path, syntax)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    assert "more than can be read" in pixel_size.problem(dataset)


def test_a_series_of_too_many_voxels_is_refused_while_it_is_read(tmp_path, monkeypatch):
    paths = write(tmp_path, headers(5))
    one = volume.read_volume(paths).array[0].size
    monkeypatch.setattr(pixel_size, "MAX_VOXELS", 3 * one)
    paths[4].unlink()  # never reached
    assert f"more than {3 * one} voxels" in refusal(paths)
