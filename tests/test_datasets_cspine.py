"""Health Data Nexus cspine: multi-frame CT, its drawn fractures, and what is refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import SegmentationStorage

from inference.datasets import open_dataset
from inference.datasets.axial_ct import read_axial
from inference.datasets.labelled import CERVICAL, LabelledCT, UnusableData
from tests.datasets_fixtures import INTERCEPT, spine, write_frames, write_segmentation, write_series
from tests.sources import FEET_FIRST, SPACING

HU, _ = spine()
DRAWN = np.zeros(HU.shape, bool)
DRAWN[5, 17:20, 8:12] = True
SHUFFLED = [5, 2, 11, 1, 8, 3, 0, 4, 10, 6, 9, 7]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with its CT and no mask."""
    write_frames(tmp_path / "0001" / "ct.dcm", HU, PatientID="A")
    return tmp_path / "0001"


def load(study: Path) -> LabelledCT:
    return open_dataset(f"cspine:{study.parent}").load(study.name)


def refusal(study: Path) -> str:
    with pytest.raises(UnusableData) as refused:
        load(study)
    return str(refused.value)


def write_mask(path: Path, mask: np.ndarray = DRAWN, *, high: int = 1, **options: object) -> None:
    """Write a mask as a CT object whose pixels are 0 and `high`."""
    write_frames(path, mask * high + INTERCEPT, SOPInstanceUID="1.2.3", **options)


def test_a_study_without_a_mask_has_no_fracture(study):
    case = load(study)
    assert np.array_equal(case.hu, HU)
    assert case.spacing == pytest.approx(SPACING)
    assert (case.name, case.patient, case.fractured) == ("0001", "A", False)
    assert case.levels == dict.fromkeys(CERVICAL, False)
    assert not case.fractures.any()
    assert case.vertebrae is None
    assert "credentialed" in case.licence


@pytest.mark.parametrize("high", [1, 255])
def test_a_mask_shows_the_fracture_but_not_its_level(study, high):
    write_mask(study / "a-mask.dcm", high=high)
    case = load(study)
    assert np.array_equal(case.hu, HU)
    assert np.array_equal(case.fractures, DRAWN)
    assert (case.fractured, case.levels) == (True, None)


def test_a_segmentation_is_a_mask(study):
    write_segmentation(study / "seg", DRAWN)
    assert np.array_equal(load(study).fractures, DRAWN)


def test_the_upper_half_of_a_fractional_segmentation_is_the_fracture(study):
    fractions = DRAWN * 200 + np.roll(DRAWN, 4, axis=2) * 90
    write_mask(study / "seg", fractions, SOPClassUID=SegmentationStorage)
    assert np.array_equal(load(study).fractures, DRAWN)


def test_frames_follow_their_positions_in_either_object(study):
    write_frames(study / "ct.dcm", HU, order=SHUFFLED)
    write_mask(study / "mask.dcm", order=SHUFFLED[::-1])
    case = load(study)
    assert np.array_equal(case.hu, HU)
    assert np.array_equal(case.fractures, DRAWN)


def test_a_study_without_patient_id_is_a_patient_of_its_own(study):
    write_frames(study / "ct.dcm", HU, PatientID="")
    assert load(study).patient == "0001"


def test_studies_of_one_patient_stay_together(study):
    write_frames(study.parent / "0002" / "ct.dcm", HU, PatientID="A")
    dataset = open_dataset(f"cspine:{study.parent}")
    assert dataset.names == ("0001", "0002")
    assert {dataset.load(name).patient for name in dataset.names} == {"A"}


def test_hidden_files_and_folders_are_not_read(study):
    (study / "._ct.dcm").write_bytes(b"left by macOS")
    (study.parent / ".cache").mkdir()
    dataset = open_dataset(f"cspine:{study.parent}")
    assert dataset.names == ("0001",)
    assert dataset.load("0001").fractured is False


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        pytest.param(DRAWN[1:], "(11 x 40 x 48 and 12 x 40 x 48)", id="frames"),
        pytest.param(DRAWN[:, :30], "(12 x 30 x 48 and 12 x 40 x 48)", id="rows"),
        pytest.param(np.zeros_like(DRAWN), "nothing is drawn in it", id="empty"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_by_name(study, mask, words):
    write_mask(study / "mask.dcm", mask)
    assert words in (said := refusal(study))
    assert str(study / "mask.dcm") in said


def test_a_mask_of_another_scan_is_refused(study):
    write_mask(study / "mask.dcm", np.concatenate([DRAWN, DRAWN])[:15], order=range(3, 15), NumberOfFrames=12)
    assert f"{study / 'mask.dcm'}: lies 6.0 mm beside the images" in refusal(study)


def test_the_place_of_a_feet_first_series_is_that_of_the_turned_array(tmp_path):
    # The first stored voxel lies at (-20, -90, 400); from there to the right, to the back and to the feet.
    ct = read_axial(write_series(tmp_path / "feet-first", HU, orientation=FEET_FIRST), "feet-first")
    assert ct.corners == pytest.approx(np.array([[-55.25, -90, 378], [-20, -70.5, 400]]))


def test_a_damaged_mask_does_not_make_a_normal_study(study):
    write_mask(study / "mask.dcm")
    os.truncate(study / "mask.dcm", (study / "mask.dcm").stat().st_size // 2)
    assert f"{study}, file mask.dcm: image 1.2.3 cannot be read" in refusal(study)


def test_a_file_that_is_no_dicom_is_refused_by_name(study):
    (study / "notes.txt").write_text("fracture of C5")
    assert f"{study}, file notes.txt" in refusal(study)


def test_two_masks_are_refused(study):
    write_mask(study / "a.dcm")
    write_mask(study / "b.dcm")
    assert f"{study}: 1 CT object(s) and 2 mask(s)" in refusal(study)


def test_a_mask_without_its_ct_is_refused(study):
    write_mask(study / "mask.dcm")
    (study / "ct.dcm").unlink()
    assert f"{study}: 0 CT object(s) and 1 mask(s)" in refusal(study)


def test_an_empty_study_is_refused(study):
    (study / "ct.dcm").unlink()
    assert f"{study}: 0 CT object(s) and 0 mask(s)" in refusal(study)


def test_single_slices_are_refused(study):
    write_series(study.parent / "0002", HU)
    assert f"{study.parent / '0002'}: 1 image(s)" in refusal(study.parent / "0002")


def test_a_folder_without_studies_is_refused(tmp_path):
    with pytest.raises(UnusableData, match="no study folder in it"):
        open_dataset(f"cspine:{tmp_path}")
    with pytest.raises(UnusableData, match="no study folder in it"):
        open_dataset(f"cspine:{tmp_path / 'absent'}")


def test_an_unknown_study_is_refused(study):
    with pytest.raises(UnusableData, match="no study '9'"):
        open_dataset(f"cspine:{study.parent}").load("9")
