"""Labelled MR studies on disk: made once, complete or made again, and the same as what the data set gave."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from inference.datasets import mr_store, open_mr_dataset
from inference.datasets.labelled import UnusableData
from tests.cases import silent
from tests.mr_fixtures import write_csv
from tests.mr_studies import LABELS, MARKED, SHAPE, SPACING, study, write

TEXT = "phantom_mr:lumbar:standard@5+1"
COLUMNS = "file,patient,region,sequence,plane,pixel_mm"


def opened(cache: Path, text: str = TEXT) -> mr_store.Study:
    (found,) = mr_store.prepare_mr(text, cache=cache, progress=silent)
    return found


@pytest.fixture
def stored(tmp_path) -> mr_store.Study:
    write(tmp_path, study("lumbar", 5))
    return opened(tmp_path)


def test_a_study_is_read_as_it_was_written(stored):
    made = study("lumbar", 5)
    assert (stored.name, stored.region, stored.source) == (made.name, "lumbar", "tests")
    assert stored.measurements == made.measurements
    for one, other in zip(stored.series, made.series, strict=True):
        assert (one.sequence, one.plane, one.shape) == (other.sequence, other.plane, SHAPE)
        assert one.boxes == other.boxes
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.affine, other.affine)
    assert {box.slice for box in stored.series[1].boxes} == set(MARKED)
    assert {box.label for box in stored.series[1].boxes} <= set(LABELS["lumbar"])
    np.testing.assert_array_equal(stored.series[1].structures, made.series[1].structures)


def test_whole_numbers_take_half_the_space_and_others_lose_nothing(tmp_path):
    whole = study("lumbar", 5)
    fine = replace(whole, series=tuple(replace(one, values=one.values + np.float32(0.25)) for one in whole.series))
    huge = replace(whole, series=tuple(replace(one, values=one.values + 40_000) for one in whole.series))
    for number, (made, kind) in enumerate([(whole, np.int16), (fine, np.float32), (huge, np.float32)]):
        write(tmp_path / str(number), made)
        found = opened(tmp_path / str(number)).series[1].values
        assert found.dtype == kind
        np.testing.assert_array_equal(found, made.series[1].values)


def test_spacing_is_that_of_the_affine(stored):
    assert stored.series[0].spacing == pytest.approx(SPACING)


def test_a_series_without_outlines_says_so(stored):
    assert stored.series[0].boxes is None
    with pytest.raises(UnusableData, match=r"standard-5: no outlines in its sagittal T1 series"):
        _ = stored.series[0].structures


def readers(root: Path) -> None:
    """Write one image and what two readers drew in it."""
    (root / "images").mkdir()
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.arange(48, dtype=np.uint8).reshape(6, 8)), root / "images/a.png"
    )
    write_csv(root / "images.csv", COLUMNS, "a.png,p1,lumbar,T2,sagittal,0.5")
    box = "<object><name>disc</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox></object>"
    size = "<filename>a.png</filename><size><width>8</width><height>6</height><depth>1</depth></size>"
    for reader, left in (("first", 2), ("second", 3)):
        (root / reader).mkdir()
        (root / reader / "a.xml").write_text(f"<annotation>{size}{box.format(left)}</annotation>")


def test_two_readers_of_one_image_are_two_studies_and_one_without_a_record_is_read_again(tmp_path):
    readers(tmp_path)
    said: list[str] = []

    def left(reader: str) -> float:
        (found,) = mr_store.prepare_mr(f"voc:{tmp_path / reader}", cache=tmp_path / "cache", progress=said.append)
        (box,) = found.series[0].boxes
        return box.left

    assert [left(reader) for reader in ("first", "second", "first")] == [2, 3, 2]
    assert said == [f"voc:{tmp_path / reader}: read 1 of 1 cases" for reader in ("first", "second")]
    for record in (tmp_path / "cache").rglob("study.json"):
        record.rename(f"{record}.part")
    assert left("second") == 3
    assert len(said) == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"series": [{}]}'])
def test_a_damaged_record_is_named(content, stored, tmp_path):
    (stored.folder / "study.json").write_text(content)
    with pytest.raises(UnusableData, match=r"study\.json: no record of a case .*delete its folder"):
        opened(tmp_path)


def test_a_record_of_another_version_is_refused(stored, tmp_path):
    path = stored.folder / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "grey"}))
    with pytest.raises(UnusableData, match="colour"):
        opened(tmp_path)


def test_phantoms_are_a_data_set_of_mr():
    assert open_mr_dataset(TEXT).names == [study("lumbar", 5).name]
