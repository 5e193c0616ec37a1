"""The report says what was found, in the layout that viewers and validators understand."""

from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest

from inference.findings import Code, Measurement
from sr import report, segmentation
from sr.results import Reference, write_not_analysed, write_results
from tests.sources import MODEL, analysis_of, ct_headers, enhanced_volume, run_for, volume_of

VOLUME = Code(scheme="SCT", value="118565006", meaning="Volume")


def written(analysis=None, **changes):
    """Return segmentation and report of an analysis of a plain axial CT."""
    headers = ct_headers()
    volume = volume_of(headers)
    results = write_results(volume, analysis or analysis_of(volume, **changes), run_for(headers))
    return {result.kind: result.dataset for result in results}


def items(parent, code=None):
    """Return the content items of a container, or those with a concept name."""
    return [
        x for x in parent.get("ContentSequence", ()) if code in (None, x.ConceptNameCodeSequence[0].CodeValue)
    ]  # fmt: skip


def groups(document):
    (measurements,) = items(document, "126010")
    return items(measurements, "125007")


def evaluations(document):
    (container,) = items(document, "C0034375")
    return container


def comments(document):
    return [item.TextValue for item in items(evaluations(document), "121106")]


def answer(document):
    (item,) = items(evaluations(document), "72704001")
    return item.ConceptCodeSequence[0].CodeMeaning


def test_a_positive_report_opens_as_tid_1500_in_highdicom():
    document = hd.sr.Comprehensive3DSR.from_dataset(written()["SR"])
    content = document.content
    assert isinstance(content, hd.sr.MeasurementReport)
    (planar,) = content.get_planar_roi_measurement_groups()
    (volumetric,) = content.get_volumetric_roi_measurement_groups()
    assert planar.finding_type.meaning == volumetric.finding_type.meaning == "Fracture"
    assert planar.finding_sites[0].value.meaning == "C5 vertebra"
    assert planar.tracking_uid == volumetric.tracking_uid


def test_the_box_is_a_closed_polyline_on_the_key_image():
    document = written()["SR"]
    (region,) = items(groups(document)[0], "111030")
    assert (region.ValueType, region.GraphicType) == ("SCOORD", "POLYLINE")
    # Box rows 10..22, columns 12..30, as (column, row) from the outer corner of the first pixel.
    assert list(region.GraphicData) == [12, 10, 30, 10, 30, 22, 12, 22, 12, 10]
    source = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == ct_headers()[4].SOPInstanceUID


def test_the_box_on_a_frame_names_the_frame():
    volume = enhanced_volume(ct_headers(), order=range(11, -1, -1))
    results = write_results(volume, analysis_of(volume), run_for(volume.headers))
    (region,) = items(groups(results[1].dataset)[0], "111030")
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 8  # slice 4 of 12, reversed


def test_the_first_group_has_the_label_and_no_numbers():
    first, second = groups(written()["SR"])
    assert not [item for item in items(first) if item.ValueType == "NUM"]
    assert items(first, "121106")[0].TextValue == "AI: C5 fracture 93%"
    assert items(first, "130400")[0].ConceptCodeSequence[0].CodeMeaning == "Bounded by"
    assert items(first, "72704001")[0].ConceptCodeSequence[0].CodeMeaning == "Present"
    assert not items(second, "121106")


