"""What a result says about patient, study, time and equipment."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest

from sr import headers
from sr.results import Kind, write_not_analysed, write_results
from tests.sources import (
    MODEL,
    SAGITTAL,
    analysis_of,
    as_file,
    ct_headers,
    enhanced_volume,
    run_for,
    volume_of,
)

NAMES = {
    "latin1": ("ISO_IR 100", "Müller^Jürgen", "Schädel"),
    "utf8": ("ISO_IR 192", "Dvořák^Jiří=山田^太郎", "Páteř 脊椎"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "頸椎"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "경추"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东", "颈椎"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг", "Шея"),
    "none": (None, "Doe^Jane", "neck"),
}


def received(dataset):
    """Return a header as it arrives: encoded, with nothing decoded yet."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, as_file(dataset), enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def raw(dataset, keyword):
    """Return the bytes of an element as stored."""
    return received(dataset).get_item(keyword).value


def report(sources, reason="no spine"):
    return write_not_analysed(sources, outcome="failed", reason=reason, looked_at=(), run=run_for(sources)).dataset


@pytest.mark.parametrize("charset", NAMES)
def test_names_in_any_script_keep_their_bytes(charset):
    encoding, name, description = NAMES[charset]
    patient = {"SpecificCharacterSet": encoding, "PatientName": name, "StudyDescription": description}
    sources = [received(header) for header in ct_headers(3, patient=patient)]
    before = {x: raw(sources[0], x) for x in ("PatientName", "StudyDescription", "PatientID")}
    result = report(sources)
    for keyword, expected in before.items():
        assert raw(result, keyword) == expected, keyword
    assert result.get("SpecificCharacterSet") == sources[0].get("SpecificCharacterSet")


def test_images_keep_the_name_as_well_as_reports():
    patient = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": NAMES["japanese"][1]}
    sources = [received(header) for header in ct_headers(patient=patient)]
    volume = volume_of(sources)
    for result in write_results(volume, analysis_of(volume), run_for(sources), list(Kind)):
        assert raw(result.dataset, "PatientName") == raw(ct_headers(1, patient=patient)[0], "PatientName")


def test_no_object_of_any_kind_invents_what_the_source_lacks():
    sources = ct_headers(patient=dict.fromkeys(headers.TYPE_2))
    volume = volume_of(sources)
    analysis = replace(analysis_of(volume), heat_map=np.zeros(volume.array.shape, np.float32))
    made = write_results(volume, analysis, run_for(sources), list(Kind))
    assert {result.kind for result in made} == set(Kind) - {Kind.REJECT}
    for result in made:
        assert all(keyword in result.dataset and not result.dataset.get(keyword) for keyword in headers.TYPE_2)


def test_missing_identifying_attributes_stay_empty_and_are_not_invented():
    absent = dict.fromkeys(headers.TYPE_2)
    sources = ct_headers(3, patient=absent)
    result = report(sources)
    assert all(keyword in result and not result.get(keyword) for keyword in headers.TYPE_2)


def test_a_sex_the_standard_does_not_know_is_passed_on():
    assert report(ct_headers(2, patient={"PatientSex": "U"})).PatientSex == "U"


def test_a_malformed_optional_attribute_is_left_out():
    sources = ct_headers(2)
    sources[0].add(pydicom.DataElement("PatientAge", "AS", "42", validation_mode=pydicom.config.IGNORE))
    sources[0].PatientWeight = "70.5"
    result = report(sources)
    assert "PatientAge" not in result
    assert result.PatientWeight == 70.5


def test_study_attributes_are_copied():
    result = report(ct_headers(2))
    assert (result.StudyDescription, result.AccessionNumber, result.StudyID) == ("CT cervical spine", "A4711", "S1")
    assert (result.StudyDate, result.StudyTime) == ("20260105", "101500")


