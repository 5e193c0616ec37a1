"""Phantoms are repeatable, differ only where they are broken, and tell their truth nowhere but in the truth file."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage

from inference.phantom import dicom
from inference.phantom.cervical_ct import render, sample_spec
from inference.phantom.specification import FIRST_RESERVED_SEED, LEVELS, PROFILES, SEEDS, PhantomSpec, streams
from inference.phantom.studies import write_studies
from inference.phantom.truth import truth
from inference.training.fracture_slices import area_under_curve
from inference.volume import read_volume
from tests.phantoms import SMALL_SEED, rendered, with_one_gap

MANY = range(300)
#: Types 1 and 2 of the CT Image IOD (PS3.3 A.3), as far as they apply to an axial image.
REQUIRED = """
PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber
ReferringPhysicianName Modality SeriesInstanceUID SeriesNumber PatientPosition FrameOfReferenceUID
PositionReferenceIndicator Manufacturer InstanceNumber ImageType AcquisitionNumber KVP RescaleIntercept RescaleSlope
RescaleType SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness
"""


def thin(spec: PhantomSpec, *, slices: int = 6) -> PhantomSpec:
    """Return the same phantom seen in a few slices through the middle: fast to render and to write."""
    scan = spec.scan
    x, y, z = scan.origin
    lowest = z + scan.spacing[0] * (scan.shape[0] // 2 - slices // 2)
    return replace(spec, scan=replace(scan, shape=(slices, *scan.shape[1:]), origin=(x, y, lowest)))


def written(folder: Path, *, seed: int = SMALL_SEED, positive: bool | None = None) -> dict[str, pydicom.Dataset]:
    """Write a thin phantom; return its files by name."""
    phantom = render(thin(sample_spec(seed, positive=positive)))
    dicom.write_dicom(phantom, folder, localizer=True)
    return {path.name: pydicom.dcmread(path) for path in sorted(folder.iterdir())}


def same_but_acute(one: PhantomSpec, other: PhantomSpec) -> bool:
    """Whether two specifications differ in nothing but their acute fractures."""
    healed = [tuple(f for f in spec.fractures if f.healed) for spec in (one, other)]
    return replace(one, fractures=healed[0]) == replace(other, fractures=healed[1])


def test_the_same_seed_gives_the_same_voxels_and_truth():
    again, first = render(sample_spec(SMALL_SEED)), rendered()
    assert np.array_equal(again.volume, first.volume)
    assert np.array_equal(again.fractures, first.fractures)
    assert np.array_equal(again.vertebrae, first.vertebrae)


def test_another_process_gives_the_same_voxels():
    program = (
        "import hashlib; from inference.phantom.cervical_ct import render, sample_spec; "
        "from tests.test_phantom_cervical_ct import thin; "
        f"print(hashlib.sha256(render(thin(sample_spec({SMALL_SEED}))).volume.tobytes()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True)
    here = hashlib.sha256(render(thin(sample_spec(SMALL_SEED))).volume.tobytes()).hexdigest()
    assert done.stdout.strip() == here


def test_another_seed_and_another_profile_give_another_phantom():
    assert sample_spec(1) != sample_spec(2)
    assert sample_spec(1, "easy").scan.noise_hu != sample_spec(1, "hard").scan.noise_hu


def test_the_volume_is_hounsfield_units_with_all_levels_in_order():
    phantom = rendered()
    assert phantom.volume.dtype == np.int16
    assert phantom.volume.shape == phantom.spec.scan.shape
    assert phantom.volume.min() >= -1024
    assert phantom.volume.max() <= 3071
    heights = [np.argwhere(phantom.vertebrae == number)[:, 0].mean() for number in range(1, len(LEVELS) + 1)]
    assert (np.diff(heights) < 0).all()  # C1 highest, and slice 0 lowest
    bone = phantom.volume[phantom.vertebrae > 0]
    assert bone.mean() > 300


def test_acute_fractures_lie_in_their_vertebra():
    phantom = rendered(220, positive=True)
    for number, fracture in enumerate(phantom.spec.acute, start=1):
        levels = np.unique(phantom.vertebrae[phantom.fractures == number])
        assert LEVELS.index(fracture.level) + 1 in levels


@pytest.mark.parametrize("seed", [0, 3, SMALL_SEED, 900_000])
def test_the_label_changes_nothing_of_a_specification_but_its_acute_fractures(seed):
    positive, negative = sample_spec(seed, positive=True), sample_spec(seed, positive=False)
    assert same_but_acute(positive, negative)
    assert positive.acute
    assert not negative.acute
    assert sample_spec(seed) in (positive, negative)


@pytest.mark.parametrize("seed", [SMALL_SEED, 220])
def test_the_same_seed_with_and_without_fracture_differs_only_near_the_fracture(seed):
    broken, whole = rendered(seed, positive=True), rendered(seed, positive=False)
    step, row, column = broken.spec.scan.spacing
    centres = [v.centre for v in broken.spec.vertebrae if v.level in {f.level for f in broken.spec.acute}]
    changed = np.argwhere(broken.volume != whole.volume)
    points = np.array(broken.spec.scan.origin) + changed[:, ::-1] * (column, row, step)
    away = np.abs(points[:, None] - np.array(centres)[None])  # (voxels, fractures, xyz)
    near = (away < (40, 60, 35)).all(2).any(1)  # the vertebra, and swelling up to two levels along the airway
    assert near.all()
    assert 0 < len(changed) < 0.01 * broken.volume.size
    assert np.array_equal(whole.fractures, np.zeros_like(whole.fractures))


@pytest.mark.parametrize(("seed", "number"), [(SMALL_SEED, 0), (220, 0), (322, 0)])
def test_the_truth_box_is_where_the_bone_changed(seed, number):
    broken, whole = with_one_gap(seed, number), rendered(seed, positive=False)
    bone = whole.vertebrae > 0
    changed = np.argwhere(bone & (np.abs(broken.volume.astype(int) - whole.volume) > 150))
    scan = broken.spec.scan
    (entry,) = truth(broken)["fractures"]
    origin, pitch = np.array(scan.origin) + scan.table, np.array(scan.spacing[::-1])
    box = (np.array(entry["box_mm"]) - origin) / pitch  # x, y, z in voxels
    assert box[0] == pytest.approx(changed.min(0)[::-1], abs=1.1)
    assert box[1] == pytest.approx(changed.max(0)[::-1], abs=1.1)


def test_the_truth_lists_the_slices_that_show_each_fracture():
    phantom = rendered(220, positive=True)
    content = truth(phantom)
    assert content["fractured"] is True
    assert content["levels"] == {level: int(level in ("C2", "C4")) for level in LEVELS}
    for number, entry in enumerate(content["fractures"], start=1):
        shown = np.flatnonzero((phantom.fractures == number).any((1, 2)))
        assert entry["slices"] == [dicom.sop_uid(phantom.spec, int(index)) for index in shown]
    assert json.loads(json.dumps(content)) == content


def test_the_truth_of_an_intact_phantom_is_empty():
    content = truth(rendered(SMALL_SEED, positive=False))
    assert content["fractured"] is False
    assert content["fractures"] == []
    assert set(content["levels"].values()) == {0}


def test_a_fracture_that_no_voxel_shows_has_no_box():
    phantom = rendered(SMALL_SEED, positive=True)
    (entry,) = truth(replace(phantom, fractures=np.zeros_like(phantom.fractures)))["fractures"]
    assert entry["box_mm"] is None
    assert entry["slices"] == []


def test_half_of_the_seeds_are_fractured():
    share = np.mean([bool(sample_spec(seed).acute) for seed in MANY])
    assert 0.4 < share < 0.6


def numbers(value: object, path: str = "") -> dict[str, float]:
    """Return every number of nested plain data by its path."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in numbers(part, f"{path}/{name}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, part in enumerate(value) for k, v in numbers(part, f"{path}/{i}").items()}
    return {path: float(value)} if isinstance(value, int | float) else {}


