"""The whole loop with Orthanc as the PACS: it routes studies here, and gets the answers back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import Comprehensive3DSRStorage

from dicomnode.ledger import Ledger
from tests.integration.programs import Node, Orthanc, free_port, local, orthanc, running, send_all, wait_for
from tests.integration.validators import dciodvfy, sr_validator
from tests.phantoms import broken_neck

REAL_CT = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct-philips-study"
RESULTS = {"SEG": 1, "SR": 1, "OT": 1}
#: All that Debian's Orthanc accepts: it has not heard of label maps.
KINDS = ("seg", "sr", "sc", "csr", "gsps", "kos", "pdf", "pmap", "reject")


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


@contextmanager
def hospital(
    folder: Path, *, asks: bool = False, routes: bool = True, results: Sequence[str] = ("seg", "sr", "sc")
) -> Iterator[tuple[Orthanc, Node]]:
    """A PACS and a node that know each other; with `asks` the node may ask the PACS for its count."""
    port = free_port()
    with orthanc(folder / "pacs", routes_to=local("DICOMNODE", port) if routes else None) as pacs:
        senders = [pacs.address] if asks else []
        node = Node(folder / "node", port=port, destinations={"pacs": pacs.address}, senders=senders, results=results)
        with running(node):
            yield pacs, node


def in_the_pacs(pacs: Orthanc, wanted: dict[str, int]) -> bool:
    there = dict(pacs.series())
    return all(there.get(modality) == count for modality, count in wanted.items())


def settled(book: Ledger, uid: str, entries: int) -> bool:
    """Whether a study came to rest after at least this many steps."""
    from dicomnode import schema

    history = book.rows(schema.history, study_uid=uid)
    return len(history) >= entries and history[-1]["state"] in ("done", "not_applicable", "failed")


@pytest.mark.fault(14, "g")
def test_a_routed_study_comes_back_with_valid_results_and_is_not_analysed_again_when_they_are_routed_too(tmp_path):
    uid = uid_of(broken_neck()[0])
    with hospital(tmp_path, asks=True) as (pacs, node):
        send_all(broken_neck(), pacs.address)
        wait_for("the results in the PACS", lambda: in_the_pacs(pacs, RESULTS))
        # The results make the study stable again, and Orthanc routes it once more, with them.
        wait_for("the second routing", lambda: settled(node.ledger, uid, 9))
        document = json.loads(node.run("status", uid, "--json").stdout)["studies"][0]
        studies = pacs.get("/studies?expand")
        files = {m: pacs.save(pacs.instances(m)[0], tmp_path / f"{m}.dcm") for m in RESULTS}
        assert in_the_pacs(pacs, RESULTS)
    assert document["state"] == "done"
    count = len(broken_neck())
    assert document["released_because"] == f"complete: {count} of {count} instances by the sender's count"
    assert [d["state"] for d in document["deliveries"]] == ["done"]
    assert not document["superseded"]
    assert len(studies) == 1, "the results joined the study and patient they are about"
    for path in files.values():
        assert dciodvfy(path) == []
    assert sr_validator(files["SR"]) == []
    report, segmentation = pydicom.dcmread(files["SR"]), pydicom.dcmread(files["SEG"])
    source = pydicom.dcmread(broken_neck()[0])
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyDate"):
        assert report[keyword].value == segmentation[keyword].value == source[keyword].value
    referenced = {
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    sent = {str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for path in broken_neck()}
    assert segmentation.SOPInstanceUID in referenced
    assert referenced <= sent | {segmentation.SOPInstanceUID}


@pytest.mark.fault(15, "g")
def test_images_that_come_after_the_answer_give_a_new_one_that_names_the_old(tmp_path):
    late, early = broken_neck()[60:64], broken_neck()[:60] + broken_neck()[64:]
    uid = uid_of(broken_neck()[0])
    with hospital(tmp_path, routes=False, results=KINDS) as (pacs, node):
        send_all(early, node.address)
        first = node.answer(uid)
        assert first["state"] == "not_applicable"
        assert "missing" in first["reason"]
        send_all(late, node.address)
        wait_for("the second answer", lambda: settled(node.ledger, uid, len(first["history"]) + 4))
        second = node.study(uid)
        assert second["state"] == "done"
        stored = [pydicom.dcmread(pacs.save(i, tmp_path / f"{i}.dcm")) for i in pacs.instances()]
    assert Counter(one.SOPClassUID.name.removesuffix(" Storage") for one in stored) == {
        "Comprehensive 3D SR": 2,
        "Comprehensive SR": 2,
        "Segmentation": 1,
        "Secondary Capture Image": 1,
        "Grayscale Softcopy Presentation State": 1,
        "Key Object Selection Document": 2,
        "Parametric Map": 1,
        "Encapsulated PDF": 1,
    }
    for one in stored:
        assert dciodvfy(Path(one.filename)) == [], one.SOPClassUID.name
    reports = [one for one in stored if one.SOPClassUID == Comprehensive3DSRStorage]
    old = [r["sop_uid"] for r in first["results"] if r["kind"] == "SR"]
    assert len(reports) == 2
    assert set(old) <= set(second["superseded"])
    newer = next(report for report in reports if report.SOPInstanceUID not in old)
    predecessor = newer.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == old[0]


@pytest.mark.fault(10, "e")
def test_a_pacs_that_is_down_gets_the_results_once_it_is_back(tmp_path):
    uid = uid_of(broken_neck()[0])
    with hospital(tmp_path, routes=False) as (pacs, node):
        pacs.stop()
        send_all(broken_neck(), node.address)
        wait_for(
            "a delivery that is put off",
            lambda: any(d["attempts"] for s in _studies(node) for d in s["deliveries"]),
        )
        waiting = node.study(uid)
        assert waiting["state"] == "delivering"
        assert "does not answer" in waiting["deliveries"][0]["reason"]
        pacs.start()
        node.run("retry", uid)
        assert node.answer(uid)["state"] == "done"
        assert in_the_pacs(pacs, RESULTS)


def _studies(node: Node) -> list[dict]:
    return [node.study(row["uid"]) for row in node.ledger.studies()]


@pytest.mark.skipif(not REAL_CT.exists(), reason="the real CT study is not beside this checkout")
def test_a_real_head_ct_is_answered_with_a_valid_report_that_says_not_applicable(tmp_path):
    files = sorted(path for path in REAL_CT.rglob("*") if path.is_file())
    with hospital(tmp_path) as (pacs, node):
        send_all(files, pacs.address)
        wait_for("the report", lambda: pacs.instances("SR"))
        report = pacs.save(pacs.instances("SR")[-1], tmp_path / "sr.dcm")
        document = node.answer(uid_of(files[0]))
    assert document["state"] == "not_applicable"
    assert {s["pipeline"] for s in document["series"]} == {None}
    assert all(s["reason"] for s in document["series"])
    assert dciodvfy(report) == []
    assert sr_validator(report) == []
