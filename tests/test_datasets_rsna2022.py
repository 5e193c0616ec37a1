"""RSNA 2022 from a folder as it is downloaded: order, boxes, maps, tables, and what is refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from inference.datasets import open_dataset
from inference.datasets.labelled import CERVICAL, LabelledCT, UnusableData
from inference.datasets.store import prepare
from tests.datasets_fixtures import STUDY, box_row, label_row, spine, write_nifti, write_series, write_table
from tests.sources import FEET_FIRST, SAGITTAL, SPACING

BOX = {"x": 8.0, "y": 5.0, "width": 8.0, "height": 6.0}
HU, LABELS = spine()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of one intact study without images."""
    write_table(tmp_path / "train.csv", [label_row()])
    write_table(tmp_path / "train_bounding_boxes.csv", [box_row(1, **BOX, study="9.9")])
    return tmp_path


def fracture(root: Path, *boxes: dict[str, object]) -> None:
    """Make the study one with a fracture of C5, in these boxes."""
    write_table(root / "train.csv", [label_row(fractured=["C5"])])
    write_table(root / "train_bounding_boxes.csv", [box_row(1, **BOX, study="9.9"), *boxes])


def images(root: Path, study: str = STUDY) -> Path:
    return root / "train_images" / study


def load(root: Path) -> LabelledCT:
    return open_dataset(f"rsna2022:{root}").load(STUDY)


def refusal(root: Path) -> str:
    with pytest.raises(UnusableData) as refused:
        load(root)
    return str(refused.value)


def test_a_study_becomes_a_case_with_its_levels(root):
    write_series(images(root), HU)
    fracture(root)
    case = load(root)
    assert np.array_equal(case.hu, HU)
    assert case.hu.dtype == np.int16
    assert case.spacing == pytest.approx(SPACING)
    assert (case.name, case.patient, case.fractured) == (STUDY, STUDY, True)
    assert case.levels == {level: level == "C5" for level in CERVICAL}
    assert case.vertebrae is None
    assert "non-commercial" in case.licence


def test_an_intact_study_has_no_fracture_anywhere(root):
    write_series(images(root), HU)
    case = load(root)
    assert case.fractured is False
    assert not any(case.levels.values())
    assert not case.fractures.any()


def test_a_fractured_study_without_boxes_does_not_say_where(root):
    write_series(images(root), HU)
    fracture(root)
    assert load(root).fractures is None


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(range(7, 19), id="does not start at 1"),
        pytest.param(range(12, 0, -1), id="from the head"),
        pytest.param([5, 2, 11, 1, 8, 3, 12, 4, 10, 6, 9, 7], id="shuffled"),
    ],
)
def test_slices_follow_their_positions_and_boxes_the_names_of_the_files(root, numbers):
    write_series(images(root), HU, numbers=list(numbers))
    fracture(root, box_row(numbers[3], **BOX))
    case = load(root)
    assert np.array_equal(case.hu, HU)
    assert np.flatnonzero(case.fractures.any(axis=(1, 2))).tolist() == [3]


def test_a_feet_first_scan_is_turned_together_with_its_boxes(root):
    # Stored from head to feet and from left to right: slices and columns are the other way round.
    write_series(images(root), HU[::-1, :, ::-1], orientation=FEET_FIRST)
    fracture(root, box_row(12, x=HU.shape[2] - 16, y=5, width=8, height=6))
    case = load(root)
    assert np.array_equal(case.hu, HU)
    expected = np.zeros(HU.shape, bool)
    expected[0, 5:11, 8:16] = True
    assert np.array_equal(case.fractures, expected)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_compressed_images_have_the_same_values(root, syntax: UID):
    write_series(images(root), HU, syntax=syntax)
    assert np.array_equal(load(root).hu, HU)


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless])
@pytest.mark.parametrize("colour", ["YBR_FULL", "YBR_FULL_422", "RGB"])
def test_one_sample_per_pixel_is_grey_whatever_colour_is_declared(root, syntax, colour):
    def declare(header: Dataset) -> None:
        header.PhotometricInterpretation = colour

    write_series(images(root), HU, syntax=syntax, edit=declare)
    assert np.array_equal(load(root).hu, HU)


