"""RSNA 2024: severities and points by disc, series that are not one stack, what is known to be wrong, and refusals."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from inference.datasets import open_mr_dataset
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import LabelledMR
from inference.datasets.rsna2024 import BAD_SERIES, BAD_STUDIES, CONDITIONS, DISCS
from tests.mr_fixtures import point, write_csv
from tests.sources import AXIAL, SAGITTAL, as_file, ct_headers

STUDY, T1, T2, AXIALS = "4003253", "702807833", "1054713880", "2448190387"
TILTED = (1, 0, 0, 0, 0.96, -0.28)
COLUMNS = [f"{one}_{disc.lower().replace('/', '_')}" for one in CONDITIONS for disc in DISCS]


def pixels(count: int = 4, rows: int = 40, columns: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, (count, rows, columns)).astype(np.uint16)


def write_stack(
    folder: Path,
    array: np.ndarray,
    *,
    orientation: Sequence[float] = SAGITTAL,
    first: int = 1,
    positions: Sequence[float] | None = None,
    edit: Callable[[Dataset], None] = lambda header: None,
) -> None:
    """Write NUMBER.dcm from `first` on, without the attributes that the challenge lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = ct_headers(
        len(array), orientation=orientation, positions=positions, rows=array.shape[1], columns=array.shape[2]
    )
    for number, (header, plane) in enumerate(zip(headers, array, strict=True), start=first):
        header.Modality, header.InstanceNumber = "MR", number
        header.SOPInstanceUID += f".{first}"
        del header.SliceThickness, header.FrameOfReferenceUID
        header.WindowCenter, header.WindowWidth = [300, 40], [1500, 400]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
        header.PixelData = plane.astype("<u2").tobytes()
        as_file(header)
        edit(header)
        header.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def severity_row(study: str = STUDY, **values: str) -> str:
    return ",".join([study, *(values.get(column, "Normal/Mild") for column in COLUMNS)])


