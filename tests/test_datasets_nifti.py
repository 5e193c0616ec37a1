"""VerSe and CTSpine1K: NIfTI in any order of axes, the layouts on disk, and what is refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from inference.datasets import open_dataset
from inference.datasets.labelled import UnusableData
from inference.datasets.nifti import read_image
from inference.datasets.store import prepare
from tests.datasets_fixtures import ORIGIN, spine, write_nifti, write_raw_nifti, write_verse
from tests.sources import SPACING

HU, LABELS = spine()
NAME = "sub-verse004_dir-ax"
TRUNK = np.where(LABELS > 0, LABELS + 15, 0).astype(np.uint8)  # L1 to L4
NECK = "HN_P029"


def refusal(text: str, name: str | None = None) -> str:
    with pytest.raises(UnusableData) as refused:
        open_dataset(text).load(name or NAME)
    return str(refused.value)


def ct_file(root: Path, name: str = NAME) -> Path:
    return root / "rawdata" / name.split("_")[0] / f"{name}_ct.nii.gz"


def map_file(root: Path, name: str = NAME) -> Path:
    return root / "derivatives" / name.split("_")[0] / f"{name}_seg-vert_msk.nii.gz"


def write_ctspine1k(root: Path, *names: str, listed: str = f"trainset:\n{NECK}.nii.gz\n") -> None:
    """Write volumes with maps apart from each other, and the list of the data set."""
    root.mkdir(exist_ok=True)
    (root / "data_split.txt").write_text(listed)
    for name in names:
        write_nifti(root / "volumes" / f"{name}.nii.gz", HU, axes="RAS")
        write_nifti(root / "labels" / f"{name}_seg.nii.gz", LABELS, axes="RAS")


@pytest.mark.parametrize("axes", ["PIR", "LPS", "RAS", "ASL", "IPL", "SRP"])
def test_any_order_of_axes_gives_the_same_case(tmp_path, axes):
    write_verse(tmp_path, NAME, axes=axes)
    case = open_dataset(f"verse:{tmp_path}").load(NAME)
    assert np.array_equal(case.hu, HU)
    assert np.array_equal(case.vertebrae, LABELS)
    assert (case.hu.dtype, case.vertebrae.dtype) == (np.int16, np.uint8)
    assert case.spacing == pytest.approx(SPACING)


def test_the_affine_is_read_as_nifti_defines_it(tmp_path):
    # i runs to the back, j to the feet, k to the patient's left; one voxel in front, at the head, on the right.
    stored = np.zeros((5, 6, 7), np.int16)
    stored[0, 0, 0], stored[1, 0, 0], stored[0, 1, 0], stored[0, 0, 1] = 100, 1, 2, 3
    affine = np.array([[0, 0, -0.5, 30], [-1, 0, 0, 40], [0, -2, 0, 50], [0, 0, 0, 1.0]])
    write_raw_nifti(tmp_path / "one.nii.gz", stored, affine)
    image = read_image(tmp_path / "one.nii.gz")
    assert image.array.shape == (6, 5, 7)
    assert image.spacing == pytest.approx((2, 1, 0.5))
    assert image.array[-1, 0, 0] == 100
    assert (image.array[-1, 1, 0], image.array[-2, 0, 0], image.array[-1, 0, 1]) == (1, 2, 3)
    # RAS (30, 40, 50) is LPS (-30, -40, 50): the front right of the uppermost slice.
    assert image.corners == pytest.approx(np.array([[-30, -40, 40], [-27, -36, 50]]))


def test_a_scan_turned_by_some_degrees_is_not_resampled(tmp_path):
    turned = np.radians(10)
    rotation = np.array([[np.cos(turned), -np.sin(turned), 0], [np.sin(turned), np.cos(turned), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-1, -1, 2])
    stored = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    write_raw_nifti(tmp_path / "one.nii.gz", stored, affine)
    assert np.array_equal(read_image(tmp_path / "one.nii.gz").array, stored.transpose(2, 1, 0))


def test_a_sheared_grid_is_refused(tmp_path):
    affine = np.diag([-1, -1, 2, 1.0])
    affine[1, 2] = 0.7
    write_raw_nifti(tmp_path / "one.nii.gz", np.zeros((4, 5, 6), np.int16), affine)
    with pytest.raises(UnusableData, match=r"one\.nii\.gz: not a readable image"):
        read_image(tmp_path / "one.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_truncated_volume_is_refused(tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    write_nifti(path, HU)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(UnusableData, match=rf"one{suffix}: truncated"):
        read_image(path)


def test_a_volume_that_is_no_nifti_is_refused(tmp_path):
    (tmp_path / "one.nii.gz").write_bytes(b"<html>Please log in</html>")
    with pytest.raises(UnusableData, match=r"one\.nii\.gz: not a readable image"):
        read_image(tmp_path / "one.nii.gz")


def test_four_dimensions_are_refused(tmp_path):
    volume = SimpleITK.GetImageFromArray(HU)
    SimpleITK.WriteImage(SimpleITK.JoinSeries([volume, volume]), str(tmp_path / "one.nii.gz"))
    with pytest.raises(UnusableData, match="48 x 40 x 12 x 2 voxels of 1 value"):
        read_image(tmp_path / "one.nii.gz")


def test_verse_says_where_the_vertebrae_are_and_nothing_of_fractures(tmp_path):
    write_verse(tmp_path / "dataset-01training", NAME)
    dataset = open_dataset(f"verse:{tmp_path}")
    assert dataset.names == (NAME,)
    case = dataset.load(NAME)
    assert (case.name, case.patient, case.licence) == (NAME, "sub-verse004", "CC BY-SA 4.0")
    assert (case.fractures, case.levels, case.fractured) == (None, None, None)


def test_two_scans_of_one_subject_are_of_one_patient(tmp_path):
    names = ("sub-verse401_split-verse253", "sub-verse401_split-verse260")
    for name in names:
        write_verse(tmp_path, name)
    dataset = open_dataset(f"verse:{tmp_path}")
    assert dataset.names == names
    assert {dataset.load(name).patient for name in names} == {"sub-verse401"}


def test_lumbar_scans_are_left_out_with_a_warning(tmp_path, caplog):
    write_verse(tmp_path, NAME)
    write_verse(tmp_path, "sub-verse005", labels=TRUNK)
    assert open_dataset(f"verse:{tmp_path}").names == (NAME,)
    assert "1 of 2 scans show nothing of C1 to C7" in caplog.text


def test_what_lies_below_the_thorax_is_no_vertebra_of_a_case(tmp_path):
    labels = LABELS.copy()
    for below, value in enumerate((20, 25, 26, 27, 28)):
        labels[11, 30, 40 + below] = value
    write_verse(tmp_path, NAME, labels=labels)
    assert np.array_equal(open_dataset(f"verse:{tmp_path}").load(NAME).vertebrae, LABELS)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.where(LABELS == 5, 29, LABELS), "29 is no label of a vertebra"),
        (np.where(LABELS == 5, np.int16(-1), LABELS), "-1 is no label of a vertebra"),
        (np.where(LABELS == 5, 5.5, LABELS), "5.5 is no label of a vertebra"),
    ],
)
def test_an_unknown_label_is_refused(tmp_path, labels, words):
    write_verse(tmp_path, NAME)
    write_nifti(map_file(tmp_path), np.asarray(labels), axes="PIR")
    assert f"{map_file(tmp_path)}: {words}" in refusal(f"verse:{tmp_path}")


def test_a_map_of_another_size_is_refused(tmp_path):
    write_verse(tmp_path, NAME)
    write_nifti(map_file(tmp_path), LABELS[1:], axes="PIR")
    said = refusal(f"verse:{tmp_path}")
    assert f"{map_file(tmp_path)}, map of {NAME}_ct.nii.gz" in said
    assert "(11 x 40 x 48 and 12 x 40 x 48)" in said


def test_a_map_at_another_place_is_refused(tmp_path):
    write_verse(tmp_path, NAME)
    write_nifti(map_file(tmp_path), LABELS, axes="PIR", origin=(ORIGIN[0], ORIGIN[1], ORIGIN[2] + 6))
    assert "lies 6.0 mm beside the images" in refusal(f"verse:{tmp_path}")


def test_values_beyond_16_bits_stay_metal(tmp_path):
    hu = HU.astype(np.float32)
    hu[0, 0, 0], hu[0, 0, 1] = 40000, -40000
    write_verse(tmp_path, NAME, hu=hu)
    assert open_dataset(f"verse:{tmp_path}").load(NAME).hu[0, 0, :2].tolist() == [32767, -32768]


def test_a_scan_without_its_map_is_refused_by_name(tmp_path):
    write_verse(tmp_path, NAME)
    map_file(tmp_path).unlink()
    said = refusal(f"verse:{tmp_path}")
    assert str(map_file(tmp_path)) in said
    assert str(ct_file(tmp_path)) in said


@pytest.mark.parametrize("content", [None, "", "{", '{"label": 5}', "[1, 2]", '[{"label": "C5"}]'])
def test_missing_or_damaged_centroids_are_refused_by_name(tmp_path, content):
    write_verse(tmp_path, NAME)
    centroids = map_file(tmp_path).with_name(f"{NAME}_seg-subreg_ctd.json")
    centroids.unlink() if content is None else centroids.write_text(content)
    assert f"{centroids}: not a list of centroids" in refusal(f"verse:{tmp_path}")


def test_two_releases_in_one_folder_are_refused(tmp_path):
    for release in ("a", "b"):
        write_verse(tmp_path / release, NAME)
    assert "have one name; give the folder of one release" in refusal(f"verse:{tmp_path}")


def test_the_layout_of_the_challenge_is_refused(tmp_path):
    write_nifti(tmp_path / "verse004.nii.gz", HU)
    write_nifti(tmp_path / "verse004_seg.nii.gz", LABELS)
    assert "subject based release, not of the challenge files" in refusal(f"verse:{tmp_path}")


def test_an_unknown_case_is_refused(tmp_path):
    write_verse(tmp_path, NAME)
    assert "no case 'sub-verse999'" in refusal(f"verse:{tmp_path}", "sub-verse999")


def test_verse_becomes_cases_on_disk(tmp_path):
    write_verse(tmp_path / "data", NAME)
    (case,) = prepare(f"verse:{tmp_path / 'data'}", cache=tmp_path / "cases")
    assert (case.name, case.patient, case.fractured) == (NAME, "sub-verse004", None)
    assert np.array_equal(case.hu, HU)
    assert np.array_equal(case.vertebrae, LABELS)
    assert not case.clear.any(), "nothing is known about fractures in any slice"
    with pytest.raises(UnusableData, match="no map of fractures"):
        _ = case.fractures


def test_ctspine1k_finds_volumes_and_maps_wherever_they_lie(tmp_path):
    name = "1.3.6.1.4.1.9328.50.4.0001"
    write_ctspine1k(tmp_path, NECK, name, listed=f"trainset:\n{name}.nii.gz\n\ntest_public:\n{NECK}.nii.gz\n")
    dataset = open_dataset(f"ctspine1k:{tmp_path}")
    assert dataset.names == (name, NECK)
    case = dataset.load(NECK)
    assert np.array_equal(case.hu, HU)
    assert np.array_equal(case.vertebrae, LABELS)
    assert (case.patient, case.fractured, case.licence) == (NECK, None, "CC BY-NC-SA")


def test_the_two_names_in_the_last_line_of_the_published_split_are_one_volume(tmp_path):
    name = "volume-covid19-A-0319_ct"
    write_ctspine1k(tmp_path, name, listed=f"test_private:\r\n{name}.nii.gz{name}.nii.gz\r\n")
    assert open_dataset(f"ctspine1k:{tmp_path}").names == (name,)


def test_only_what_the_split_lists_is_read(tmp_path):
    write_ctspine1k(tmp_path, NECK, "HN_P999")
    assert open_dataset(f"ctspine1k:{tmp_path}").names == (NECK,)


def test_listed_volumes_that_are_not_there_are_left_out_with_a_warning(tmp_path, caplog):
    write_ctspine1k(tmp_path, NECK, listed=f"trainset:\n{NECK}.nii.gz\nliver_1.nii.gz\nliver_2.nii.gzliver_2.nii.gz\n")
    assert open_dataset(f"ctspine1k:{tmp_path}").names == (NECK,)
    assert "2 of the 3 volumes of data_split.txt are not in" in caplog.text


def test_a_volume_of_ctspine1k_without_its_map_is_refused_by_name(tmp_path):
    write_ctspine1k(tmp_path, NECK)
    (tmp_path / "labels" / f"{NECK}_seg.nii.gz").unlink()
    assert f"{NECK}.nii.gz: no map {NECK}_seg.nii.gz" in refusal(f"ctspine1k:{tmp_path}", NECK)


def test_an_organ_mask_with_the_name_of_a_volume_is_refused(tmp_path):
    write_ctspine1k(tmp_path, "liver_1", listed="trainset:\nliver_1.nii.gz\n")
    write_nifti(tmp_path / "labelsTr" / "liver_1.nii.gz", LABELS)
    said = refusal(f"ctspine1k:{tmp_path}", "liver_1")
    assert "labelsTr/liver_1.nii.gz" in said
    assert "have one name; leave only the file of CTSpine1K" in said


@pytest.mark.parametrize("split", [None, b"\xff\xfe"])
def test_ctspine1k_without_a_readable_split_is_refused(tmp_path, split):
    write_ctspine1k(tmp_path, NECK)
    (tmp_path / "data_split.txt").unlink()
    if split:
        (tmp_path / "data_split.txt").write_bytes(split)
    assert f"{tmp_path / 'data_split.txt'}: cannot be read" in refusal(f"ctspine1k:{tmp_path}", NECK)


def test_ctspine1k_without_any_volume_is_refused(tmp_path):
    write_ctspine1k(tmp_path)
    assert f"{tmp_path}: none of the 1 volumes of data_split.txt" in refusal(f"ctspine1k:{tmp_path}", NECK)
