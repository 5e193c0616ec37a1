"""An MR phantom on disk is a study as a scanner writes it: a localizer and six series, with the truth beside it."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
import SimpleITK

from inference.phantom.headers import uid
from inference.phantom.mr import dicom
from inference.phantom.mr.boxes import boxes, structures
from inference.phantom.mr.rendering import RenderedMR, affine, render
from inference.phantom.mr.sampling import sample_spec
from inference.phantom.mr.series import all_series
from inference.phantom.mr.specification import REGIONS
from inference.phantom.mr.truth import truth, write_truth
from inference.phantom.mr.vendors import KINDS, VENDORS
from inference.phantom.studies import write_studies
from inference.volume import read_volume
from tests.integration.validators import dciodvfy
from tests.phantoms_mr import plain, rendered, with_disc
from tests.test_phantom_mr import PUSHED

#: Types 1 and 2 of the MR Image IOD (PS3.3 A.4), as far as they apply.
REQUIRED = """
PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber
ReferringPhysicianName Modality SeriesInstanceUID SeriesNumber PatientPosition FrameOfReferenceUID
PositionReferenceIndicator Manufacturer InstanceNumber ImageType AcquisitionNumber ScanningSequence SequenceVariant
ScanOptions MRAcquisitionType RepetitionTime EchoTime EchoTrainLength SamplesPerPixel PhotometricInterpretation Rows
Columns BitsAllocated BitsStored HighBit PixelRepresentation ImagePositionPatient ImageOrientationPatient PixelSpacing
SliceThickness MagneticFieldStrength
"""
#: What dicom3tools says of our files that the standard or the manufacturers say otherwise.
ALLOWED = (
    "(0008,001c)",  # Synthetic Data is younger than the release
    "Unrecognized defined term",  # Image Type as manufacturers write it
    "(0028,105",  # one of them writes a rescale slope into MR images too
)

by_vendor = pytest.mark.parametrize("vendor", VENDORS)


@cache
def phantom() -> RenderedMR:
    """Return small images of a herniated disc."""
    return render(with_disc(plain("lumbar"), "L4/L5", herniation=PUSHED)[0])


def of_vendor(vendor: str, *, backwards: bool = False) -> RenderedMR:
    one = phantom()
    return replace(one, spec=replace(one.spec, scan=replace(one.spec.scan, vendor=vendor, reversed=backwards)))


def paths(folder: Path, one: RenderedMR, kind: str) -> list[Path]:
    first, step = VENDORS[one.spec.scan.vendor].numbers
    return sorted(folder.glob(f"SE{first + step * KINDS.index(kind):04d}*.dcm"))


@by_vendor
def test_a_study_is_a_localizer_and_six_series_of_one_patient(vendor, tmp_path):
    one = of_vendor(vendor)
    dicom.write_dicom(one, tmp_path)
    files = [pydicom.dcmread(path) for path in sorted(tmp_path.iterdir())]
    assert [len(paths(tmp_path, one, kind)) for kind in KINDS] == [4, *[3] * 6]
    assert len({file.SeriesInstanceUID for file in files}) == 7
    assert len({file.SOPInstanceUID for file in files}) == len(files) == 22
    assert len({(file.StudyInstanceUID, file.FrameOfReferenceUID, file.PatientID) for file in files}) == 1
    for file in files:
        assert [keyword for keyword in REQUIRED.split() if keyword not in file] == []
        assert (file.SyntheticData, file.QualityControlImage) == ("YES", "YES")
        assert file.Manufacturer.startswith("Synthetic phantom (")
        assert str(file.PatientName).startswith("PHANTOM^LUMBAR MR")


@by_vendor
def test_dciodvfy_accepts_every_series(vendor, tmp_path):
    dicom.write_dicom(of_vendor(vendor), tmp_path)
    files = sorted(tmp_path.glob("*IM0001.dcm"))
    lines = {path.name: [line for line in dciodvfy(path) if not any(a in line for a in ALLOWED)] for path in files}
    assert len(lines) == 7
    assert not any(lines.values()), lines


@by_vendor
@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_volume_gate_reads_the_values_back_at_their_place(vendor, kind, tmp_path):
    one = of_vendor(vendor)
    dicom.write_dicom(one, tmp_path)
    read = read_volume(paths(tmp_path, one, kind))
    [image] = [shown for shown in one.images if shown.acquisition.kind == kind]
    slope = VENDORS[vendor].storage.slope
    mine, theirs = affine(one.spec, image.acquisition.plane), read.affine
    index = np.array([1, 40, 70])
    place = mine[:3, :3] @ index + mine[:3, 3]
    other = np.rint(np.linalg.solve(theirs[:3, :3], place - theirs[:3, 3])).astype(int)
    assert theirs[:3, :3] @ other + theirs[:3, 3] == pytest.approx(place, abs=0.01)
    assert read.array[tuple(other)] == pytest.approx(image.values[tuple(index)] * slope, rel=1e-5)
    assert sorted(read.array.ravel()) == pytest.approx(sorted(image.values.ravel() * slope), rel=1e-5)


@pytest.mark.parametrize("region", REGIONS)
def test_headers_say_what_was_simulated(region):
    one = rendered(region)
    for series in all_series(one):
        file = dicom.image(one.spec, series, 1)
        assert float(file.MagneticFieldStrength) == one.spec.scan.field
        if series.kind == "localizer":
            assert file.ScanningSequence == "GR"
            continue
        [acquisition] = [a for a in one.spec.scan.acquisitions if a.kind == series.kind]
        assert (float(file.RepetitionTime), float(file.EchoTime)) == (acquisition.tr, acquisition.te)
        assert file.get("InversionTime") == acquisition.ti
        assert ("IR" in file.ScanningSequence) == (acquisition.sequence == "STIR")
        assert file.InPlanePhaseEncodingDirection == acquisition.phase
        steps = round(acquisition.acquired[0] * file.Rows)
        assert file.NumberOfPhaseEncodingSteps == steps
        assert steps in list(file.AcquisitionMatrix)[2:]


@pytest.mark.parametrize("backwards", [False, True])
def test_instance_numbers_run_either_way(backwards, tmp_path):
    one = of_vendor("ge", backwards=backwards)
    dicom.write_dicom(one, tmp_path)
    for kind, axis, sign in (("sagittal T2", 0, 1), ("axial T2", 2, -1)):
        files = [pydicom.dcmread(path) for path in paths(tmp_path, one, kind)]
        steps = np.diff([float(file.ImagePositionPatient[axis]) for file in files])
        assert (np.sign(steps) == (-sign if backwards else sign)).all()
        assert [file.InstanceNumber for file in files] == [1, 2, 3]


def test_the_slope_of_one_manufacturer_is_also_in_its_private_group():
    one = of_vendor("philips")
    file = dicom.image(one.spec, list(all_series(one))[1], 1)
    assert float(file.RescaleSlope) == pytest.approx(1 / file[0x2005, 0x100E].value)
    assert (file.BitsStored, file.PixelRepresentation) == (12, 0)


def test_two_writings_are_equal_byte_by_byte(tmp_path):
    for folder in "ab":
        dicom.write_dicom(phantom(), tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_uids_differ_between_labels_and_regions():
    specs = [sample_spec(4, region, positive=label) for region in REGIONS for label in (True, False)]
    assert len({uid(spec, "study") for spec in specs}) == 4


def test_the_truth_lies_beside_the_study(tmp_path):
    one = phantom()
    write_truth(one, tmp_path)
    study = uid(one.spec, "study")
    content = json.loads((tmp_path / f"{study}.json").read_text())
    assert content == json.loads(json.dumps(truth(one)))
    assert content["group"] == "disc"
    assert content["discs"]["L4/L5"]["label"] == "herniation"
    assert content["discs"]["L4/L5"]["herniation_mm"] == pytest.approx(5.0, abs=0.6)
    [image] = [shown for shown in one.images if shown.acquisition.kind == "sagittal T2"]
    assert len(content["series"]["sagittal T2"]["boxes"]) == len(boxes(one, image))
    labels = SimpleITK.ReadImage(tmp_path / f"{study}.sagittal-T2.nii.gz")
    assert np.array_equal(SimpleITK.GetArrayFromImage(labels), structures(one, image))
    place = affine(one.spec, "sagittal")
    assert labels.TransformIndexToPhysicalPoint((70, 40, 1)) == pytest.approx(
        tuple(place[:3, :3] @ (1, 40, 70) + place[:3, 3]), abs=1e-3
    )


def test_boxes_are_also_pascal_voc_files_named_by_their_image(tmp_path):
    one = phantom()
    write_truth(one, tmp_path)
    [image] = [shown for shown in one.images if shown.acquisition.kind == "sagittal T2"]
    middle = [box for box in boxes(one, image) if box.slice == 1]
    name = dicom.sop_uid(one.spec, "sagittal T2", 1)
    root = ElementTree.parse(tmp_path / f"{uid(one.spec, 'study')}.voc" / f"{name}.xml").getroot()
    assert [entry.findtext("name") for entry in root.iter("object")] == [box.label for box in middle]
    assert [entry.findtext("pose") for entry in root.iter("object")] == [box.level for box in middle]
    first = root.find("object/bndbox")
    assert int(first.findtext("xmin")) == round(middle[0].left)
    assert int(first.findtext("ymax")) == round(middle[0].bottom)


def test_the_command_writes_studies_of_each_kind(tmp_path):
    [folder] = write_studies(
        tmp_path, kind="cervical-mr", count=1, seed=950_003, profile="easy", truth=True, positive=True
    )
    spec = sample_spec(950_003, "cervical", "easy", positive=True)
    assert folder.name == uid(spec, "study")
    count = 4 + 3 * spec.scan.sagittal.shape[0] + 3 * spec.scan.axial.shape[0]
    assert len(list(folder.iterdir())) == count
    assert json.loads((tmp_path / "truth" / f"{folder.name}.json").read_text())["group"] in ("injured", "disc")