def test_images_larger_than_512_keep_their_size_and_boxes(root):
    hu, _ = spine((3, 640, 768))
    write_series(images(root), hu)
    fracture(root, box_row(2, x=700, y=600, width=20, height=10))
    case = load(root)
    assert case.hu.shape == (3, 640, 768)
    assert case.fractures.sum() == case.fractures[1, 600:610, 700:720].sum() == 200


def test_a_box_holds_every_pixel_that_it_touches_and_ends_at_the_image(root):
    write_series(images(root), HU)
    fracture(
        root,
        box_row(2, x=8.4, y=5.5, width=1.8, height=1.0),
        box_row(3, x=-3.5, y=38.0, width=5, height=9.5),
    )
    expected = np.zeros(HU.shape, bool)
    expected[1, 5:7, 8:11] = True
    expected[2, 38:40, 0:2] = True
    assert np.array_equal(load(root).fractures, expected)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (box_row(13, **BOX), "13.dcm, not here"),
        (box_row(2, x=48, y=0, width=5, height=5), "2.dcm lies outside the image"),
        (box_row(2, x=-9, y=0, width=5, height=5), "2.dcm lies outside the image"),
        (box_row(2, x=9, y=9, width=-4, height=5), "2.dcm lies outside the image"),
        (box_row(2.5, **BOX), "train_bounding_boxes.csv, line 3: slice_number is 2.5"),
        (box_row(2, **BOX | {"y": float("nan")}), "train_bounding_boxes.csv, line 3: y is 'nan', not a number"),
    ],
)
def test_a_box_that_cannot_be_drawn_is_refused(root, box, words):
    write_series(images(root), HU)
    fracture(root, box)
    assert words in refusal(root)


def test_boxes_in_an_intact_study_are_a_contradiction(root):
    write_series(images(root), HU)
    write_table(root / "train_bounding_boxes.csv", [box_row(1, **BOX)])
    assert f"study {STUDY}: boxes in train_bounding_boxes.csv, but no fracture" in refusal(root)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LPI"])
def test_a_map_comes_onto_the_images_through_its_affine(root, axes):
    write_series(images(root), HU, numbers=range(12, 0, -1))
    # Floating point as nibabel writes it.
    write_nifti(root / "segmentations" / f"{STUDY}.nii", LABELS.astype(np.float64), axes=axes)
    case = load(root)
    assert case.vertebrae.dtype == np.uint8
    assert np.array_equal(case.vertebrae, LABELS)


def test_a_map_that_lies_on_bone_only_upside_down_is_turned(root):
    write_series(images(root), HU)
    write_nifti(root / "segmentations" / f"{STUDY}.nii", LABELS[::-1])
    assert np.array_equal(load(root).vertebrae, LABELS)


