"""A phantom on disk is a study as a scanner writes it: six series, four ways of storing HU, one patient's space."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, XRayRadiationDoseSRStorage

from inference.phantom import dicom, headers
from inference.phantom.cervical_ct import Rendered, render, sample_spec
from inference.phantom.specification import PhantomSpec
from inference.phantom.vendors import HU_RANGE, VENDORS
from inference.volume import Volume, read_volume
from tests.integration.validators import dciodvfy, dcmtk_sr, sr_validator
from tests.phantoms import SMALL_SEED, blank, series_paths, thin

#: Types 1 and 2 of the CT Image IOD (PS3.3 A.3), as far as they apply to an axial image.
REQUIRED = """
PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber
ReferringPhysicianName Modality SeriesInstanceUID SeriesNumber PatientPosition FrameOfReferenceUID
PositionReferenceIndicator Manufacturer InstanceNumber ImageType AcquisitionNumber KVP RescaleIntercept RescaleSlope
RescaleType SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness
"""
KINDS = ("scout", "axial", "soft", "sagittal", "coronal")
#: UIDs that say what something is, not which: the same in all phantoms.
CLASSES = ("SOPClassUID", "MediaStorageSOPClassUID", "TransferSyntaxUID", "ImplementationClassUID")
#: What dicom3tools says of our files that the standard says otherwise.
ALLOWED = (
    "(0008,001c)",  # Synthetic Data is younger than the release
    "Unrecognized defined term",  # Image Type as manufacturers write it; US is in the list of PS3.3 C.11.1.1.2
)
#: PixelMed knows Procedure reported by its former code (PS3.16 TID 10011 has the new one).
FORMER_CODE = "expected (P5-08000,SRT"

by_vendor = pytest.mark.parametrize("vendor", VENDORS)


@cache
def phantom(*, positive: bool | None = None) -> Rendered:
    """Return a few slices through the middle of a phantom."""
    return render(thin(sample_spec(SMALL_SEED, positive=positive)))


def of_vendor(one: Rendered, vendor: str) -> Rendered:
    """Return the same phantom from another manufacturer's scanner."""
    return replace(one, spec=replace(one.spec, scan=replace(one.spec.scan, vendor=vendor)))


def write(folder: Path, one: Rendered) -> dict[str, Dataset]:
    """Write a phantom; return its files by name."""
    dicom.write_dicom(one, folder)
    return {path.name: pydicom.dcmread(path) for path in sorted(folder.iterdir())}


def volume(folder: Path, spec: PhantomSpec, kind: str) -> Volume:
    return read_volume(series_paths(folder, spec, kind))


def identities(dataset: Dataset) -> Iterator[str]:
    """Yield every UID that names something of this phantom, at any depth."""
    for part in (dataset, dataset.file_meta):
        for element in part.iterall():
            if element.VR == "UI" and element.keyword not in CLASSES:
                yield str(element.value)


def items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the content items of a report, depth first."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from items(item)


def measured(report: Dataset) -> Mapping[str, list[float]]:
    """Return the numbers of a report by their names, in order."""
    found: dict[str, list[float]] = {}
    for item in items(report):
        if item.ValueType == "NUM":
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            found.setdefault(name, []).append(float(item.MeasuredValueSequence[0].NumericValue))
    return found


def test_there_is_a_table_for_each_of_the_four():
    assert list(VENDORS) == ["siemens", "ge", "philips", "canon"]
    for vendor in VENDORS.values():
        assert tuple(vendor.names) == KINDS
        assert len({*(names.number for names in vendor.names.values()), vendor.dose_number}) == 6


@by_vendor
def test_every_file_says_that_it_is_synthetic(vendor, tmp_path):
    for name, dataset in write(tmp_path, of_vendor(phantom(), vendor)).items():
        assert dataset.SyntheticData == "YES", name
        assert dataset.Manufacturer.startswith("Synthetic phantom (")
        assert str(dataset.PatientName).startswith("PHANTOM^")
        assert dataset.PatientID.startswith("PHANTOM-")
        if dataset.SOPClassUID == CTImageStorage:
            assert dataset.QualityControlImage == "YES"
            assert "not a patient" in dataset.ImageComments