def test_no_sampled_number_but_those_of_fractures_tells_the_label():
    specs = [sample_spec(seed) for seed in MANY]
    labels = np.array([bool(spec.acute) for spec in specs])
    rows = [
        numbers({"scan": asdict(s.scan), "neck": asdict(s.neck), "vertebrae": [asdict(v) for v in s.vertebrae]})
        | {"canals": len(s.canals), "healed": len(s.fractures) - len(s.acute)}
        for s in specs
    ]
    # By chance alone, one of these 160 numbers reaches about 3.3 standard errors of 0.033.
    assert len(rows[0]) > 100
    for name in rows[0]:
        assert 0.37 < area_under_curve(np.array([row[name] for row in rows]), labels) < 0.63, name


def test_healed_fractures_count_as_no_fracture():
    seed = next(s for s in MANY if len(sample_spec(s, "hard", positive=False).fractures) == 1)
    spec = sample_spec(seed, "hard", positive=False)
    assert spec.fractures[0].healed
    assert spec.acute == ()


def test_profiles_get_harder():
    easy, standard, hard = (PROFILES[name] for name in ("easy", "standard", "hard"))
    assert easy.gap_mm[0] > standard.gap_mm[0] > hard.gap_mm[0]
    assert easy.healed < standard.healed < hard.healed


