"""The volume gate on multi-frame images and on how pixels are decoded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless

from dicomnode.doctor import encode_sample
from inference.volume import decode_pixels, read_volume
from tests.series import expected_point, headers, pixels_of, real_series, refusal, with_pixels
from tests.sources import enhanced_header

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"


def enhanced_file(folder: Path, *, order: Sequence[int], rescale: bool = True) -> Path:
    """Write one Enhanced CT whose frame for slice i holds pixels_of(n)[i], stored in the given order."""
    dataset = enhanced_header(headers(len(order)), order)
    for frame, index in zip(dataset.PerFrameFunctionalGroupsSequence, order, strict=True):
        if rescale:
            values = Dataset()
            values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1 + index, -1024, "HU"
            frame.PixelValueTransformationSequence = [values]
    with_pixels(dataset, pixels_of(len(order))[list(order)])
    path = folder / "enhanced.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_frames_of_an_enhanced_image_become_slices_with_their_own_geometry_and_rescale(tmp_path):
    order = (2, 0, 3, 1)
    volume = read_volume([enhanced_file(tmp_path, order=order)])
    expected = pixels_of(4).astype(np.float32) * np.arange(1, 5)[:, None, None] - 1024
    assert np.array_equal(volume.array, expected)
    assert volume.frames == (2, 4, 1, 3)  # 1-based, where each slice is stored
    assert len({id(header) for header in volume.headers}) == 1
    for index, header in enumerate(headers(4)):
        assert (volume.affine @ (index, 4, 6, 1))[:3] == pytest.approx(expected_point(header, 4, 6))


def test_an_enhanced_image_without_rescale_keeps_its_stored_values(tmp_path):
    volume = read_volume([enhanced_file(tmp_path, order=range(3), rescale=False)])
    assert np.array_equal(volume.array, pixels_of(3))


def test_a_rescale_that_stands_beside_the_frames_holds_for_all_of_them(tmp_path):
    path = enhanced_file(tmp_path, order=range(3), rescale=False)
    dataset = pydicom.dcmread(path)
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
    dataset.save_as(path)
    assert np.array_equal(read_volume([path]).array, pixels_of(3) * 2.0 - 1024)


@pytest.mark.parametrize("declared", ["YBR_FULL", "YBR_RCT", "RGB"])
def test_grey_pixels_that_are_declared_as_a_colour_are_read_as_grey(declared, tmp_path):
    path, values = encode_sample(JPEG2000Lossless, tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = declared
    dataset.save_as(path)
    assert np.array_equal(decode_pixels(pydicom.dcmread(path), path)[0], values)


def test_an_enhanced_image_with_fewer_groups_than_frames_is_refused(tmp_path):
    path = enhanced_file(tmp_path, order=range(4))
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[3]
    dataset.save_as(path)
    assert "cannot be read" in refusal([path])


def test_a_real_enhanced_ct_is_read_frame_by_frame():
    volume = read_volume([next(p for p in real_series("odd") if p.name == "eCT_Supplemental.dcm")])
    assert volume.array.shape == (2, 512, 512)
    assert volume.array.min() >= -1024


def test_twelve_bit_jpeg_gives_stored_values_whatever_the_rescale(tmp_path):
    plain = SAMPLES / "JPGExtended.dcm"
    dataset = pydicom.dcmread(plain)
    expected = decode_pixels(dataset, plain)
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -100
    path = tmp_path / "rescaled.dcm"
    dataset.save_as(path)
    assert expected.shape == (1, 1024, 256)
    assert expected.max() == 264
    assert np.array_equal(decode_pixels(pydicom.dcmread(path), path), expected)