def test_attributes_of_the_source_series_are_not_copied():
    result = report(ct_headers(2, patient={"BodyPartExamined": "CSPINE", "ProtocolName": "neck"}))
    assert "BodyPartExamined" not in result
    assert "ProtocolName" not in result
    assert result.SeriesInstanceUID != ct_headers(1)[0].SeriesInstanceUID


@pytest.mark.parametrize("charset", ["ISO_IR 100", None])
def test_our_own_text_never_breaks_the_character_set_of_the_patient(charset):
    result = report(ct_headers(2, patient={"SpecificCharacterSet": charset}), reason="脊椎 not at 5°")
    texts = [item.get("TextValue", "") for item in result.ContentSequence[-1].ContentSequence]
    expected = "Analysis failed: ?? not at 5" + ("°" if charset else "?")
    assert expected in texts


@pytest.mark.parametrize(
    ("charset", "text"), [(["", "ISO 2022 IR 87"], "頸椎"), ("ISO_IR 144", "Шея"), ("ISO_IR 192", "頸椎 Шея")]
)
def test_our_own_text_is_kept_where_the_character_set_has_it(charset, text):
    result = received(report(ct_headers(2, patient={"SpecificCharacterSet": charset}), reason=text))
    assert any(text in item.get("TextValue", "") for item in result.ContentSequence[-1].ContentSequence)


def test_a_long_notice_is_cut_between_words():
    text = headers.short("AI report. Research use only. Trained on generated phantoms alone, not on patients.")
    assert text == "AI report. Research use only. Trained on generated phantoms..."


def test_times_are_written_in_the_time_zone_of_the_source():
    sources = ct_headers(2, patient={"TimezoneOffsetFromUTC": "-0330"})
    moment = headers.local_time(run_for(sources, created=datetime(2026, 1, 5, 1, 15, 30, 999, UTC)), sources[0])
    assert (moment.date().isoformat(), moment.time().isoformat()) == ("2026-01-04", "21:45:30")
    result = report(sources)
    assert f"{result.ContentDate} {result.ContentTime}" == "20260105 070000"
    assert result.InstanceCreationTime == result.SeriesTime == result.ContentTime


def test_the_analysis_and_the_scanner_are_both_contributing_equipment():
    sources = ct_headers()
    volume = volume_of(sources)
    for result in write_results(volume, analysis_of(volume), run_for(sources), ("SEG", "SR", "SC")):
        purposes = [x.PurposeOfReferenceCodeSequence[0].CodeValue for x in result.dataset.ContributingEquipmentSequence]
        assert purposes[0] == "109101"  # acquisition
        ours = result.dataset.ContributingEquipmentSequence[1]
        assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert (ours.Manufacturer, ours.ManufacturerModelName) == (MODEL.manufacturer, MODEL.name)
        assert (ours.SoftwareVersions, ours.DeviceUID) == (MODEL.version, "2.25.123456789")
        assert "c-spine-fracture" in ours.ContributionDescription


def test_highdicom_is_never_shown_the_patient():
    shown = headers.stand_in(ct_headers(1)[0])
    assert not any(shown.get(keyword) for keyword in headers.TYPE_2)
    assert "Doe" not in str(shown)


def test_geometry_of_a_frame_is_found_in_its_functional_groups():
    plain = ct_headers(5, orientation=SAGITTAL)
    volume = enhanced_volume(plain, order=(4, 2, 0, 1, 3))
    for index, header in enumerate(plain):
        shown = headers.image_stand_in(volume, index)
        assert shown.ImagePositionPatient == header.ImagePositionPatient
        assert shown.ImageOrientationPatient == header.ImageOrientationPatient
        assert shown.PixelSpacing == header.PixelSpacing
        assert shown.SliceThickness == header.SliceThickness


def test_a_missing_slice_thickness_is_taken_from_the_slice_spacing():
    volume = volume_of(ct_headers(3, patient={"SliceThickness": None}))
    assert np.isclose(headers.image_stand_in(volume, 0).SliceThickness, 2.0)