@by_vendor
def test_a_study_is_scouts_two_axial_series_two_reformats_and_a_dose_report(vendor, tmp_path):
    one = blank(vendor)
    files = write(tmp_path, one).values()
    names = VENDORS[vendor].names
    counts = {kind: len(series_paths(tmp_path, one.spec, kind)) for kind in KINDS}
    assert (counts["scout"], counts["axial"], counts["soft"]) == (2, 24, 12)
    assert min(counts["sagittal"], counts["coronal"]) > 10
    assert len(files) == sum(counts.values()) + 1
    assert len({dataset.StudyInstanceUID for dataset in files}) == 1
    assert len({dataset.SeriesInstanceUID for dataset in files}) == 6
    assert len({dataset.SOPInstanceUID for dataset in files}) == len(files)
    assert [dataset.SOPClassUID for dataset in files].count(XRayRadiationDoseSRStorage) == 1
    for kind in KINDS:
        first = pydicom.dcmread(series_paths(tmp_path, one.spec, kind)[0])
        assert tuple(first.ImageType) == names[kind].image_type
        assert "{" not in first.SeriesDescription


@by_vendor
def test_dciodvfy_accepts_every_series(vendor, tmp_path):
    write(tmp_path, of_vendor(phantom(), vendor))
    kinds = sorted(path for number in (1, 2) for path in tmp_path.glob(f"*IM000{number}.dcm"))
    lines = {path.name: [line for line in dciodvfy(path) if not any(a in line for a in ALLOWED)] for path in kinds}
    assert len(lines) == 11  # two of each image series, such as both scouts, and the dose report
    assert not any(lines.values()), lines


def test_other_validators_accept_the_dose_report(tmp_path):
    dicom.radiation_dose(phantom().spec).save_as(path := tmp_path / "dose.dcm", enforce_file_format=True)
    assert dcmtk_sr(path) == []
    assert [line for line in sr_validator(path) if FORMER_CODE not in line] == []


@by_vendor
def test_headers_hold_what_a_ct_image_must_have(vendor, tmp_path):
    for name, dataset in write(tmp_path, of_vendor(phantom(), vendor)).items():
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert all(pydicom.uid.UID(uid).is_valid for uid in identities(dataset))
        if dataset.SOPClassUID == CTImageStorage:
            assert [keyword for keyword in REQUIRED.split() if keyword not in dataset] == [], name


@by_vendor
def test_the_volume_gate_reads_the_phantom_back_voxel_by_voxel_at_its_place(vendor, tmp_path):
    one = of_vendor(phantom(), vendor)
    write(tmp_path, one)
    read = volume(tmp_path, one.spec, "axial")
    seen = np.ones(one.volume.shape[1:], bool)
    if VENDORS[vendor].storage.padding is not None:
        seen = ~dicom.outside_circle(*seen.shape)
        assert set(read.array[:, ~seen].ravel()) == {-3024.0}  # -2000 stored
        assert 0.75 < seen.mean() < 0.82
    assert np.array_equal(read.array[:, seen], one.volume[:, seen])
    assert read.spacing == pytest.approx(one.spec.scan.spacing)
    assert read.affine[:3, 3] == pytest.approx(np.add(one.spec.scan.origin, one.spec.scan.table), abs=1e-3)
    assert read.quality == ()
    assert [h.SOPInstanceUID for h in read.headers] == [dicom.sop_uid(one.spec, i) for i in range(6)]


@by_vendor
def test_every_manufacturer_stores_the_whole_range(vendor, tmp_path):
    one = blank(vendor)
    one.volume[:, 30, 40], one.volume[:, 30, 41] = HU_RANGE
    write(tmp_path, one)
    array = volume(tmp_path, one.spec, "axial").array
    assert (array[0, 30, 40], array[0, 30, 41]) == HU_RANGE


@pytest.mark.parametrize(
    ("vendor", "stored"),
    [
        ("siemens", (12, 0, -1024, 1.0)),
        ("ge", (16, 1, -1024, 1.0)),
        ("philips", (16, 0, -1024, 0.5)),
        ("canon", (16, 1, 0, 1.0)),
    ],
)
def test_pixels_are_stored_as_the_manufacturer_does(vendor, stored, tmp_path):
    one = blank(vendor)
    write(tmp_path, one)
    first = pydicom.dcmread(series_paths(tmp_path, one.spec, "axial")[0])
    assert (first.BitsStored, first.PixelRepresentation, first.RescaleIntercept, first.RescaleSlope) == stored
    assert first.HighBit == first.BitsStored - 1
    assert first.get("PixelPaddingValue") == (-2000 if vendor == "ge" else None)


