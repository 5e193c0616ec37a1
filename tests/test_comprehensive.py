"""The same report for archives that know only the older class."""

from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from sr.results import Reference, with_fallback, write_not_analysed, write_results
from tests.sources import analysis_of, ct_headers, run_for, volume_of


def results(kinds=("SEG", "SR")):
    volume = volume_of(ct_headers())
    return write_results(volume, analysis_of(volume), run_for(volume.headers), kinds)


def test_a_report_is_followed_by_its_older_twin():
    segments, report, older = with_fallback(results())
    assert (segments.kind, report.kind, older.kind) == ("SEG", "SR", "CSR")
    assert report.dataset.SOPClassUID == Comprehensive3DSRStorage
    assert older.dataset.SOPClassUID == older.dataset.file_meta.MediaStorageSOPClassUID == ComprehensiveSRStorage


def test_content_and_patient_are_the_same_and_identifiers_are_not():
    _, report, older = (result.dataset for result in with_fallback(results()))
    assert older.ContentSequence == report.ContentSequence
    assert older.PatientName == report.PatientName
    assert older.SOPInstanceUID == older.file_meta.MediaStorageSOPInstanceUID != report.SOPInstanceUID
    assert older.SeriesInstanceUID != report.SeriesInstanceUID


def test_the_older_class_has_no_coordinates_in_space():
    older = with_fallback(results())[-1].dataset
    assert "SCOORD3D" not in str(older)


def test_it_is_the_same_object_whenever_it_is_made():
    (asked_for,) = (x for x in results(("SEG", "CSR")) if x.kind == "CSR")
    assert asked_for.dataset == with_fallback(results(("SEG", "SR")))[-1].dataset


def test_it_is_not_made_twice():
    assert [x.kind for x in with_fallback(results(("SEG", "SR", "CSR")))] == ["SEG", "SR", "CSR"]


def test_a_report_of_no_answer_has_a_twin_too():
    headers = ct_headers(2)
    report = write_not_analysed(headers, outcome="failed", reason="x", looked_at=(), run=run_for(headers))
    assert [x.kind for x in with_fallback([report])] == ["SR", "CSR"]


def test_its_predecessor_is_the_older_twin_of_the_earlier_report():
    volume = volume_of(ct_headers())
    first = with_fallback(results())
    old = Reference(
        sop_class_uid=first[1].dataset.SOPClassUID,
        sop_instance_uid=first[1].dataset.SOPInstanceUID,
        series_uid=first[1].dataset.SeriesInstanceUID,
        study_uid=first[1].dataset.StudyInstanceUID,
    )
    run = run_for(volume.headers, predecessors=(old,), code_version="0.2.0")
    newer = with_fallback(write_results(volume, analysis_of(volume), run, ("SEG", "SR")))[-1].dataset
    (series,) = newer.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    (named,) = series.ReferencedSOPSequence
    twin = first[-1].dataset
    assert series.SeriesInstanceUID == twin.SeriesInstanceUID
    assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == (twin.SOPClassUID, twin.SOPInstanceUID)