@pytest.mark.parametrize("seed", [-1, FIRST_RESERVED_SEED, FIRST_RESERVED_SEED + 5])
def test_a_reserved_seed_is_refused(seed, tmp_path):
    with pytest.raises(ValueError, match="reserved"):
        sample_spec(seed)
    with pytest.raises(ValueError, match="reserved"):
        write_studies(tmp_path, count=1, seed=seed, profile="easy", truth=False)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_profile_is_refused():
    with pytest.raises(KeyError, match="impossible"):
        sample_spec(1, "impossible")


def test_the_seed_ranges_do_not_overlap_and_leave_out_the_reserved_ones():
    train, val, test = SEEDS["train"], SEEDS["val"], SEEDS["test"]
    assert (train.stop, val.stop) == (val.start, test.start)
    assert test.stop <= FIRST_RESERVED_SEED


def test_a_new_component_at_the_end_moves_no_other_stream():
    before, after = streams(7, ("a", "b")), streams(7, ("a", "b", "c"))
    assert before["b"].random() == after["b"].random()
    assert after["a"].random() != after["c"].random()


def test_the_specification_is_one_json_document():
    assert json.loads(sample_spec(SMALL_SEED).to_json())["seed"] == SMALL_SEED


def test_every_file_says_that_it_is_synthetic(tmp_path):
    for name, dataset in written(tmp_path).items():
        assert dataset.SyntheticData == "YES", name
        assert dataset.QualityControlImage == "YES"
        assert str(dataset.PatientName).startswith("PHANTOM^")
        assert dataset.PatientID.startswith("PHANTOM-")
        assert "not a patient" in dataset.ImageComments


def test_the_volume_gate_reads_the_phantom_back_voxel_by_voxel_at_its_place(tmp_path):
    phantom = render(thin(sample_spec(SMALL_SEED)))
    dicom.write_dicom(phantom, tmp_path, localizer=False)
    volume = read_volume(sorted(tmp_path.iterdir()))
    assert np.array_equal(volume.array, phantom.volume)
    assert volume.spacing == pytest.approx(phantom.spec.scan.spacing)
    assert volume.affine[:3, 3] == pytest.approx(np.add(phantom.spec.scan.origin, phantom.spec.scan.table), abs=1e-3)
    assert volume.quality == ()
    assert [h.SOPInstanceUID for h in volume.headers] == [dicom.sop_uid(phantom.spec, i) for i in range(6)]