def write_tables(root: Path, *, rows: Sequence[str] | None = None, points: Sequence[str] = ()) -> None:
    write_csv(root / "train.csv", ",".join(["study_id", *COLUMNS]), *(rows or [severity_row()]))
    kinds = {T1: "Sagittal T1", T2: "Sagittal T2/STIR", AXIALS: "Axial T2"}
    described = [f"{STUDY},{series},{kind}" for series, kind in kinds.items()]
    write_csv(root / "train_series_descriptions.csv", "study_id,series_id,series_description", *described)
    header = "study_id,series_id,instance_number,condition,level,x,y"
    write_csv(root / "train_label_coordinates.csv", header, *points)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study with one sagittal series."""
    write_tables(tmp_path)
    write_stack(tmp_path / "train_images" / STUDY / T2, pixels())
    return tmp_path


def folder(root: Path, series: str = T2) -> Path:
    return root / "train_images" / STUDY / series


def load(root: Path) -> LabelledMR:
    return open_mr_dataset(f"rsna2024:{root}").load(STUDY)


def refusal(root: Path) -> str:
    with pytest.raises(UnusableData) as refused:
        load(root)
    return str(refused.value)


def test_a_sagittal_series_runs_from_right_to_left(root):
    case = load(root)
    (series,) = case.series
    # SAGITTAL rows run to the back and columns to the feet: the normal points to the right, against our order.
    assert np.array_equal(series.values, pixels()[::-1])
    assert (series.sequence, series.plane, series.boxes, series.structures) == ("T2", "sagittal", None, None)
    assert point(series, (3, 0, 0)) == pytest.approx([-20, -90, 400])
    assert point(series, (0, 0, 0)) == pytest.approx([-26, -90, 400])
    assert (case.name, case.patient, case.region) == (STUDY, STUDY, "lumbar")


def test_severities_are_measurements_of_their_disc(root):
    changed = {"spinal_canal_stenosis_l4_l5": "Severe", "left_neural_foraminal_narrowing_l5_s1": "Moderate"}
    write_tables(root, rows=[severity_row(**changed)])
    found = load(root).measurements
    assert set(found) == set(DISCS)
    assert found["L4/L5"]["spinal_canal_stenosis"] == 2
    assert found["L5/S1"]["left_neural_foraminal_narrowing"] == 1
    assert found["L1/L2"] == dict.fromkeys(CONDITIONS, 0)


@pytest.mark.parametrize("empty", ["", "NaN"])
def test_a_severity_that_nobody_gave_is_absent(root, empty):
    write_tables(root, rows=[severity_row(spinal_canal_stenosis_l1_l2=empty)])
    assert set(load(root).measurements["L1/L2"]) == set(CONDITIONS) - {"spinal_canal_stenosis"}


def test_a_point_is_where_it_was_clicked_in_the_patient(root):
    write_tables(root, points=[f"{STUDY},{T2},2,Spinal Canal Stenosis,L4/L5,10.5,20"])
    found = load(root).measurements["L4/L5"]
    where = [found[f"spinal_canal_stenosis_{axis}_mm"] for axis in "xyz"]
    # The second image lies 2 mm to the right; 10.5 columns to the back, 20 rows to the feet.
    assert where == pytest.approx([-22, -90 + 10.5 * 0.75, 400 - 20 * 0.5])
    assert found["spinal_canal_stenosis"] == 0


def test_a_series_of_several_sizes_and_orientations_is_several_series(root):
    write_stack(folder(root, AXIALS), pixels(3, seed=1), orientation=AXIAL)
    write_stack(folder(root, AXIALS), pixels(3, 30, 30, seed=2), orientation=AXIAL, first=11)
    write_stack(folder(root, AXIALS), pixels(2, seed=3), orientation=TILTED, first=21)
    _, *axial = load(root).series
    assert {one.plane for one in axial} == {"axial"}
    assert sorted(one.values.shape for one in axial) == [(2, 40, 48), (3, 30, 30), (3, 40, 48)]
    expected = {one.shape: one for one in (pixels(3, seed=1), pixels(3, 30, 30, seed=2), pixels(2, seed=3))}
    assert all(np.array_equal(one.values, expected[one.values.shape]) for one in axial)


def test_blocks_with_gaps_between_them_are_several_series(root):
    positions = [0, 4, 8, 30, 34, 38]
    write_stack(folder(root, AXIALS), pixels(6), orientation=AXIAL, positions=positions)
    _, lower, upper = load(root).series
    assert np.array_equal(np.concatenate([lower.values, upper.values]), pixels(6))
    assert point(upper, (0, 0, 0))[2] - point(lower, (0, 0, 0))[2] == pytest.approx(30)


def test_a_single_image_beside_the_others_is_left_out(root, caplog):
    write_stack(folder(root), pixels(1), orientation=AXIAL, first=9)
    assert len(load(root).series) == 1
    assert "9.dcm: a single image beside the others, left out" in caplog.text


def test_hidden_files_are_not_read(root):
    (folder(root) / "._1.dcm").write_bytes(b"left by macOS")
    assert len(load(root).series) == 1


def test_a_series_without_images_or_known_to_be_bad_is_left_out(root, caplog):
    bad = min(BAD_SERIES)
    write_stack(folder(root, bad), pixels(3), orientation=AXIAL)
    write_csv(
        root / "train_series_descriptions.csv",
        "study_id,series_id,series_description",
        f"{STUDY},{T2},Sagittal T2/STIR",
        f"{STUDY},{bad},Axial T2",
        f"{STUDY},{T1},Sagittal T1",
    )
    assert len(load(root).series) == 1
    assert caplog.text.count("not here or known to be bad, left out") == 2


def test_studies_known_to_be_bad_or_without_images_are_not_offered(root, caplog):
    bad = min(BAD_STUDIES)
    (root / "train_images" / bad).mkdir()
    write_tables(root, rows=[severity_row(bad), severity_row(), severity_row("99")])
    assert open_mr_dataset(f"rsna2024:{root}").names == (STUDY,)
    assert "2 studies without images, or with wrong ones, are left out" in caplog.text


def test_points_known_to_be_exchanged_are_left_out(root):
    series = "3230157587"
    write_stack(folder(root, series), pixels(3), orientation=AXIAL)
    write_tables(root, points=[f"{STUDY},{series},1,Left Subarticular Stenosis,L4/L5,10,20"])
    with (root / "train_series_descriptions.csv").open("a") as table:
        table.write(f"{STUDY},{series},Axial T2\n")
    case = load(root)
    assert len(case.series) == 2
    assert "left_subarticular_stenosis_x_mm" not in case.measurements["L4/L5"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{STUDY},{T2},9,Spinal Canal Stenosis,L4/L5,10,20", "a point in 9.dcm, which is not here"),
        (f"{STUDY},{T2},1,Spinal Canal Stenosis,L4/L5,48,20", "1.dcm: the point (48, 20) is outside it"),
        (f"{STUDY},{T2},1,Spinal Canal Stenosis,L4/L5,,20", "line 2: x is '', not a number"),
        (f"{STUDY},{T2},1,Scoliosis,L4/L5,10,20", "'Scoliosis' at 'L4/L5' is not of the challenge"),
        (f"{STUDY},../{T2},1,Spinal Canal Stenosis,L4/L5,10,20", "series_id is '../1054713880', not a number"),
    ],
)
def test_a_point_that_is_nowhere_is_refused(root, row, message):
    write_tables(root, points=[row])
    assert message in refusal(root)


def test_tables_of_another_form_are_refused(root):
    write_tables(root, rows=[severity_row(spinal_canal_stenosis_l1_l2="Mild")])
    assert "line 2: spinal_canal_stenosis_l1_l2 is 'Mild'; expected one of Normal/Mild" in refusal(root)
    write_tables(root, rows=[severity_row("x")])
    assert "study_id is 'x', not a number" in refusal(root)
    write_tables(root)
    write_csv(root / "train_series_descriptions.csv", "study_id,series_id,series_description", f"{STUDY},{T2},DWI")
    assert "series_description is 'DWI', not of the challenge" in refusal(root)
    (root / "train.csv").unlink()
    assert "train.csv: cannot be read" in refusal(root)


def test_no_images_at_all_are_refused(tmp_path):
    write_tables(tmp_path)
    assert "no folder of any of the 1 studies" in refusal(tmp_path)
    (tmp_path / "train_images" / STUDY).mkdir(parents=True)
    assert f"{STUDY}: no series that can be read" in refusal(tmp_path)


def test_images_that_cannot_be_used_are_refused_by_name(root):
    (folder(root) / "7.dcm").write_bytes(b"damaged")
    assert "7.dcm: not a DICOM image" in refusal(root)
    (folder(root) / "7.dcm").unlink()
    write_stack(folder(root), pixels(1), first=7, edit=lambda header: header.pop("PixelSpacing"))
    assert "7.dcm: no PixelSpacing" in refusal(root)


def test_two_images_at_one_place_are_refused(root):
    write_stack(folder(root), pixels(1), first=9)
    assert f"{folder(root)}: 1 duplicate slice position" in refusal(root)


def test_a_coronal_series_is_refused(root):
    write_stack(folder(root, AXIALS), pixels(3), orientation=(1, 0, 0, 0, 0, -1))
    assert f"{folder(root, AXIALS)}: coronal" in refusal(root)