@by_vendor
@pytest.mark.parametrize("place", [(11, 22, 30), (15, 34, 52)])
def test_all_series_show_the_same_thing_at_the_same_place(vendor, place, tmp_path):
    one = blank(vendor)
    one.volume[tuple(slice(middle - 3, middle + 4) for middle in place)] = 2000
    write(tmp_path, one)
    step, row, column = one.spec.scan.spacing
    origin = np.add(one.spec.scan.origin, one.spec.scan.table)
    expected = origin + np.array(place)[::-1] * (column, row, step)
    for kind in KINDS[1:]:
        read = volume(tmp_path, one.spec, kind)
        weights = np.clip(read.array + 1000, 0, None)
        indices = np.stack(np.indices(weights.shape), -1).reshape(-1, 3)
        centre = (weights.ravel() @ indices) / weights.sum()
        assert read.affine[:3] @ (*centre, 1) == pytest.approx(expected, abs=0.15), kind
        mass = weights.sum() * read.voxel_mm3 / (3000 * 7**3 * step * row * column)
        assert mass == pytest.approx(1, abs=0.1), kind


def test_the_soft_series_is_twice_as_thick_and_smoother(tmp_path):
    one = of_vendor(phantom(), "canon")
    write(tmp_path, one)
    thin_one, soft = (volume(tmp_path, one.spec, kind) for kind in ("axial", "soft"))
    step, *in_plane = one.spec.scan.spacing
    assert soft.spacing == pytest.approx((2 * step, *in_plane))
    assert soft.headers[0].SliceThickness == 2 * step
    assert soft.affine[2, 3] == pytest.approx(thin_one.affine[2, 3] + step / 2, abs=1e-3)
    assert soft.array.mean() == pytest.approx(thin_one.array.mean(), abs=1)
    roughness = [np.diff(array.array, axis=2).std() for array in (thin_one, soft)]
    assert roughness[1] < 0.7 * roughness[0]
    assert soft.headers[0].ConvolutionKernel != thin_one.headers[0].ConvolutionKernel


def test_reformats_have_square_pixels_and_about_2_mm_between_them(tmp_path):
    one = blank()
    write(tmp_path, one)
    for kind in ("sagittal", "coronal"):
        read = volume(tmp_path, one.spec, kind)
        assert read.spacing[1] == read.spacing[2]
        assert 1.6 < read.spacing[0] < 2.4
        assert read.spacing[0] == pytest.approx(read.headers[0].SliceThickness, abs=1e-3)
        assert read.headers[0].ImageType[0] == "DERIVED"


def test_an_odd_number_of_slices_leaves_one_out_of_the_soft_series(tmp_path):
    one = blank(slices=7)
    write(tmp_path, one)
    assert len(series_paths(tmp_path, one.spec, "soft")) == 3
    assert volume(tmp_path, one.spec, "soft").headers[0].ImagePositionPatient[2] == pytest.approx(
        one.spec.scan.origin[2] + one.spec.scan.table[2] + one.spec.scan.spacing[0] / 2, abs=1e-3
    )


def test_the_scouts_share_a_series_of_their_own_and_the_coordinates(tmp_path):
    one = of_vendor(phantom(), "siemens")
    write(tmp_path, one)
    side, front = (pydicom.dcmread(path) for path in series_paths(tmp_path, one.spec, "scout"))
    axial = [pydicom.dcmread(path) for path in series_paths(tmp_path, one.spec, "axial")]
    assert side.SeriesInstanceUID == front.SeriesInstanceUID != axial[0].SeriesInstanceUID
    assert side.FrameOfReferenceUID == front.FrameOfReferenceUID == axial[0].FrameOfReferenceUID
    assert side.ImageOrientationPatient == [0, 1, 0, 0, 0, -1]
    assert front.ImageOrientationPatient == [1, 0, 0, 0, 0, -1]
    top = max(float(dataset.ImagePositionPatient[2]) for dataset in axial)
    for scout in (side, front):
        assert scout.ImageType[2] == "LOCALIZER"
        assert scout.ImagePositionPatient[2] == top  # its first row is the head end
        assert scout.RescaleType == "US"