def test_headers_hold_what_a_ct_image_must_have(tmp_path):
    for name, dataset in written(tmp_path).items():
        assert [keyword for keyword in REQUIRED.split() if keyword not in dataset] == [], name
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == CTImageStorage
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert all(
            uid.is_valid for uid in (dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
        )


def test_the_localizer_has_a_series_of_its_own_and_shares_the_coordinates(tmp_path):
    files = written(tmp_path)
    localizer, axial = files.pop("LOC0001.dcm"), next(iter(files.values()))
    assert localizer.ImageType[2] == "LOCALIZER"
    assert localizer.SeriesInstanceUID != axial.SeriesInstanceUID
    assert localizer.StudyInstanceUID == axial.StudyInstanceUID
    assert localizer.FrameOfReferenceUID == axial.FrameOfReferenceUID
    top = max(float(dataset.ImagePositionPatient[2]) for dataset in files.values())
    assert localizer.ImagePositionPatient[2] == top  # its first row is the head end
    assert localizer.ImageOrientationPatient == [0, 1, 0, 0, 0, -1]


def test_instance_numbers_run_from_the_head_down(tmp_path):
    files = [dataset for name, dataset in written(tmp_path).items() if name.startswith("IM")]
    by_number = sorted(files, key=lambda dataset: dataset.InstanceNumber)
    heights = [float(dataset.ImagePositionPatient[2]) for dataset in by_number]
    assert heights == sorted(heights, reverse=True)
    assert [dataset.InstanceNumber for dataset in by_number] == list(range(1, 7))


def test_uids_are_the_same_every_time_and_differ_between_phantoms(tmp_path):
    first, again = written(tmp_path / "a"), written(tmp_path / "b")
    assert [d.SOPInstanceUID for d in first.values()] == [d.SOPInstanceUID for d in again.values()]
    specs = [sample_spec(1), sample_spec(2), sample_spec(1, "hard"), replace(sample_spec(1), generator_version=99)]
    assert len({dicom.uid(spec, "study") for spec in specs}) == len(specs)
    assert len({dicom.uid(specs[0], *parts) for parts in (("study",), ("axial",), ("axial", "0"), ("axial", "1"))}) == 4


def test_two_writings_are_equal_byte_by_byte(tmp_path):
    written(tmp_path / "a")
    written(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_nothing_in_the_files_but_the_pixels_depends_on_the_label(tmp_path):
    broken, whole = written(tmp_path / "a", positive=True), written(tmp_path / "b", positive=False)
    assert list(broken) == list(whole)
    differ = False
    for name, dataset in broken.items():
        differ |= dataset.PixelData != whole[name].PixelData
        assert len(dataset.PixelData) == len(whole[name].PixelData)
        del dataset.PixelData, whole[name].PixelData
        assert dataset == whole[name]
        assert dataset.file_meta == whole[name].file_meta
    assert differ


def test_studies_are_folders_named_by_uid_with_the_truth_beside_them(tmp_path):
    said: list[str] = []
    (folder,) = write_studies(
        tmp_path, count=1, seed=SMALL_SEED, profile="easy", truth=True, positive=True, progress=said.append
    )
    spec = sample_spec(SMALL_SEED, "easy", positive=True)
    slices = spec.scan.shape[0]
    assert folder == tmp_path / dicom.uid(spec, "study")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"IM{number:04d}.dcm" for number in range(1, slices + 1)), "LOC0001.dcm"]
    content = json.loads((tmp_path / "truth" / f"{folder.name}.json").read_text())
    assert (content["study_uid"], content["fractured"], content["seed"]) == (folder.name, True, SMALL_SEED)
    first = pydicom.dcmread(folder / "IM0001.dcm", stop_before_pixels=True)
    assert (first.StudyInstanceUID, first.SeriesInstanceUID) == (folder.name, content["series_uid"])
    assert said == [f"phantom 1 of 1: {folder}"]


def test_without_truth_only_the_studies_are_written(tmp_path):
    folders = write_studies(tmp_path, count=1, seed=SMALL_SEED, profile="standard", truth=False, positive=False)
    assert list(tmp_path.iterdir()) == folders


def test_no_studies_write_nothing(tmp_path):
    assert write_studies(tmp_path, count=0, seed=1, profile="easy", truth=True) == []
    assert list(tmp_path.iterdir()) == []
