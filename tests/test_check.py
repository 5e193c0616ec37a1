"""Nothing leaves that would be wrong in the patient's record."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from sr.check import InvalidResult, check
from sr.results import write_results
from tests.sources import analysis_of, ct_headers, run_for, volume_of

HEADERS = ct_headers()
VOLUME = volume_of(HEADERS)
ANALYSIS = analysis_of(VOLUME)
MADE = {result.kind: result.dataset for result in write_results(VOLUME, ANALYSIS, run_for(HEADERS))}
IMAGES = {header.SOPInstanceUID: header for header in HEADERS}
SOURCES = IMAGES | {MADE["SEG"].SOPInstanceUID: MADE["SEG"]}


def complaint(kind="SR", *, spoil=lambda dataset: None, sources=SOURCES, volume=VOLUME, masks=ANALYSIS.masks):
    """Return what is wrong with an object after it was spoiled, or nothing."""
    dataset = deepcopy(MADE[kind])
    spoil(dataset)
    try:
        check(dataset, sources=sources, volume=volume, masks=masks)
    except InvalidResult as error:
        assert str(error).startswith(f"{dataset.get('Modality', 'object')} ")
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_sound_objects_pass(kind):
    assert complaint(kind) == ""


def test_a_refused_object_comes_with_the_error_so_that_it_can_be_kept():
    dataset = deepcopy(MADE["SR"])
    del dataset.CompletionFlag
    with pytest.raises(InvalidResult) as caught:
        check(dataset, sources=SOURCES, volume=VOLUME, masks=())
    assert caught.value.dataset.SOPInstanceUID == dataset.SOPInstanceUID


@pytest.mark.parametrize("keyword", ["CompletionFlag", "ContentDate", "SeriesInstanceUID", "PatientName"])
def test_a_missing_attribute_is_named(keyword):
    assert keyword in complaint(spoil=lambda dataset: dataset.pop(keyword))


def test_a_missing_modality_is_named():
    assert "Modality" in complaint(spoil=lambda dataset: dataset.pop("Modality"))


def test_a_value_of_another_type_is_refused():
    def spoil(dataset):
        dataset["SeriesNumber"]._value = object()

    assert "SeriesNumber" in complaint(spoil=spoil)


def test_a_value_that_cannot_be_encoded_is_refused():
    assert "cannot be encoded" in complaint(spoil=lambda dataset: setattr(dataset, "Rows", 70_000))


def test_a_value_too_long_for_its_type_is_named():
    message = complaint(spoil=lambda dataset: setattr(dataset, "SeriesDescription", "x" * 65))
    assert "SeriesDescription has a value" in message


@pytest.mark.parametrize(
    ("keyword", "value"), [("PatientID", "P-2"), ("PatientName", "Roe^Jane"), ("StudyInstanceUID", "1.2.3")]
)
def test_another_patient_or_study_is_refused(keyword, value):
    assert f"{keyword} differs" in complaint(spoil=lambda dataset: setattr(dataset, keyword, value))


def test_an_image_that_was_not_received_is_refused():
    fewer = {uid: header for uid, header in SOURCES.items() if uid != HEADERS[4].SOPInstanceUID}
    assert f"references {HEADERS[4].SOPInstanceUID}" in complaint(sources=fewer)


def test_a_segmentation_that_does_not_go_out_is_refused():
    assert "was not received" in complaint(sources=IMAGES)


def test_a_reference_with_the_wrong_class_is_refused():
    wrong = deepcopy(HEADERS[4])
    wrong.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    assert "another SOP class" in complaint(sources=SOURCES | {wrong.SOPInstanceUID: wrong})


@pytest.mark.parametrize("keyword", ["ReferencedFrameNumber", "ReferencedSegmentNumber"])
def test_a_frame_or_segment_that_does_not_exist_is_refused(keyword):
    def spoil(dataset):
        (reference,) = [
            item.ReferencedSOPSequence[0]
            for item in dataset.ContentSequence[-2].ContentSequence[1].ContentSequence
            if item.ValueType == "IMAGE"
        ]
        setattr(reference, keyword, 99)

    assert f"{keyword} 99" in complaint(spoil=spoil)


def test_a_code_nobody_defines_is_refused():
    def spoil(dataset):
        dataset.ContentSequence[-1].ContentSequence[0].ConceptNameCodeSequence[0].CodeValue = "4711"

    assert "SCT 4711 (Fracture)" in complaint(spoil=spoil)


def test_local_codes_of_the_hospital_are_none_of_our_business():
    procedure = deepcopy(MADE["SR"].ConceptNameCodeSequence[0])
    procedure.CodeValue, procedure.CodingSchemeDesignator = "CTHWS", "99HOSPITAL"
    assert complaint(spoil=lambda dataset: setattr(dataset, "ProcedureCodeSequence", [procedure])) == ""


def test_another_template_is_refused():
    def spoil(dataset):
        dataset.ContentTemplateSequence[0].TemplateIdentifier = "2000"

    assert "TID 1500" in complaint(spoil=spoil)


def test_a_box_that_leaves_its_image_is_refused():
    finding = replace(ANALYSIS.findings[0], box=((3, 10, 12), (7, 22, 49)))  # of 48 columns
    with pytest.raises(InvalidResult, match="region outside image"):
        write_results(VOLUME, replace(ANALYSIS, findings=(finding,)), run_for(HEADERS))


def test_a_segment_on_the_neighbouring_slice_is_refused():
    def spoil(dataset):
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            position = groups.PlanePositionSequence[0].ImagePositionPatient
            position[2] = float(position[2]) + 2.0

    assert "2.0 mm off its mask" in complaint("SEG", spoil=spoil)


def test_a_mirrored_segment_is_refused():
    mirrored = replace(ANALYSIS.masks[0], array=np.flip(ANALYSIS.masks[0].array, axis=2))
    assert "off its mask" in complaint("SEG", masks=(mirrored,))


def test_a_segment_with_other_voxels_is_refused():
    array = ANALYSIS.masks[0].array.copy()
    array[3, 10, 12] = False
    assert "instead of" in complaint("SEG", masks=(replace(ANALYSIS.masks[0], array=array),))


def test_a_missing_segment_is_refused():
    assert "1 segments for 2 masks" in complaint("SEG", masks=ANALYSIS.masks * 2)


def test_headers_in_another_order_than_the_slices_are_refused():
    upside_down = replace(VOLUME, headers=VOLUME.headers[::-1])
    assert "away from the volume" in complaint("SEG", volume=upside_down)
