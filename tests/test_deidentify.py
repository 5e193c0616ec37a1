"""Results for a destination outside the hospital: none of the patient's values is left, and what is left still fits."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

from dicomnode import schema
from dicomnode.config import CONFIG_DIR
from dicomnode.deidentify import METHODS, deidentify, key_of, new_uid
from dicomnode.report import stored_document
from inference import pipeline
from sr.headers import INHERITED
from sr.results import Kind, Reference, write_results
from sr.text import render
from tests.integration.validators import dciodvfy
from tests.sources import analysis_of, ct_headers, run_for, volume_of
from tests.test_node import Hospital, analysis, neck

KEY = b"k" * 32
SENT = ("SEG", "LABELMAP", "PMAP", "SR", "CSR", "GSPS", "KOS", "REJECT")
#: A value of every VR by which it is found again, wherever it goes; `n` makes each one different.
VALUES = {
    "PN": "Zq{n:03d}doe^Jane", "LO": "Zq{n:03d}text", "SH": "Zq{n:03d}", "ST": "Zq{n:03d}text", "LT": "Zq{n:03d}text",
    "UT": "Zq{n:03d}text", "UC": "Zq{n:03d}text", "DA": "1913{m:02d}{d:02d}", "TM": "1323{d:02d}.4{n:03d}",
    "DT": "1913{m:02d}{d:02d}1323", "AS": "{n:03d}Y", "DS": "7.77{n:03d}", "IS": "777{n:03d}",
}  # fmt: skip
KEPT = ("SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientSex")  # codes, that are checked by name below


def tag_fully(dataset: Dataset) -> set[str]:
    """Give a header every attribute that results inherit, and those of the scanner; return their values."""
    names = [*INHERITED, "InstitutionName", "StationName", "SeriesDescription", "ProtocolName", "OperatorsName"]
    marks = set()
    for n, name in enumerate(names):
        vr = dictionary_VR(name)
        if vr == "SQ":
            setattr(dataset, name, [_coded(n)])
            marks.add(f"Zq{n:03d}")
        elif vr in VALUES and name not in KEPT:
            value = VALUES[vr].format(n=n, m=n % 12 + 1, d=n % 28 + 1)
            setattr(dataset, name, value)
            marks.add(value)
    dataset.PatientSex = "F"
    dataset.private_block(0x0011, "Zq999 creator", create=True).add_new(1, "LO", "Zq998 private")
    return marks


def _coded(n: int) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = f"Zq{n:03d}", "99ZQ", f"Zq{n:03d} meaning"
    item.PatientID, item.ReferencedSOPInstanceUID = f"Zq{n:03d}", f"1.2.77.{n}"
    return item


def traces(path: Path, marks: set[str]) -> list[str]:
    """Marks that are in a file, however it spells them, and anything that looks like one."""
    text = path.read_bytes().decode("latin-1")
    loud = text.upper()
    spelled = {form for mark in marks for form in (mark, mark.replace("^", " "), mark.partition("^")[0])}
    return [mark for mark in spelled if len(mark) > 3 and mark.upper() in loud] + re.findall(r"(?i)zq\d\d\d", text)


@pytest.fixture
def tagged() -> tuple[list[Dataset], set[str]]:
    headers = ct_headers()
    for header in headers:
        marks = tag_fully(header)
    return headers, marks | {str(header[name].value) for header in headers for name in ("SOPInstanceUID",)} | {
        str(headers[0].StudyInstanceUID), str(headers[0].SeriesInstanceUID), str(headers[0].FrameOfReferenceUID)
    }  # fmt: skip


def made(headers: list[Dataset]) -> dict[str, Dataset]:
    volume = volume_of(headers)
    old = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34", sop_instance_uid="2.25.1", series_uid="2.25.2",
                    study_uid=headers[0].StudyInstanceUID)  # fmt: skip
    found = replace(analysis_of(volume), heat_map=np.zeros(volume.array.shape, np.float32))
    quoting = ("STIR series 4 'ZQ007 O'BRIEN' was left out", f"image {headers[0].SOPInstanceUID} has no position")
    notice = pipeline.identity("cervical-ct-fracture", CONFIG_DIR).notice
    found = replace(found, quality=quoting, model=replace(found.model, notice=notice))
    results = write_results(volume, found, run_for(headers, predecessors=(old,)), SENT)
    return {result.kind: result.dataset for result in results}


def test_no_value_of_a_fully_tagged_study_is_left_in_any_object(tagged, tmp_path):
    headers, marks = tagged
    objects = made(headers)
    assert set(objects) == set(SENT)
    for kind, dataset in objects.items():
        before, after = tmp_path / f"{kind}-before.dcm", tmp_path / f"{kind}.dcm"
        dataset.save_as(before, enforce_file_format=True)
        assert len(traces(before, marks)) > 20, "the test looks where something is"
        deidentify(dataset, KEY)
        dataset.save_as(after, enforce_file_format=True)
        assert traces(after, marks) == [], kind
        assert dataset.PatientIdentityRemoved == "YES"
        assert [c.CodeValue for c in dataset.DeidentificationMethodCodeSequence] == [m.value for m in METHODS]
        assert not dataset.PatientSex
        assert not dataset.StudyDate
        assert "PatientAge" not in dataset


def test_what_is_left_is_valid(tmp_path):
    objects = made(ct_headers())
    del objects["LABELMAP"]  # younger than dciodvfy
    for kind, dataset in objects.items():
        deidentify(dataset, KEY)
        path = tmp_path / f"{kind}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        # Study Date, Time and ID are empty, as the profile wants them.
        assert [line for line in dciodvfy(path) if "needed to build DICOMDIR" not in line] == [], kind


def test_references_between_the_objects_of_an_answer_still_meet(tagged):
    headers, _ = tagged
    objects = made(headers)
    segmentation, report = objects["SEG"], objects["SR"]
    images = {str(h.SOPInstanceUID) for h in headers}
    referenced = set(re.findall(r"[\d.]{20,64}|1\.2\.[\d.]+", str(report.CurrentRequestedProcedureEvidenceSequence)))
    own = str(segmentation.SOPInstanceUID)
    assert own in referenced and images & referenced
    for dataset in (segmentation, report):
        deidentify(dataset, KEY)
    assert segmentation.SOPInstanceUID == segmentation.file_meta.MediaStorageSOPInstanceUID == new_uid(own, KEY)
    assert segmentation.StudyInstanceUID == report.StudyInstanceUID == new_uid(str(headers[0].StudyInstanceUID), KEY)
    assert segmentation.PatientID == report.PatientID == report.PatientName
    evidence = str(report.CurrentRequestedProcedureEvidenceSequence)
    assert new_uid(own, KEY) in evidence
    assert all(new_uid(uid, KEY) in evidence for uid in images & referenced)
    assert "Segmentation Storage" in evidence, "classes keep their names"


def test_the_words_of_the_model_stay_and_those_of_the_source_go(tagged):
    headers, _ = tagged
    report = made(headers)["SR"]
    deidentify(report, KEY)
    text = render(report)
    assert "left out" not in text and "position" not in text
    assert pipeline.identity("cervical-ct-fracture", CONFIG_DIR).notice in " ".join(text.split())
    assert "weights SHA-256" in text
    assert report.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurement Report"


def test_a_new_uid_is_valid_follows_from_the_key_and_does_not_repeat():
    one = new_uid("1.2.3", KEY)
    assert UID(one).is_valid and len(one) <= 64
    assert one == new_uid("1.2.3", KEY)
    assert len({one, new_uid("1.2.4", KEY), new_uid("1.2.3", b"other")}) == 3


def test_the_key_is_made_once_and_for_the_node_alone(tmp_path):
    key = key_of(tmp_path)
    assert len(key) == 32
    assert key_of(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "deidentify.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["deidentify.key"]


# -- the way to a destination -------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path):
    """A node whose archive is outside the hospital."""
    it = Hospital(tmp_path)
    destination = it.node.config.destination[0].model_copy(
        update={"deidentify": True, "results": ("seg", "sr", "sc", "pdf")}
    )
    config = it.node.config.model_copy(update={"destination": (destination,)})
    it.node = replace(it.node, config=config, origin=replace(it.node.origin, kinds=("SEG", "SR", "SC", "PDF")))
    yield it
    it.go_offline()


@pytest.mark.parametrize("state", ["done", "not_applicable"])
def test_a_destination_outside_gets_nothing_of_a_fully_tagged_study(outside, tmp_path, state):
    files, marks = neck(tmp_path), set()
    for path in files:
        dataset = pydicom.dcmread(path)
        marks = tag_fully(dataset) | {str(dataset.StudyInstanceUID) + ".1"}
        dataset.BodyPartExamined, dataset.StudyInstanceUID = "CSPINE", "1.2.3.1"
        dataset.save_as(path)
    outside.model = lambda volume: analysis(volume, state=state, reason="" if state == "done" else "no neck")
    uid = outside.receive(files)
    outside.assemble(uid)
    assert outside.infer() and outside.deliver()
    assert outside.row(uid)["state"] in ("done", "not_applicable")
    received = outside.archive.stored
    assert len(received) == (2 if state == "done" else 1)
    for name, path in received.values():
        assert traces(path, marks) == [], name
    stored = outside.node.ledger.rows(schema.result)
    key = key_of(outside.node.config.data_dir)
    assert set(received) == {new_uid(row["sop_uid"], key) for row in stored if row["kind"] in ("SEG", "SR")}
    if state == "done":
        (delivery,) = stored_document(outside.node.ledger, uid)["deliveries"]
        assert "SC not sent: who the patient is" in delivery["reason"]
        assert "PDF not sent: who the patient is" in delivery["reason"]


def test_what_cannot_be_stripped_is_not_sent(outside, tmp_path, monkeypatch):
    from dicomnode import dispatch

    monkeypatch.setattr(dispatch, "strip", lambda *_: (_ for _ in ()).throw(NotImplementedError("VR")))
    uid = outside.receive(neck(tmp_path))
    outside.assemble(uid)
    assert outside.infer()
    outside.deliver()
    assert outside.archive.stored == {}
    (delivery,) = stored_document(outside.node.ledger, uid)["deliveries"]
    assert delivery["reason"] == "internal error, see the log: NotImplementedError"


def test_every_kind_has_a_decision():
    assert set(SENT) | {"SC", "PDF"} == set(Kind)
