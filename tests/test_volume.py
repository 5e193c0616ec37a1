"""The volume gate on written files: what makes a volume, what is tolerated with a note, what is refused and why."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import Dataset
from pydicom.uid import RLELossless

from inference.volume import Volume, read_volume
from tests.series import COLUMNS, ROWS, expected_point, headers, pixels_of, real_series, refusal, with_pixels, write
from tests.sources import AXIAL, FEET_FIRST, OBLIQUE, SAGITTAL, SPACING, as_file, ct_headers


def assert_same_as_simpleitk(volume: Volume, image: SimpleITK.Image) -> None:
    """Every corner and an inner voxel lie at the same LPS point and hold the same value."""
    slices, rows, columns = volume.array.shape
    assert image.GetSize() == (columns, rows, slices)
    for index in ((0, 0, 0), (slices - 1, rows - 1, columns - 1), (slices - 1, 0, 0), (slices // 2, 1, columns - 2)):
        point = (volume.affine @ (*index, 1))[:3]
        there = image.TransformPhysicalPointToIndex([float(x) for x in point])
        assert image.TransformIndexToPhysicalPoint(there) == pytest.approx(point, abs=0.01)
        assert image.GetPixel(there) == pytest.approx(volume.array[index])


def read_with_simpleitk(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return reader.Execute()


@pytest.mark.parametrize("orientation", [AXIAL, FEET_FIRST, SAGITTAL, OBLIQUE])
def test_every_voxel_lies_where_its_header_says_in_any_orientation(orientation, tmp_path):
    images = headers(orientation=orientation)
    volume = read_volume(write(tmp_path, images))
    for index, header in enumerate(images):
        for row, column in ((0, 0), (ROWS - 1, 2), (3, COLUMNS - 1)):
            assert (volume.affine @ (index, row, column, 1))[:3] == pytest.approx(expected_point(header, row, column))
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.voxel_mm3 == pytest.approx(2.0 * 0.5 * 0.75)


@pytest.mark.parametrize("orientation", [AXIAL, FEET_FIRST, SAGITTAL, OBLIQUE])
def test_simpleitk_puts_the_same_written_voxels_at_the_same_points(orientation, tmp_path):
    volume = read_volume(write(tmp_path, headers(orientation=orientation)))
    assert_same_as_simpleitk(volume, read_with_simpleitk(tmp_path))


@pytest.mark.parametrize(
    "name", ["ct-philips-study/std-5mm", "ct-philips-study/bone-1mm", "mr-t1-brain", "mr-t2-sagittal-template"]
)
def test_simpleitk_puts_the_voxels_of_a_real_series_at_the_same_points(name):
    paths = real_series(name)
    assert_same_as_simpleitk(read_volume(paths), read_with_simpleitk(paths[0].parent))


def test_files_in_any_order_become_slices_in_the_order_of_their_positions(tmp_path):
    images = headers(7)
    paths = write(tmp_path, images)
    shuffled = [paths[i] for i in (3, 0, 6, 1, 5, 4, 2)]
    volume = read_volume(shuffled)
    assert np.array_equal(volume.array, pixels_of(7))
    assert [h.SOPInstanceUID for h in volume.headers] == [h.SOPInstanceUID for h in images]
    assert volume.frames == (None,) * 7
    assert volume.array.dtype == np.float32
    assert volume.quality == ()


def test_headers_keep_no_pixel_data(tmp_path):
    assert all("PixelData" not in header for header in read_volume(write(tmp_path, headers())).headers)


@pytest.mark.parametrize(
    ("numbers", "noticed"),
    [
        ((1, 2, 3, 4, 5), False),
        ((5, 4, 3, 2, 1), False),  # scanned from the head down
        ((10, 20, 30, 40, 50), False),
        ((1, 3, 2, 4, 5), True),
        ((7, 7, 7, 7, 7), False),  # says nothing
        ((None, None, None, None, None), False),
    ],
)
def test_instance_numbers_that_jump_are_noted_and_never_used(numbers, noticed, tmp_path):
    images = headers()
    for image, number in zip(images, numbers, strict=True):
        image.InstanceNumber = number
    volume = read_volume(write(tmp_path, images))
    assert np.array_equal(volume.array, pixels_of(5))
    assert volume.quality == (("instance numbers do not follow the slice positions: ordered by position",) * noticed)


@pytest.mark.filterwarnings("ignore:.*VR (of )?IS:UserWarning")
@pytest.mark.parametrize("damage", [b"x ", b"1.5 ", b"1\\2 "])
def test_a_damaged_instance_number_does_not_cost_the_volume(damage, tmp_path):
    paths = write(tmp_path, headers())
    for path in paths[:2]:
        content = path.read_bytes()
        at = content.index(b"\x20\x00\x13\x00IS\x02\x00")  # (0020,0013), two bytes long
        path.write_bytes(content[: at + 6] + len(damage).to_bytes(2, "little") + damage + content[at + 10 :])
    assert np.array_equal(read_volume(paths).array, pixels_of(5))


@pytest.mark.fault(13, "d")
def test_duplicate_positions_are_refused_with_their_place(tmp_path):
    message = refusal(write(tmp_path, headers(positions=(0, 2, 4, 4, 6))))
    assert message == "1 duplicate slice position(s), the first at 404.0 mm"


@pytest.mark.fault(13, "d")
def test_one_missing_slice_is_refused_with_its_place(tmp_path):
    message = refusal(write(tmp_path, headers(positions=(0, 2, 4, 8, 10))))
    assert message == "1 missing slice(s): between 404.0 and 408.0 mm"


def test_several_missing_slices_are_counted(tmp_path):
    message = refusal(write(tmp_path, headers(8, positions=(0, 2, 4, 6, 14, 16, 18, 22))))
    assert message == "4 missing slice(s): between 406.0 and 414.0 mm, between 418.0 and 422.0 mm"


def test_uneven_spacing_is_refused_with_its_range(tmp_path):
    assert refusal(write(tmp_path, headers(positions=(0, 2, 4, 5, 7)))) == "uneven slice spacing: 1.00 to 2.00 mm"


def test_spacing_that_wavers_within_the_tolerance_is_one_volume(tmp_path):
    volume = read_volume(write(tmp_path, headers(positions=(0, 2.1, 4, 5.9, 8))))
    assert volume.spacing[0] == pytest.approx(1.98, abs=0.01)


def test_spacing_that_wavers_just_beyond_the_tolerance_is_refused(tmp_path):
    assert "uneven" in refusal(write(tmp_path, headers(positions=(0, 2, 4, 6.25, 8.25))))


def test_images_at_one_position_are_refused(tmp_path):
    assert refusal(write(tmp_path, headers(3, positions=(1, 1, 1)))) == "all images lie at the same position"


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count, tmp_path):
    assert f"{count} image(s)" in refusal(write(tmp_path, headers()[:count], pixels=pixels_of(count)))


def test_two_images_make_a_volume(tmp_path):
    assert read_volume(write(tmp_path, headers(2))).array.shape == (2, ROWS, COLUMNS)


@pytest.mark.fault(13, "d")
def test_mixed_orientations_are_refused(tmp_path):
    images = [*headers(4), *ct_headers(1, orientation=SAGITTAL, rows=ROWS, columns=COLUMNS)]
    assert "mixes 2 orientations" in refusal(write(tmp_path, images))


def test_mixed_frames_of_reference_are_refused(tmp_path):
    images = headers()
    images[3].FrameOfReferenceUID = "1.2.3.4"
    assert "several Frames of Reference" in refusal(write(tmp_path, images))


def test_an_image_without_frame_of_reference_among_others_is_refused(tmp_path):
    images = headers()
    del images[0].FrameOfReferenceUID
    assert "several Frames of Reference" in refusal(write(tmp_path, images))


def test_mixed_image_sizes_are_refused(tmp_path):
    paths = write(tmp_path, headers())
    with_pixels(headers()[4], np.zeros((ROWS + 2, COLUMNS))).save_as(paths[4], enforce_file_format=True)
    assert refusal(paths) == "the series mixes several image sizes"


def test_mixed_pixel_spacings_are_refused(tmp_path):
    images = headers()
    images[2].PixelSpacing = [0.5, 0.8]
    assert refusal(write(tmp_path, images)) == "the series mixes several pixel spacings"


def test_a_slice_beside_the_line_through_the_others_is_refused(tmp_path):
    images = headers(positions=(0, 2, 4, 6, 8))
    images[2].ImagePositionPatient[0] += 10
    assert "do not lie on one straight line" in refusal(write(tmp_path, images))


@pytest.mark.fault(13, "d")
def test_a_tilted_gantry_gives_a_sheared_volume_and_a_note(tmp_path):
    images = headers(tilt=0.7)
    volume = read_volume(write(tmp_path, images))
    for index, header in enumerate(images):
        assert (volume.affine @ (index, 5, 7, 1))[:3] == pytest.approx(expected_point(header, 5, 7))
    assert volume.quality == ("gantry tilt of 19.3 degrees: the volume is sheared",)  # atan(0.7 / 2)
    assert volume.spacing[0] == pytest.approx(np.hypot(2.0, 0.7))
    assert volume.voxel_mm3 == pytest.approx(2.0 * 0.5 * 0.75)  # shearing moves slices, it does not thicken them


def test_a_tilt_below_one_degree_is_not_noted(tmp_path):
    assert read_volume(write(tmp_path, headers(tilt=0.02))).quality == ()


def test_a_real_tilted_gantry_has_every_slice_at_its_position():
    volume = read_volume(real_series("ct-philips-tilt"))
    assert volume.quality == ("gantry tilt of 18.5 degrees: the volume is sheared",)
    for index, header in enumerate(volume.headers):
        assert (volume.affine @ (index, 100, 200, 1))[:3] == pytest.approx(expected_point(header, 100, 200), abs=0.02)


@pytest.mark.parametrize(("name", "reason"), [("scout", "1 image(s)"), ("exam-summary", "in colour")])
def test_a_real_series_that_is_no_volume_is_refused(name, reason):
    assert reason in refusal(real_series(f"ct-philips-study/{name}"))


@pytest.mark.fault(13, "d")
def test_a_real_scout_among_its_slices_is_refused():
    slices, scout = real_series("ct-philips-study/std-5mm"), real_series("ct-philips-study/scout")
    message = refusal([*slices, *scout])
    assert "the series mixes" in message


def test_each_slice_is_rescaled_by_its_own_slope_and_intercept(tmp_path):
    images = headers(3)
    for image, slope, intercept in zip(images, (1, 2, 0.5), (-1024, 0, 10), strict=True):
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
    array = read_volume(write(tmp_path, images)).array
    stored = pixels_of(3).astype(np.float32)
    assert np.array_equal(array, np.stack([stored[0] - 1024, stored[1] * 2, stored[2] * 0.5 + 10]))


def test_an_intercept_without_a_slope_still_counts(tmp_path):
    images = headers(2)
    for image in images:
        image.RescaleIntercept = -1024
    assert read_volume(write(tmp_path, images)).array[0, 0, 0] == -1024


def test_a_slope_of_zero_is_refused(tmp_path):
    images = headers(2)
    images[1].RescaleSlope, images[1].RescaleIntercept = 0, -1024
    assert "Rescale Slope 0.0" in refusal(write(tmp_path, images))


def change(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda image: setattr(image, keyword, value)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda image: image.pop("ImagePositionPatient"), "has no ImagePositionPatient"),
        (lambda image: image.pop("ImageOrientationPatient"), "has no ImageOrientationPatient"),
        (lambda image: image.pop("PixelSpacing"), "has no PixelSpacing"),
        (change("ImagePositionPatient", [1, 2]), "has no ImagePositionPatient"),
        (change("PixelSpacing", [0.5, 0]), "Pixel Spacing is not positive"),
        (change("PixelSpacing", 0.5), "has no PixelSpacing"),
        (change("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "not two perpendicular unit vectors"),
        (change("ImageOrientationPatient", [2, 0, 0, 0, 1, 0]), "not two perpendicular unit vectors"),
        (change("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]), "not two perpendicular unit vectors"),
        (change("NumberOfFrames", 3), "cannot be read"),
    ],
)
def test_an_image_with_a_damaged_header_is_named(damage, reason, tmp_path):
    images = headers()
    damage(images[2])
    message = refusal(write(tmp_path, images))
    assert reason in message
    assert images[2].SOPInstanceUID in message


@pytest.mark.fault(12, "d")
def test_an_image_with_truncated_pixels_is_named(tmp_path):
    images = headers()
    paths = write(tmp_path, images)
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    assert f"image {images[1].SOPInstanceUID} cannot be read" in refusal(paths)


@pytest.mark.fault(12, "d")
def test_an_image_whose_compressed_pixels_are_noise_is_named(tmp_path):
    images = headers()
    paths = write(tmp_path, images)
    dataset = pydicom.dcmread(paths[1])
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.PixelData = dataset.PixelData[:-30] + bytes(30)
    dataset.save_as(paths[1])
    assert f"image {images[1].SOPInstanceUID} cannot be read" in refusal(paths)


@pytest.mark.parametrize("content", [b"", b"hello, I am no image", bytes(500)])
def test_a_file_that_is_no_dicom_is_named_by_its_file(content, tmp_path):
    paths = write(tmp_path, headers())
    paths[4].write_bytes(content)
    assert "004.dcm cannot be read" in refusal(paths)


def test_a_dicom_file_without_pixels_is_refused(tmp_path):
    paths = write(tmp_path, headers())
    as_file(headers()[0]).save_as(paths[0], enforce_file_format=True)
    assert "cannot be read" in refusal(paths)