def test_stray_voxels_of_a_map_are_dropped(root):
    write_series(images(root), HU)
    strays = LABELS.copy()
    strays[10, 30, 40:43] = 6
    write_nifti(root / "segmentations" / f"{STUDY}.nii", strays)
    assert np.array_equal(load(root).vertebrae, LABELS)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        pytest.param(LABELS[:-1], "differ in slices, rows or columns (11 x 40 x 48 and 12 x 40 x 48)", id="slices"),
        pytest.param(np.roll(LABELS, 20, axis=2), "it belongs to other images", id="beside the bone"),
        pytest.param(np.where(LABELS > 0, 13 - LABELS, 0), "C1 is at the feet end", id="levels upside down"),
        pytest.param(np.where(LABELS > 0, 22, 0), "no vertebra from C1 to T12", id="lumbar"),
        pytest.param(np.where(LABELS == 5, 29, LABELS), "29 is no label of a vertebra", id="unknown label"),
        pytest.param(LABELS - 0.5, "-0.5 is no label of a vertebra", id="no labels"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_by_name(root, labels, words):
    write_series(images(root), HU)
    write_nifti(root / "segmentations" / f"{STUDY}.nii", np.asarray(labels, np.float32))
    assert words in (said := refusal(root))
    assert f"segmentations/{STUDY}.nii" in said


def test_a_damaged_map_is_refused_by_name(root):
    write_series(images(root), HU)
    write_nifti(root / "segmentations" / f"{STUDY}.nii", LABELS)
    os.truncate(root / "segmentations" / f"{STUDY}.nii", 20000)
    assert f"segmentations/{STUDY}.nii: truncated, 20000 of 23392 bytes are readable" in refusal(root)


@pytest.mark.parametrize("table", ["train.csv", "train_bounding_boxes.csv"])
def test_a_missing_table_is_named(root, table):
    (root / table).unlink()
    assert f"{root / table}: cannot be read" in refusal(root)


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        ("train.csv", "C4", "c4", "train.csv: no column C4"),
        ("train_bounding_boxes.csv", "height", "h", "train_bounding_boxes.csv: no column height"),
        ("train.csv", ",0\n", ",\n", "train.csv, line 2: C7 is '', not a number"),
        ("train.csv", ",0\n", "\n", "train.csv, line 2: C7 is None, not a number"),
        ("train.csv", ",0\n", ",2\n", "train.csv, line 2: C7 is 2, neither 0 nor 1"),
        ("train.csv", ",0\n", ",1\n", "train.csv, line 2: patient_overall is 0, C1..C7"),
        ("train.csv", f"{STUDY},", ",", "train.csv, line 2: StudyInstanceUID is '', not a UID"),
        ("train.csv", f"{STUDY},", "..,", "train.csv, line 2: StudyInstanceUID is '..', not a UID"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(root, table, old, new, words):
    write_series(images(root), HU)
    text = (root / table).read_text()
    assert old in text
    (root / table).write_text(text.replace(old, new))
    assert words in refusal(root)


def test_a_study_in_two_rows_is_refused(root):
    write_table(root / "train.csv", [label_row(), label_row(fractured=["C2"])])
    assert f"train.csv, line 3: study {STUDY} occurs twice" in refusal(root)


def test_a_table_that_is_no_text_is_refused(root):
    (root / "train.csv").write_bytes(b"\xff\xfe\x00")
    assert "train.csv: cannot be read" in refusal(root)


def test_a_table_saved_by_a_spreadsheet_is_read(root):
    write_series(images(root), HU)
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert load(root).fractured is False


def test_studies_without_images_are_left_out_with_a_warning(root, caplog):
    write_table(root / "train.csv", [label_row("1.2.3"), label_row()])
    write_series(images(root), HU)
    dataset = open_dataset(f"rsna2022:{root}")
    assert dataset.names == (STUDY,)
    assert "1 studies of train.csv without images" in caplog.text
    with pytest.raises(UnusableData, match="no study '1.2.3' with images"):
        dataset.load("1.2.3")


def test_a_folder_without_any_study_is_refused(root):
    assert "train_images: no folder of any of the 1 studies" in refusal(root)


def test_a_study_without_slices_is_refused_by_name(root):
    images(root).mkdir(parents=True)
    (images(root) / "._1.dcm").write_bytes(b"left by macOS")
    assert f"{images(root)}: 0 image(s)" in refusal(root)


@pytest.mark.parametrize(("size", "words"), [(600, "file 4.dcm"), (3000, "file 4.dcm"), (0, "file 4.dcm")])
def test_a_truncated_image_is_refused_by_name(root, size, words):
    os.truncate(write_series(images(root), HU)[3], size)
    said = refusal(root)
    assert str(images(root)) in said
    assert words in said


def test_a_missing_slice_is_refused_with_its_place(root):
    write_series(images(root), HU)[5].unlink()
    assert f"{images(root)}: 1 missing slice(s): between 408.0 and 412.0 mm" in refusal(root)


def test_a_sagittal_series_is_refused(root):
    write_series(images(root), HU, orientation=SAGITTAL)
    assert f"{images(root)}: its slices lie 90 degrees off axial" in refusal(root)


def test_a_study_becomes_a_case_on_disk(root, tmp_path):
    write_series(images(root), HU)
    fracture(root, box_row(6, x=8, y=17, width=8, height=6))
    write_nifti(root / "segmentations" / f"{STUDY}.nii", LABELS)
    (case,) = prepare(f"rsna2022:{root}", cache=tmp_path / "cases")
    assert case.name == STUDY
    assert np.array_equal(case.hu, HU)
    assert np.array_equal(case.vertebrae, LABELS)
    assert np.flatnonzero(case.labels).tolist() == [5]
    assert case.levels["C5"]


def test_a_damaged_study_stops_the_preparation_by_name(root, tmp_path):
    write_series(images(root), HU)[3].write_bytes(b"")
    with pytest.raises(UnusableData, match="file 4.dcm"):
        prepare(f"rsna2022:{root}", cache=tmp_path / "cases")
