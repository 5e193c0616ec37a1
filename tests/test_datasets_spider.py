"""SPIDER: series of a patient, discs counted from below, gradings that do not fit the masks, and refusals."""

from pathlib import Path

import numpy as np
import pytest

from inference.datasets import open_mr_dataset
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import CANAL, DISC, VERTEBRAE, LabelledMR
from tests.mr_fixtures import ORIGIN, SHAPE, SPACING, column_of, point, values, write_csv, write_sagittal

HEADER = (
    "Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,Disc herniation,Disc narrowing,Disc bulging,"
    "Pfirrman grade"
)
#: L3 partly in view, L4 and L5, the discs below each, all in front of the canal.
MASK = column_of({103: (0, 5), 203: (6, 9), 2: (10, 17), 202: (18, 21), 1: (22, 29), 201: (30, 33)})
MASK[2, :, 16:19] = 100


def row(disc: object, *, patient: object = 7, slip: object = 0, herniation: object = 0) -> str:
    return f"{patient},{disc},0,0,0,{slip},{herniation},0,0,2"


GRADED = (row(0), row(1, slip=1, herniation=1), row(2, herniation=1), row(3))


def write_spider(
    root: Path, *, series: tuple[str, ...] = ("t2",), rows: tuple[str, ...] = GRADED, axes: str = "PIL"
) -> None:
    for name in series:
        write_sagittal(root / "images" / f"7_{name}.mha", values(), axes=axes)
        write_sagittal(root / "masks" / f"7_{name}.mha", MASK, axes=axes)
    write_csv(root / "radiological_gradings.csv", HEADER, *rows)


def load(root: Path) -> LabelledMR:
    return open_mr_dataset(f"spider:{root}").load("7")


def refusal(root: Path) -> str:
    with pytest.raises(UnusableData) as refused:
        load(root)
    return str(refused.value)


@pytest.mark.parametrize("axes", ["PIL", "LPS", "RAS", "SRP", "ASL"])
def test_any_order_of_axes_gives_one_study_with_an_affine(tmp_path, axes):
    write_spider(tmp_path, axes=axes)
    (series,) = load(tmp_path).series
    assert np.array_equal(series.values, values())
    assert series.values.dtype == np.float32
    assert point(series, (0, 0, 0)) == pytest.approx(ORIGIN)
    # One slice to the left, two rows down, three columns to the back.
    there = [ORIGIN[0] + SPACING[0], ORIGIN[1] + 3 * SPACING[2], ORIGIN[2] - 2 * SPACING[1]]
    assert point(series, (1, 2, 3)) == pytest.approx(there)


def test_structures_have_the_names_of_the_vertebrae_from_below(tmp_path):
    write_spider(tmp_path)
    (series,) = load(tmp_path).series
    expected = {103: VERTEBRAE["L3"], 2: VERTEBRAE["L4"], 1: VERTEBRAE["L5"], 100: CANAL}
    expected |= {200 + n: DISC + VERTEBRAE[name] for n, name in ((1, "L5"), (2, "L4"), (3, "L3"))}
    for label, value in expected.items():
        assert np.array_equal(series.structures == value, label == MASK), label
    assert series.structures.dtype == np.uint8


def test_every_slice_of_a_disc_has_a_box_with_its_worst_class_and_level(tmp_path):
    write_spider(tmp_path)
    (series,) = load(tmp_path).series
    assert [box.slice for box in series.boxes] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    here = [(box.label, box.level, box.left, box.top, box.right, box.bottom) for box in series.boxes if box.slice == 2]
    assert here == [
        ("disc", "L3/L4", 6, 6, 14, 9),
        ("herniation", "L4/L5", 6, 18, 14, 21),
        ("slip", "L5/S1", 6, 30, 14, 33),
    ]


def test_a_sliver_of_a_disc_has_no_box(tmp_path):
    write_spider(tmp_path)
    mask = MASK.copy()
    mask[4, 6:8, 6:8] = 203
    write_sagittal(tmp_path / "masks" / "7_t2.mha", mask)
    assert max(box.slice for box in load(tmp_path).series[0].boxes) == 3


def test_series_that_a_patient_lacks_are_absent_and_not_refused(tmp_path):
    write_spider(tmp_path, series=("t1", "t2_SPACE"))
    case = load(tmp_path)
    assert [one.sequence for one in case.series] == ["T1", "T2"]
    assert {one.plane for one in case.series} == {"sagittal"}
    assert (case.name, case.patient, case.region, case.licence) == ("7", "7", "lumbar", "CC BY 4.0")


