"""The three steps with a stand-in model and a real archive: what each leaves behind, also when something breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dicomnode import ledger, node, schema
from dicomnode.config import Assembly, Config, Destination, Sender, Tls
from dicomnode.network.archive import Archive
from dicomnode.network.listen import Listener
from dicomnode.node import Node
from dicomnode.process import read_studies
from dicomnode.report import stored_document
from dicomnode.roles import build
from dicomnode.spool import Spool
from inference.findings import Analysis, Code, Finding, Mask, ModelIdentity
from inference.pipeline import Pipeline
from inference.volume import Volume
from sr.text import render
from tests.integration.test_recovery import write_series

NAME = "cervical-ct-fracture"
FRACTURE = Code(scheme="SCT", value="72704001", meaning="Fracture")
SPINE = Code(scheme="SCT", value="122494005", meaning="Cervical spine")
MODEL = ModelIdentity(
    name="stand-in", version="1", sha256="0" * 64, manufacturer="tests", trained_on="nothing", notice="Test only."
)


def analysis(volume: Volume, *, label: str = "Fracture", state: str = "done", reason: str = "") -> Analysis:
    """One finding in the middle of the volume."""
    import numpy as np

    array = np.zeros(volume.array.shape, bool)
    array[10:13, 20:30, 20:30] = True
    finding = Finding(
        tracking_id="f-1", code=FRACTURE, site=SPINE, level=None, probability=0.9, raw_probability=0.9,
        uncertainty=None, box=((10, 20, 20), (13, 30, 30)), key_slice=11,
    )  # fmt: skip
    mask = Mask(tracking_id="f-1", label=label, kind=FRACTURE, array=array)
    done = state == "done"
    return Analysis(
        pipeline=NAME, state=state, reason=reason, model=MODEL, target=FRACTURE, site=SPINE,
        case_probability=0.9 if done else None, threshold=0.5, findings=(finding,) if done else (),
        masks=(mask,) if done else (), slice_probabilities=(0.1,) * len(volume.array) if done else (),
    )  # fmt: skip


class Hospital:
    """A node on a folder, the archive that it sends to, and the model that it runs."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive(folder / "archive", "ARCHIVE")
        self.listener: Listener | None = Listener(self.archive, host="127.0.0.1", port=0)
        destination = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=self.listener.port)
        config = Config(
            data_dir=folder / "data", destination=(destination,), assembly=Assembly(quiet_seconds=0.001)
        )  # fmt: skip
        config.data_dir.mkdir(parents=True)
        self.model = analysis
        pipeline = Pipeline(
            name=NAME, identity=MODEL, configuration_sha256="1" * 64, analyse=lambda volume, _: self.model(volume)
        )
        self.node: Node = replace(build(config), load=lambda _name: pipeline)

    def go_offline(self) -> None:
        if self.listener is not None:
            self.listener.stop()
        self.listener = None

    def receive(self, files: list[Path]) -> str:
        [study] = read_studies(files, lambda path, why: pytest.fail(f"{path}: {why}"))
        for instance in study.instances:
            self.node.ledger.file_instance(
                replace(instance, sha256=instance.sop_uid), association="a", calling_ae="CT1"
            )
        self.node.ledger.end_association("a", "released")
        return study.uid

    def assemble(self, uid: str) -> None:
        import time

        time.sleep(0.01)
        node.assemble(self.node, uid)

    def infer(self) -> bool:
        task = self.node.ledger.lease("infer", "w")
        if task is not None:
            node.infer(self.node, task)
        return task is not None

    def deliver(self) -> bool:
        task = self.node.ledger.lease("deliver", "s")
        if task is not None:
            node.deliver(self.node, task, self.node.config.destination[0])
        return task is not None

    def row(self, uid: str):
        return self.node.ledger.rows(schema.study, uid=uid)[0]

    def reports(self) -> list[str]:
        return [render(pydicom.dcmread(path)) for name, path in self.archive.stored.values() if "SR" in name]