def test_the_second_group_has_volume_and_probability_of_the_segment():
    made = written()
    second = groups(made["SR"])[1]
    values = {
        item.ConceptNameCodeSequence[0].CodeMeaning: (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in items(second)
        if item.ValueType == "NUM"
    }
    voxels = 4 * 12 * 6 + 2 * 6 * 12
    assert values == {"Volume": (pytest.approx(voxels * 2.0 * 0.5 * 0.75 / 1000), "cm3"), "Probability": (93.0, "%")}
    reference = items(second, "121191")[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == made["SEG"].SOPInstanceUID
    assert reference.ReferencedSegmentNumber == 1
    (series,) = items(second, "121232")
    assert ct_headers()[0].SeriesInstanceUID == series.UID


def test_group_group_and_segment_share_one_tracking_uid():
    made = written()
    uids = {items(group, "112040")[0].UID for group in groups(made["SR"])}
    assert uids == {made["SEG"].SegmentSequence[0].TrackingUID}


def test_a_volume_measured_by_the_pipeline_is_not_measured_again():
    analysis = analysis_of(volume_of(ct_headers()))
    measured = replace(analysis.findings[0], measurements=(Measurement(name=VOLUME, value=1.5, unit="cm3"),))
    second = groups(written(replace(analysis, findings=(measured,)))["SR"])[1]
    (volume,) = items(second, "118565006")
    assert volume.MeasuredValueSequence[0].NumericValue == 1.5


def test_the_most_probable_finding_comes_first():
    analysis = analysis_of(volume_of(ct_headers()))
    minor = replace(analysis.findings[0], tracking_id="minor", probability=0.6)
    document = written(replace(analysis, findings=(minor, *analysis.findings)))["SR"]
    assert [items(group, "112039")[0].TextValue for group in groups(document)] == ["fracture-1"] * 2 + ["minor"] * 2


def test_a_finding_without_a_segment_keeps_its_numbers_and_its_tracking_uid():
    made = written(masks=False)
    assert set(made) == {"SR"}
    first, second = groups(made["SR"])
    assert second.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert items(second, "122157")[0].MeasuredValueSequence[0].NumericValue == 93
    assert items(first, "112040")[0].UID == items(second, "112040")[0].UID


def test_a_segmentation_that_does_not_go_out_is_not_referenced():
    headers = ct_headers()
    volume = volume_of(headers)
    (only,) = write_results(volume, analysis_of(volume), run_for(headers), ("SR",))
    assert not any("ReferencedSegmentNumber" in str(item) for group in groups(only.dataset) for item in items(group))
    assert not items(groups(only.dataset)[1], "121191")


def test_a_negative_report_says_absent_and_lists_what_was_looked_at():
    document = written(positive=False)["SR"]
    assert answer(document) == "Absent"
    assert groups(document) == []
    (series,) = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    listed = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    assert listed == {header.SOPInstanceUID for header in ct_headers()}
    assert items(document, "126010")  # viewers open it unasked


def test_a_case_without_a_probability_is_undetermined_and_not_absent():
    document = written(positive=False, case_probability=None)["SR"]
    assert answer(document) == "Undetermined"
    assert items(evaluations(document), "122157")[0].TextValue == "not estimated"


def test_the_evidence_is_the_images_and_the_segmentation_and_nothing_else():
    made = written()
    listed = {
        item.ReferencedSOPInstanceUID: item.ReferencedSOPClassUID
        for study in made["SR"].CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    expected = {header.SOPInstanceUID: header.SOPClassUID for header in ct_headers()}
    assert listed == expected | {made["SEG"].SOPInstanceUID: made["SEG"].SOPClassUID}


def test_limits_notice_and_model_can_be_read_in_the_report():
    text = comments(written(reason="only 12 slices")["SR"])
    assert text[0] == MODEL.notice
    assert "only 12 slices" in text
    assert any("gantry tilt" in line for line in text)
    assert any(MODEL.name in line and MODEL.version in line and MODEL.sha256 in line for line in text)
    assert any("C5 93.0 %" in line for line in text)
    assert any("before calibration 88.0 %, standard deviation 4.0 %" in line for line in text)


def test_slice_scores_are_one_sentence_however_many_slices_there_are():
    scores = tuple(np.linspace(0, 0.93, 12))
    text = [x for x in comments(written(slice_probabilities=scores)["SR"]) if "threshold" in x]
    assert text == ["Images at or above the threshold: 6 of 12; highest 93.0 % on image 12"]


def test_there_is_no_image_library_and_no_body_part():
    document = written()["SR"]
    assert items(document, "111028") == []
    assert "BodyPartExamined" not in document


@pytest.mark.parametrize(
    ("modality", "procedure"),
    [("CT", "CT unspecified body region"), ("MR", "MRI unspecified body region"), ("XC", "Imaging procedure")],
)
def test_the_procedure_is_the_imaging_that_was_analysed(modality, procedure):
    headers = ct_headers(2, patient={"Modality": modality})
    document = write_not_analysed(headers, outcome="failed", reason="x", looked_at=(), run=run_for(headers)).dataset
    assert items(document, "121058")[0].ConceptCodeSequence[0].CodeMeaning == procedure


def test_the_four_names_of_the_algorithm_are_equal_everywhere():
    """IHE AI Results 6.5.3.1: contributing equipment, observer, algorithm of the groups, algorithm of the segment."""
    made = written()
    expected = (MODEL.manufacturer, MODEL.name, MODEL.version, "2.25.123456789")
    for dataset in made.values():
        item = dataset.ContributingEquipmentSequence[1]
        assert (item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions, item.DeviceUID) == expected
    text = {x.ConceptNameCodeSequence[0].CodeValue: x.get("TextValue") or x.get("UID") for x in items(made["SR"])}
    assert (text["121014"], text["121015"], text["121012"]) == (expected[0], expected[1], expected[3])
    for group in groups(made["SR"]):
        named = [items(group, code)[0].TextValue for code in ("122405", "111001", "111003")]
        assert tuple(named) == expected[:3]
    segment = made["SEG"].SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (segment.AlgorithmSource, segment.AlgorithmName, segment.AlgorithmVersion) == expected[:3]


@pytest.mark.parametrize(
    ("outcome", "status", "sentence"),
    [("not_applicable", "Not Attempted", "Not analysed: no spine"), ("failed", "Failed", "Analysis failed: no spine")],
)
def test_a_study_without_an_answer_gets_the_reason_in_code_and_words(outcome, status, sentence):
    headers = ct_headers(3)
    run = run_for(headers, pipeline="", weights_sha256="")
    result = write_not_analysed(headers, outcome=outcome, reason="no spine", looked_at=["head, 3 images"], run=run)
    document = result.dataset
    assert items(evaluations(document), "111065")[0].ConceptCodeSequence[0].CodeMeaning == status
    assert items(evaluations(document), "111017")[0].ConceptCodeSequence[0].CodeValue == "111245"
    assert comments(document) == [sentence, "Looked at: head, 3 images"]
    assert groups(document) == []
    assert document.ManufacturerModelName == "dicomnode"


def test_objects_that_are_no_images_can_be_reported_on_too():
    headers = ct_headers(1, patient={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "Modality": "DOC"})
    result = write_not_analysed(
        headers, outcome="not_applicable", reason="no images", looked_at=(), run=run_for(headers)
    )
    evidence = result.dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"


def test_a_newer_report_names_the_one_it_replaces():
    headers = ct_headers()
    volume = volume_of(headers)
    old = Reference(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34", sop_instance_uid="2.25.1", series_uid="2.25.2",
        study_uid=headers[0].StudyInstanceUID,
    )  # fmt: skip
    results = write_results(volume, analysis_of(volume), run_for(headers, predecessors=(old,)))
    (study,) = results[1].dataset.PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.1"
    assert "PredecessorDocumentsSequence" not in written()["SR"]


def test_the_report_is_complete_but_preliminary_and_unverified():
    document = written()["SR"]
    assert (document.CompletionFlag, document.PreliminaryFlag) == ("COMPLETE", "PRELIMINARY")
    assert document.VerificationFlag == "UNVERIFIED"
    assert "Research use only" in document.SeriesDescription


def test_a_finding_without_a_level_is_called_by_its_site():
    finding = replace(analysis_of(volume_of(ct_headers())).findings[0], level=None)
    assert report.label(finding) == "AI: C5 vertebra fracture 93%"


def test_nothing_is_tracked_by_the_same_uid_in_another_run():
    headers = ct_headers()
    other = run_for(headers, configuration_sha256="other")
    assert segmentation.tracking_uid(run_for(headers), "f") != segmentation.tracking_uid(other, "f")
