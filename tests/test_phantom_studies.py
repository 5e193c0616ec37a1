"""Studies of phantoms in folders, and the truth beside them."""

import json

import numpy as np
import pydicom
import pytest
import SimpleITK

from inference.phantom import dicom, headers
from inference.phantom.cervical_ct import sample_spec
from inference.phantom.specification import FIRST_RESERVED_SEED
from inference.phantom.studies import write_studies
from inference.phantom.truth import write_truth
from tests.phantoms import SMALL_SEED, blank, series_paths


def test_studies_are_folders_named_by_uid_with_the_truth_beside_them(tmp_path):
    said: list[str] = []
    (folder,) = write_studies(
        tmp_path, count=1, seed=SMALL_SEED, profile="easy", truth=True, positive=True, progress=said.append
    )
    spec = sample_spec(SMALL_SEED, "easy", positive=True)
    assert folder == tmp_path / headers.uid(spec, "study")
    assert len(series_paths(folder, spec, "axial")) == spec.scan.shape[0]
    assert {path.suffix for path in folder.iterdir()} == {".dcm"}
    content = json.loads((tmp_path / "truth" / f"{folder.name}.json").read_text())
    assert (content["study_uid"], content["fractured"], content["seed"]) == (folder.name, True, SMALL_SEED)
    first = pydicom.dcmread(series_paths(folder, spec, "axial")[0], stop_before_pixels=True)
    assert (first.StudyInstanceUID, first.SeriesInstanceUID) == (folder.name, content["series_uid"])
    assert said == [f"phantom 1 of 1: {folder}"]


def test_label_maps_lie_on_the_axial_series_in_the_space_of_the_patient(tmp_path):
    one = blank()
    one.vertebrae[3, 10, 70], one.fractures[4, 11, 71] = 5, 1
    dicom.write_dicom(one, tmp_path / "study")
    write_truth(one, tmp_path / "truth")
    files = [str(path) for path in series_paths(tmp_path / "study", one.spec, "axial")]
    files.sort(key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    series = SimpleITK.ReadImage(files)
    study_uid = headers.uid(one.spec, "study")
    for name, labels in (("vertebrae", one.vertebrae), ("fractures", one.fractures)):
        image = SimpleITK.ReadImage(tmp_path / "truth" / f"{study_uid}.{name}.nii.gz")
        assert np.array_equal(SimpleITK.GetArrayFromImage(image), labels)
        for part in ("Origin", "Spacing", "Direction"):
            assert getattr(image, f"Get{part}")() == pytest.approx(getattr(series, f"Get{part}")(), abs=1e-3), part


def test_without_truth_only_the_studies_are_written(tmp_path):
    folders = write_studies(tmp_path, count=1, seed=SMALL_SEED, profile="standard", truth=False, positive=False)
    assert list(tmp_path.iterdir()) == folders


def test_no_studies_write_nothing(tmp_path):
    assert write_studies(tmp_path, count=0, seed=1, profile="easy", truth=True) == []
    assert list(tmp_path.iterdir()) == []


def test_a_reserved_seed_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="reserved"):
        write_studies(tmp_path, count=1, seed=FIRST_RESERVED_SEED, profile="easy", truth=False)
    assert list(tmp_path.iterdir()) == []
