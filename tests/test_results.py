"""One door: finished, checked objects whose identifiers follow from what made them."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import pydicom
import pytest

from sr.results import InvalidResult, Kind, derived_uid, save, write_not_analysed, write_results
from tests.sources import analysis_of, ct_headers, run_for, volume_of


def results(kinds=("SEG", "SR"), **run_changes):
    headers = ct_headers()
    volume = volume_of(headers)
    return write_results(volume, analysis_of(volume), run_for(headers, **run_changes), kinds)


def encoded(result):
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, result.dataset, enforce_file_format=True)
    return buffer.getvalue()


def test_a_repeated_run_is_identical_to_the_byte():
    kinds = ("SEG", "SR", "SC")
    assert [encoded(x) for x in results(kinds)] == [encoded(x) for x in results(kinds)]


@pytest.mark.parametrize(
    "change",
    [
        {"pipeline": "other"},
        {"weights_sha256": "other"},
        {"configuration_sha256": "other"},
        {"code_version": "0.2.0"},
        {"source_uids": ("1.2.3",)},
    ],
    ids=lambda x: next(iter(x)),
)
def test_a_changed_run_has_new_uids(change):
    before, after = results(), results(**change)
    for old, new in zip(before, after, strict=True):
        assert old.dataset.SOPInstanceUID != new.dataset.SOPInstanceUID
        assert old.dataset.SeriesInstanceUID != new.dataset.SeriesInstanceUID


def test_the_clock_and_the_order_of_arrival_do_not_change_a_uid():
    headers = ct_headers()
    run = run_for(headers)
    later = replace(run, created=datetime(2027, 1, 1, tzinfo=UTC), source_uids=tuple(reversed(run.source_uids)))
    assert derived_uid(run, Kind.SR) == derived_uid(later, Kind.SR)


def test_derived_uids_are_legal_and_differ_by_kind_and_part():
    run = run_for(ct_headers())
    uids = [derived_uid(run, kind, part) for kind in Kind for part in ("", "series", "1")]
    assert len(set(uids)) == len(uids)
    assert all(pydicom.uid.UID(uid).is_valid and uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


def test_neighbouring_fields_of_a_run_cannot_be_confused():
    run = run_for(ct_headers(), pipeline="ab", weights_sha256="c")
    assert derived_uid(run, "SR") != derived_uid(replace(run, pipeline="a", weights_sha256="bc"), "SR")


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        run_for(ct_headers(), created=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


def test_what_is_referenced_is_sent_first():
    assert [result.kind for result in results(("SC", "SR", "SEG"))] == ["SEG", "SR", "SC"]


def test_only_what_was_asked_for_is_made():
    assert [result.kind for result in results(("SR",))] == ["SR"]
    assert [result.kind for result in results(("SEG",))] == ["SEG"]
    with pytest.raises(ValueError, match="RTSTRUCT"):
        results(("RTSTRUCT",))


def test_every_object_has_a_series_of_its_own_in_the_study_of_the_images():
    made = results(("SEG", "SR", "SC"))
    assert len({x.dataset.SeriesInstanceUID for x in made}) == 3
    assert {x.dataset.StudyInstanceUID for x in made} == {ct_headers()[0].StudyInstanceUID}


def test_an_analysis_that_does_not_apply_cannot_be_reported_as_absent():
    headers = ct_headers()
    volume = volume_of(headers)
    analysis = analysis_of(volume, positive=False, state="not_applicable", case_probability=None)
    with pytest.raises(InvalidResult, match="not_applicable"):
        write_results(volume, analysis, run_for(headers))


def test_what_the_standard_refuses_is_reported_with_the_name_of_the_object():
    headers = ct_headers()
    volume = volume_of(headers)
    analysis = analysis_of(volume)
    long_name = replace(analysis, model=replace(analysis.model, name="x" * 65))
    with pytest.raises(InvalidResult, match=r"^SEG: .*64"):
        write_results(volume, long_name, run_for(headers))


def test_a_key_slice_outside_the_volume_is_refused():
    headers = ct_headers()
    volume = volume_of(headers)
    analysis = analysis_of(volume)
    wrong = replace(analysis, findings=(replace(analysis.findings[0], key_slice=99),))
    with pytest.raises(InvalidResult, match="^SR: "):
        write_results(volume, wrong, run_for(headers))


def test_failed_and_not_applicable_and_answered_are_three_documents():
    headers = ct_headers()
    run = run_for(headers)
    attempts = [("failed", "out of memory"), ("failed", "time limit"), ("not_applicable", "out of memory")]
    uids = {
        write_not_analysed(headers, outcome=outcome, reason=reason, looked_at=(), run=run).dataset.SOPInstanceUID
        for outcome, reason in attempts
    }
    assert len(uids | {results()[1].dataset.SOPInstanceUID}) == 4


def test_nothing_received_is_nothing_to_report_on():
    with pytest.raises(InvalidResult, match="nothing was received"):
        write_not_analysed([], outcome="failed", reason="x", looked_at=(), run=run_for([]))


def test_a_saved_file_is_a_dicom_file_and_leaves_nothing_beside_it(tmp_path):
    result = results()[1]
    path = tmp_path / "report.dcm"
    save(result, path)
    assert path.read_bytes()[:132] == b"\0" * 128 + b"DICM"
    assert [x.name for x in tmp_path.iterdir()] == ["report.dcm"]
    assert pydicom.dcmread(path).SOPInstanceUID == result.dataset.SOPInstanceUID


def test_a_file_that_could_not_be_written_does_not_replace_the_old_one(tmp_path):
    first, second = results()
    path = tmp_path / "report.dcm"
    save(second, path)
    before = path.read_bytes()
    first.dataset["Rows"]._value = "not a number"
    with pytest.raises(Exception, match="."):
        save(first, path)
    assert path.read_bytes() == before