@pytest.mark.parametrize("upwards", [True, False])
def test_instance_numbers_run_from_the_head_down_or_from_the_feet_up(upwards, tmp_path):
    one = of_vendor(phantom(), "ge")
    one = replace(one, spec=replace(one.spec, scan=replace(one.spec.scan, upwards=upwards)))
    write(tmp_path, one)
    for kind, count in (("axial", 6), ("soft", 3)):
        files = [pydicom.dcmread(path) for path in series_paths(tmp_path, one.spec, kind)]
        heights = [float(dataset.ImagePositionPatient[2]) for dataset in files]
        assert heights == sorted(heights, reverse=not upwards)
        assert [dataset.InstanceNumber for dataset in files] == list(range(1, count + 1))
    read = volume(tmp_path, one.spec, "axial")
    assert [h.SOPInstanceUID for h in read.headers] == [dicom.sop_uid(one.spec, i) for i in range(6)]


def test_a_minority_of_studies_is_numbered_from_the_feet_up():
    assert 0.1 < np.mean([sample_spec(seed).scan.upwards for seed in range(300)]) < 0.3


@by_vendor
def test_the_dose_report_adds_up_and_speaks_of_the_images(vendor, tmp_path):
    one = of_vendor(phantom(), vendor)
    files = write(tmp_path, one).values()
    report = next(dataset for dataset in files if dataset.SOPClassUID == XRayRadiationDoseSRStorage)
    values = measured(report)
    assert values["Total Number of Irradiation Events"] == [3]
    assert values["CT Dose Length Product Total"] == [pytest.approx(sum(values["DLP"]))]
    assert values["KVP"] == [one.spec.scan.kvp] * 3
    assert values["Scanning Length"] == [pytest.approx(5 * one.spec.scan.spacing[0])] * 3
    spiral = next(dataset for dataset in files if dataset.get("ImageType", [""] * 3)[2] == "AXIAL")
    assert values["Mean CTDIvol"][2] == spiral.CTDIvol
    events = {item.UID for item in items(report) if item.get("ValueType") == "UIDREF"} - {report.StudyInstanceUID}
    images = {dataset.IrradiationEventUID for dataset in files if "IrradiationEventUID" in dataset}
    assert len(images) == 3
    assert images < events


def test_uids_are_the_same_every_time_and_differ_between_phantoms():
    specs = [sample_spec(1), sample_spec(2), sample_spec(1, "hard"), replace(sample_spec(1), generator_version=99)]
    assert [headers.uid(spec, "study") for spec in specs] == [headers.uid(replace(spec), "study") for spec in specs]
    assert len({headers.uid(spec, "study") for spec in specs}) == len(specs)
    assert (
        len({headers.uid(specs[0], *parts) for parts in (("study",), ("axial",), ("axial", "0"), ("axial", "1"))}) == 4
    )


def test_the_last_digits_of_a_number_change_no_uid():
    spec = sample_spec(1)
    x, y, z = spec.scan.origin
    near = replace(spec, scan=replace(spec.scan, origin=(x * (1 + 1e-14), y, z)))
    other = replace(spec, scan=replace(spec.scan, origin=(x + 0.01, y, z)))
    assert near != spec
    assert headers.uid(near, "study") == headers.uid(spec, "study") != headers.uid(other, "study")


def test_the_same_seed_with_another_label_is_another_study_without_a_shared_uid(tmp_path):
    uids = []
    for positive in (True, False):
        files = write(tmp_path / str(positive), phantom(positive=positive))
        uids.append({uid for dataset in files.values() for uid in identities(dataset)} - {headers.IMPLEMENTATION_UID})
    assert len(uids[0]) > len(files)
    assert uids[0].isdisjoint(uids[1])


def test_nothing_in_the_files_but_the_pixels_and_uids_depends_on_the_label(tmp_path):
    broken = write(tmp_path / "a", phantom(positive=True))
    whole = write(tmp_path / "b", phantom(positive=False))
    assert list(broken) == list(whole)
    differ = False
    for name, dataset in broken.items():
        other = whole[name]
        differ |= dataset.get("PixelData") != other.get("PixelData")
        assert len(dataset.get("PixelData", b"")) == len(other.get("PixelData", b""))
        for one in (dataset, other):
            for part in (one, one.file_meta):
                part.walk(lambda at, element: at.pop(element.tag) if element.VR == "UI" else None)
            one.pop("PixelData", None)
            del one.file_meta.FileMetaInformationGroupLength  # counts the digits of the UIDs
        assert dataset == other, name
        assert dataset.file_meta == other.file_meta
    assert differ


def test_two_writings_are_equal_byte_by_byte(tmp_path):
    for folder in "ab":
        write(tmp_path / folder, phantom())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
