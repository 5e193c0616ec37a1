"""Data sets that are odd or damaged: refused at the door, or read, judged and analysed without harm."""

from __future__ import annotations

import json
import math
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode import assembly, selection
from dicomnode.config import CONFIG_DIR
from dicomnode.contrast import contrast
from dicomnode.errors import Refused
from dicomnode.header import IDENTIFIERS, KEYWORDS, read_instance
from dicomnode.spool import _file_head
from dicomnode.study import Instance, Study, Transfer
from inference.volume import UnusableSeries, read_volume
from tests.fuzzing import corpus, damaged, joined, odd_elements, parts_of, starts
from tests.series import headers, pixels_of, with_pixels

# As in the product, where warnings of pydicom and numpy are not errors.
pytestmark = pytest.mark.filterwarnings("ignore")
RULES = selection.load(CONFIG_DIR / "selection.toml")
PIXELS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "PixelData")
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")


@cache
def image(index: int) -> dict[int, bytes]:
    """The elements of one slice of a small CT series."""
    dataset = with_pixels(headers(3)[index], pixels_of(3)[index])
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, dataset)
    return parts_of(buffer.getvalue())


ODD = st.one_of(
    odd_elements((*KEYWORDS, *IDENTIFIERS, *PIXELS, *GEOMETRY)).map(lambda odd: joined(image(1) | odd)),
    st.deferred(lambda: damaged(joined(image(1)), list(starts(image(1))))),
)


def stored(folder: Path, data: bytes) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.dcm"
    path.write_bytes(_file_head("1.2.840.10008.5.1.4.1.1.2", "1.2.3", ExplicitVRLittleEndian) + data)
    return path


def taken(path: Path) -> Instance | None:
    """What the receiver makes of a file."""
    try:
        return read_instance(path)
    except Refused as error:
        assert error.status in (Refused.CANNOT_UNDERSTAND, Refused.MISMATCH)
        return None


def judge(instances: list[Instance]) -> None:
    """What the coordinator does with a study."""
    study = Study(uid="1.2", instances=tuple(instances), transfers=(Transfer(calling_ae="CT", ending="released"),))
    assembly.decide(study, 1e9, assembly.Policy(quiet_seconds=1, max_wait_seconds=2))
    assembly.decide(study, 0.0, assembly.Policy(quiet_seconds=1, max_wait_seconds=2))
    for choice in selection.choose(study, RULES):
        assert choice.reason
    for series in study.series:
        contrast(series)


def survives(data: bytes) -> None:
    """One odd image between two good ones goes through every process that reads it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        odd = stored(folder, data)
        instance = taken(odd)
        if instance is None:
            return
        assert all(getattr(instance, key) for key in ("sop_uid", "study_uid", "series_uid", "sop_class_uid"))
        assert len(json.dumps(dict(instance.header), allow_nan=False)) < 20_000
        good = [stored(folder, joined(image(index))) for index in (0, 2)]
        judge([instance])
        judge([instance, *map(read_instance, good)])
        try:
            volume = read_volume([odd, *good])
        except UnusableSeries as error:
            assert len(str(error)) < 1000
        else:
            assert np.isfinite(volume.affine).all()
            assert math.isfinite(volume.voxel_mm3)


def test_the_base_of_the_mutations_is_taken_and_makes_a_volume(tmp_path):
    paths = [stored(tmp_path, joined(image(index))) for index in range(3)]
    assert all(map(taken, paths))
    assert read_volume(paths).array.shape[0] == 3


@given(data=ODD)
def test_an_odd_image_is_refused_or_goes_through_every_process(data):
    survives(data)


@pytest.mark.parametrize("data", corpus("dataset"))
def test_what_once_did_harm_as_a_data_set_does_none(data):
    survives(data)