def test_a_disc_drawn_but_not_graded_has_no_box_and_is_named(tmp_path, caplog):
    write_spider(tmp_path, rows=(row(1), row(9)))
    levels = {box.level for box in load(tmp_path).series[0].boxes}
    assert levels == {"L5/S1"}
    assert "7_t2.mha: L4/L5, L3/L4 drawn but not graded" in caplog.text


@pytest.mark.parametrize("empty", ["", "nan", "NaN"])
def test_a_disc_with_an_empty_grade_is_not_graded(tmp_path, empty):
    write_spider(tmp_path, rows=(row(1), row(2, slip=empty), row(3)))
    assert {box.level for box in load(tmp_path).series[0].boxes} == {"L5/S1", "L3/L4"}


def test_numbers_may_be_written_with_a_fraction(tmp_path):
    write_spider(tmp_path, rows=(row("1.0", patient="7.0", slip="1.0"),))
    assert {box.label for box in load(tmp_path).series[0].boxes} == {"slip"}


def test_a_patient_without_gradings_has_outlines_and_no_boxes(tmp_path, caplog):
    write_spider(tmp_path, rows=(row(1, patient=8),))
    (series,) = load(tmp_path).series
    assert series.boxes is None
    assert series.structures.any()
    assert "patient 7 is not in the gradings" in caplog.text


def test_patients_come_in_the_order_of_their_numbers(tmp_path):
    write_spider(tmp_path)
    for name in ("10_t1.mha", "9_t1.mha"):
        for kind in ("images", "masks"):
            write_sagittal(tmp_path / kind / name, MASK)
    assert open_mr_dataset(f"spider:{tmp_path}").names == ("7", "9", "10")


def test_hidden_files_are_not_read(tmp_path):
    write_spider(tmp_path)
    (tmp_path / "images" / "._7_t2.mha").write_bytes(b"left by macOS")
    assert len(load(tmp_path).series) == 1


def test_an_image_without_its_mask_is_refused(tmp_path):
    write_spider(tmp_path)
    (tmp_path / "masks" / "7_t2.mha").unlink()
    assert "masks/7_t2.mha: missing, the mask of" in refusal(tmp_path)


def test_a_file_of_another_name_is_refused(tmp_path):
    write_spider(tmp_path, series=("t2", "flair"))
    assert "7_flair.mha: no name of the data set" in refusal(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    write_csv(tmp_path / "radiological_gradings.csv", HEADER)
    assert "no image PATIENT_t1.mha" in refusal(tmp_path)


def test_gradings_that_contradict_each_other_are_refused(tmp_path):
    write_spider(tmp_path, rows=(row(1), row(1), row(1, slip=1)))
    assert "line 4: disc 1 of patient 7 was graded otherwise above" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [(HEADER.replace("Disc herniation", "Hernia"), "no column Disc herniation"), ("", "no column Patient")],
)
def test_gradings_without_a_column_are_refused(tmp_path, text, message):
    write_spider(tmp_path)
    write_csv(tmp_path / "radiological_gradings.csv", text)
    assert message in refusal(tmp_path)


def test_gradings_that_are_no_numbers_are_refused(tmp_path):
    write_spider(tmp_path, rows=(row(1, slip="yes"),))
    assert "line 2: Spondylolisthesis is 'yes', not a number" in refusal(tmp_path)


def test_a_mask_with_another_label_is_refused(tmp_path):
    write_spider(tmp_path)
    write_sagittal(tmp_path / "masks" / "7_t2.mha", np.where(MASK == 100, 99, MASK))
    assert "masks/7_t2.mha: 99 is no label of this data set" in refusal(tmp_path)


def test_a_mask_of_another_grid_is_refused(tmp_path):
    write_spider(tmp_path)
    write_sagittal(tmp_path / "masks" / "7_t2.mha", MASK, origin=(-2.0, -30.0, 120.0))
    assert "masks/7_t2.mha: lies 6.0 mm beside the images" in refusal(tmp_path)
    write_sagittal(tmp_path / "masks" / "7_t2.mha", MASK[:4])
    assert "mask and images differ in slices" in refusal(tmp_path)


@pytest.mark.parametrize("compress", [True, False])
def test_a_truncated_image_is_refused(tmp_path, compress):
    write_spider(tmp_path)
    path = tmp_path / "images" / "7_t2.mha"
    write_sagittal(path, values(), compress=compress)
    path.write_bytes(path.read_bytes()[:-200])
    assert "7_t2.mha: not a readable image; fetch it again" in refusal(tmp_path)


def test_an_unknown_patient_is_refused(tmp_path):
    write_spider(tmp_path)
    with pytest.raises(UnusableData, match="no patient '8' with images"):
        open_mr_dataset(f"spider:{tmp_path}").load("8")


def test_the_fixture_is_not_symmetric():
    assert MASK.shape == SHAPE
    assert not np.array_equal(MASK, MASK[:, ::-1])
