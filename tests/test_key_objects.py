"""Key object selections name what to look at, and what no longer to."""

from dataclasses import replace

from sr import key_objects
from sr.results import Reference, write_results
from tests.sources import analysis_of, ct_headers, enhanced_volume, run_for, volume_of

OLD = tuple(
    Reference(sop_class_uid=f"1.2.840.10008.5.1.4.1.1.{cls}", sop_instance_uid=f"2.25.{n}", series_uid=f"2.25.1{n}",
              study_uid=ct_headers(1)[0].StudyInstanceUID)
    for n, cls in enumerate(("66.4", "88.34", "7"), start=1)
)  # fmt: skip


def written(kinds, *, volume=None, analysis=None, **run_changes):
    volume = volume or volume_of(ct_headers())
    analysis = analysis or analysis_of(volume)
    made = write_results(volume, analysis, run_for(volume.headers, **run_changes), kinds)
    return {result.kind: result.dataset for result in made}


def selected(document):
    items = [x.ReferencedSOPSequence[0] for x in document.ContentSequence if "ReferencedSOPSequence" in x]
    return [item.ReferencedSOPInstanceUID for item in items]


def test_key_images_and_the_results_that_go_out_with_them_are_selected():
    made = written(("SEG", "SR", "SC", "KOS"))
    expected = [ct_headers()[4].SOPInstanceUID, made["SEG"].SOPInstanceUID, made["SR"].SOPInstanceUID]
    assert selected(made["KOS"]) == expected
    assert made["KOS"].ConceptNameCodeSequence[0].CodeValue == "113000"


def test_results_that_do_not_go_out_are_not_selected():
    assert selected(written(("KOS",))["KOS"]) == [ct_headers()[4].SOPInstanceUID]


def test_the_selection_comes_last():
    assert list(written(("KOS", "SR", "SEG"))) == ["SEG", "SR", "KOS"]


def test_the_evidence_is_what_is_selected():
    made = written(("SEG", "SR", "KOS"))
    (study,) = made["KOS"].CurrentRequestedProcedureEvidenceSequence
    listed = [
        x.ReferencedSOPInstanceUID for series in study.ReferencedSeriesSequence for x in series.ReferencedSOPSequence
    ]
    assert sorted(listed) == sorted(selected(made["KOS"]))


def test_two_findings_on_one_image_select_it_once():
    volume = volume_of(ct_headers())
    analysis = analysis_of(volume)
    second = replace(analysis.findings[0], tracking_id="fracture-2")
    document = written(("KOS",), analysis=replace(analysis, findings=(*analysis.findings, second)))["KOS"]
    assert selected(document) == [ct_headers()[4].SOPInstanceUID]


def test_a_frame_of_a_file_is_selected_by_number():
    volume = enhanced_volume(ct_headers(), order=range(11, -1, -1))
    document = written(("KOS",), volume=volume)["KOS"]
    (item,) = [x.ReferencedSOPSequence[0] for x in document.ContentSequence if "ReferencedSOPSequence" in x]
    assert (item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) == (volume.headers[0].SOPInstanceUID, 8)


def test_a_negative_answer_selects_nothing():
    volume = volume_of(ct_headers())
    assert key_objects.write(volume, analysis_of(volume, positive=False), run_for(volume.headers)) is None


def test_the_rejection_names_every_object_of_the_earlier_answer():
    document = written(("SR", "REJECT"), predecessors=OLD)["REJECT"]
    assert selected(document) == ["2.25.1", "2.25.2", "2.25.3"]
    code = document.ConceptNameCodeSequence[0]
    assert (code.CodingSchemeDesignator, code.CodeValue) == ("DCM", "113001")
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    assert {series.SeriesInstanceUID for series in study.ReferencedSeriesSequence} == {"2.25.11", "2.25.12", "2.25.13"}


def test_a_first_answer_rejects_nothing():
    assert list(written(("SR", "REJECT"))) == ["SR"]


def test_a_report_names_only_reports_as_its_predecessors():
    document = written(("SR",), predecessors=OLD)["SR"]
    (study,) = document.PredecessorDocumentsSequence
    named = [
        x.ReferencedSOPInstanceUID for series in study.ReferencedSeriesSequence for x in series.ReferencedSOPSequence
    ]
    assert named == ["2.25.2"]