@pytest.fixture
def hospital(tmp_path) -> Iterator[Hospital]:
    it = Hospital(tmp_path)
    yield it
    it.go_offline()


def neck(folder: Path, **options) -> list[Path]:
    return write_series(folder / "in", body_part="CSPINE", **options)


def test_a_study_goes_through_all_three_steps_into_the_archive(hospital, tmp_path):
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    assert hospital.row(uid)["state"] == "analysing"
    assert hospital.infer() and hospital.deliver()
    assert hospital.row(uid)["state"] == "done"
    assert sorted(name for name, _ in hospital.archive.stored.values()) == [
        "Comprehensive 3D SR Storage",
        "Secondary Capture Image Storage",
        "Segmentation Storage",
    ]
    assert not hospital.infer() and not hospital.deliver()


def test_a_step_done_twice_writes_the_same_bytes_under_the_same_uids(hospital, tmp_path, monkeypatch):
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    monkeypatch.setattr(ledger.Ledger, "finish_analysis", lambda *_, **__: None)  # cut off before the commit
    monkeypatch.setattr(ledger, "LEASE_SECONDS", -1.0)
    contents = []
    for _ in range(2):
        assert hospital.infer()
        contents.append({p.name: p.read_bytes() for p in (hospital.node.spool.results_folder(uid)).iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 4  # with the report in the older class, should a destination want it


def test_a_model_that_fails_is_tried_twice_and_then_a_report_says_so_without_quoting_the_input(hospital, tmp_path):
    def broken(volume):
        raise RuntimeError("cannot handle DOE^JOHN")

    hospital.model = broken
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    assert hospital.infer()
    assert hospital.row(uid)["state"] == "analysing"
    hospital.node.ledger.retry(uid)  # do not wait for the delay
    assert hospital.infer() and hospital.deliver()
    assert hospital.row(uid)["state"] == "failed"
    assert hospital.row(uid)["reason"] == "the analysis failed: RuntimeError"
    [report] = hospital.reports()
    assert "the analysis failed: RuntimeError" in report
    assert "DOE" not in report


def test_a_model_that_declines_gives_a_not_applicable_report_with_its_reason(hospital, tmp_path):
    hospital.model = lambda volume: analysis(volume, state="not_applicable", reason="no bone was found in this series")
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    assert hospital.row(uid)["state"] == "not_applicable"
    assert "no bone was found" in hospital.reports()[0]


@pytest.mark.fault(13, "d")
def test_a_series_with_a_missing_slice_is_reported_not_analysed(hospital, tmp_path):
    files = neck(tmp_path)
    uid = hospital.receive(files[:10] + files[11:])
    hospital.assemble(uid)
    hospital.node.ledger.wait(hospital.node.ledger.study(uid), 0, "")
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    assert "1 missing slice(s): between 9.0 and 11.0 mm" in hospital.reports()[0]


@pytest.mark.filterwarnings("ignore:.*exceeds:UserWarning")
def test_a_result_that_fails_its_check_is_kept_aside_and_reported_as_a_failure(hospital, tmp_path, monkeypatch):
    from sr import check

    monkeypatch.setattr(check, "_require_position", _raise_misplaced)
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    assert hospital.row(uid)["state"] == "failed"
    [kept] = (hospital.node.spool.root / "rejected").iterdir()
    assert pydicom.dcmread(kept).Modality == "SEG"
    assert [name for name, _ in hospital.archive.stored.values()] == ["Comprehensive 3D SR Storage"]
    assert "lies 40.0 mm off its mask" in hospital.reports()[0]


def _raise_misplaced(*_):
    from sr.check import InvalidResult

    raise InvalidResult("segment 1 (Fracture) lies 40.0 mm off its mask")


def test_a_study_of_which_not_even_a_report_can_be_made_fails_visibly(hospital, tmp_path, monkeypatch):
    from dicomnode import answer
    from sr.check import InvalidResult

    def impossible(*_, **__):
        raise InvalidResult("SR: cannot be encoded")

    monkeypatch.setattr(answer, "decline", impossible)
    uid = hospital.receive(write_series(tmp_path / "in"))
    hospital.assemble(uid)
    monkeypatch.setattr(answer, "analyse", impossible)
    assert hospital.infer()
    assert hospital.row(uid)["state"] == "failed"


@pytest.mark.fault(10, "e")
def test_an_archive_that_is_down_is_tried_again_later(hospital, tmp_path):
    uid = hospital.receive(write_series(tmp_path / "in"))
    hospital.assemble(uid)
    hospital.infer()
    hospital.go_offline()
    assert hospital.deliver()
    [delivery] = [t for t in hospital.node.ledger.rows(schema.task, study_uid=uid) if t["kind"] == "deliver"]
    assert (delivery["state"], delivery["attempts"]) == ("ready", 1)
    assert "does not answer" in delivery["reason"]
    assert not hospital.deliver(), "not before its time"


def test_certificates_that_cannot_be_read_hold_no_study_and_postpone_the_delivery_with_the_reason(hospital, tmp_path):
    gone = Tls(certificate=tmp_path / "gone.pem", key=tmp_path / "gone.key", authorities=tmp_path / "ca.pem")
    sender = Sender(ae_title="CT1", host="127.0.0.1", port=1, tls=True)
    destination = hospital.node.config.destination[0].model_copy(update={"tls": True})
    changes = {"tls": gone, "sender": (sender,), "destination": (destination,)}
    hospital.node = replace(hospital.node, config=hospital.node.config.model_copy(update=changes))
    uid = hospital.receive(write_series(tmp_path / "in"))
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    [delivery] = [t for t in hospital.node.ledger.rows(schema.task, study_uid=uid) if t["kind"] == "deliver"]
    assert delivery["state"] == "ready"
    assert "gone.pem" in delivery["reason"]
    assert hospital.archive.stored == {}


def test_a_destination_that_does_not_take_a_class_fails_that_delivery_and_gets_the_rest(tmp_path):
    from pynetdicom import build_context
    from pynetdicom.sop_class import Comprehensive3DSRStorage

    hospital = Hospital(tmp_path)
    port = hospital.listener.port
    hospital.go_offline()
    only_reports = Listener(
        hospital.archive, host="127.0.0.1", port=port,
        contexts=[build_context(Comprehensive3DSRStorage)],
    )  # fmt: skip
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    only_reports.stop()
    assert len(hospital.reports()) == 1
    assert hospital.row(uid)["state"] == "failed"
    assert "SEG: ARCHIVE does not accept Segmentation Storage" in hospital.row(uid)["reason"]


def test_a_destination_that_knows_only_the_older_report_gets_that_and_the_delivery_is_done(tmp_path):
    from pynetdicom import build_context
    from pynetdicom.sop_class import ComprehensiveSRStorage

    hospital = Hospital(tmp_path)
    port = hospital.listener.port
    hospital.go_offline()
    older = Listener(hospital.archive, host="127.0.0.1", port=port, contexts=[build_context(ComprehensiveSRStorage)])
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    hospital.infer()
    only_sr = hospital.node.config.destination[0].model_copy(update={"results": ("sr",)})
    node.deliver(hospital.node, hospital.node.ledger.lease("deliver", "s"), only_sr)
    older.stop()
    assert [name for name, _ in hospital.archive.stored.values()] == ["Comprehensive SR Storage"]
    assert hospital.row(uid)["state"] == "done"
    shown = stored_document(hospital.node.ledger, uid)["results"]
    assert [result["kind"] for result in shown] == ["SEG", "SR", "SC"], "the twin of the report is no other result"


def test_an_object_that_cannot_be_made_is_named_and_the_others_go_out(hospital, tmp_path):
    destination = hospital.node.config.destination[0].model_copy(update={"results": ("sr", "labelmap")})
    hospital.node = replace(
        build(hospital.node.config.model_copy(update={"destination": (destination,)})), load=hospital.node.load
    )

    def overlapping(volume):
        found = analysis(volume)
        return replace(found, masks=(*found.masks, replace(found.masks[0], label="hidden", tracking_id=None)))

    hospital.model = overlapping
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    assert hospital.row(uid)["state"] == "done"
    assert [name for name, _ in hospital.archive.stored.values()] == ["Comprehensive 3D SR Storage"]
    [refused] = stored_document(hospital.node.ledger, uid)["analyses"][0]["refused"]
    assert "segment 2 (hidden) lies wholly under others" in refused


def test_an_object_with_too_many_frames_is_kept_from_the_destination_that_says_so(hospital, tmp_path):
    few = hospital.node.config.destination[0].model_copy(update={"max_frames": 2})
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    hospital.infer()
    node.deliver(hospital.node, hospital.node.ledger.lease("deliver", "s"), few)
    assert sorted(name for name, _ in hospital.archive.stored.values()) == [
        "Comprehensive 3D SR Storage",
        "Secondary Capture Image Storage",
    ]
    [delivery] = [t for t in hospital.node.ledger.rows(schema.task, study_uid=uid) if t["kind"] == "deliver"]
    assert delivery["state"] == "unproven"
    assert delivery["reason"].startswith(
        "SEG not sent: it has 3 frames, more than max_frames = 2; stored, not proven: "
    )


def test_a_newer_answer_rejects_every_object_of_the_older_where_that_is_wanted(hospital, tmp_path):
    destination = hospital.node.config.destination[0].model_copy(update={"results": ("seg", "sr", "reject")})
    config = hospital.node.config.model_copy(update={"destination": (destination,)})
    hospital.node = replace(build(config), load=hospital.node.load)
    files = neck(tmp_path)
    uid = hospital.receive(files[:-1])
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    sent = set(hospital.archive.stored)
    hospital.receive(files)
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    [note] = [path for name, path in hospital.archive.stored.values() if "Key Object" in name]
    items = [x for x in pydicom.dcmread(note).ContentSequence if "ReferencedSOPSequence" in x]
    rejected = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items}
    assert sent <= rejected


def test_an_answer_that_was_replaced_before_it_was_sent_is_not_sent(hospital, tmp_path):
    files = neck(tmp_path)
    uid = hospital.receive(files[:-1])
    hospital.assemble(uid)
    hospital.infer()
    hospital.receive(files)
    hospital.assemble(uid)
    assert hospital.deliver()
    assert hospital.archive.stored == {}
    assert hospital.infer() and hospital.deliver()
    assert len(hospital.archive.stored) == 3


def test_results_that_a_destination_did_not_ask_for_are_not_sent(hospital, tmp_path):
    only_sr = hospital.node.config.destination[0].model_copy(update={"results": ("sr",)})
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    hospital.infer()
    node.deliver(hospital.node, hospital.node.ledger.lease("deliver", "s"), only_sr)
    assert [name for name, _ in hospital.archive.stored.values()] == ["Comprehensive 3D SR Storage"]


@pytest.mark.fault(5, "e")
def test_a_full_disk_leaves_the_work_for_later(hospital, tmp_path, monkeypatch):
    uid = hospital.receive(write_series(tmp_path / "in"))
    hospital.assemble(uid)
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "results_folder", _no_space)
        with pytest.raises(OSError, match="No space left"):
            hospital.infer()
    assert hospital.row(uid)["state"] == "analysing"
    hospital.node.ledger.release_owner("w", died=None)
    assert hospital.infer() and hospital.deliver()
    assert hospital.row(uid)["state"] == "not_applicable"


def _no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_study_that_lost_its_only_image_is_forgotten(hospital, tmp_path):
    [file] = write_series(tmp_path / "in", slices=1)
    uid = hospital.receive([file])
    [instance] = hospital.node.ledger.instances()
    hospital.node.ledger.forget(instance)
    hospital.assemble(uid)
    assert hospital.node.ledger.studies() == []
