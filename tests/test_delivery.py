"""Delivered means held: archives that commit, lose, stay silent, report late or wrongly, and one that is down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from dicomnode import node, proof, roles, schema
from dicomnode.network.commitment import reporting
from dicomnode.network.listen import Listener, storage_contexts
from dicomnode.network.send import Address
from dicomnode.receive import Receiver
from dicomnode.roles import build
from dicomnode.supervise import Life
from dicomnode.task import Task
from tests.integration.programs import free_port
from tests.pacs import Pacs, pacs
from tests.receivers import soon
from tests.test_node import Hospital, neck

FIRST_TRY, UNKNOWN = 0x0000, 0x0115


class Ward(Hospital):
    """A hospital whose results go to one archive, with a receiver that hears its reports."""

    def __init__(self, folder: Path, archive: Address, proof: str | None) -> None:
        super().__init__(folder)
        self.go_offline()
        self.send_to(archive, proof)
        self.uid = self.receive(neck(folder))
        self.assemble(self.uid)
        self.infer()

    def send_to(self, archive: Address, proof: str | None) -> None:
        [usual] = self.node.config.destination
        changes = {"ae_title": archive.ae_title, "port": archive.port, "proof": proof}
        config = self.node.config.model_copy(update={"destination": (usual.model_copy(update=changes),)})
        self.node = replace(build(config), load=self.node.load)

    def listen(self, port: int = 0) -> Address:
        config = self.node.config
        receiver = Receiver(config, self.node.spool, self.node.ledger, self.node.trail)
        self.listener = Listener(receiver, host="127.0.0.1", port=port, contexts=[*storage_contexts(), reporting()])
        return Address(ae_title="DICOMNODE", host="127.0.0.1", port=self.listener.port)

    @property
    def delivery(self):
        [it] = [t for t in self.node.ledger.rows(schema.task, study_uid=self.uid) if t["kind"] == "deliver"]
        return it

    def lease(self) -> Task:
        held = self.node.ledger.lease("deliver", "s")
        assert held is not None
        return held

    def hurry(self) -> None:
        """Do not wait for the delay."""
        self.node.ledger.retry(self.uid)


@pytest.fixture
def ward(tmp_path) -> Iterator:
    opened: list[Ward] = []

    def open_ward(archive: Pacs, proof: str | None) -> Ward:
        opened.append(Ward(tmp_path, archive.address, proof))
        return opened[-1]

    yield open_ward
    for one in opened:
        one.go_offline()


@pytest.mark.parametrize("asked", ["find", None])
def test_a_delivery_is_done_when_the_archive_lists_every_object(ward, asked):
    with pacs() as archive:
        it = ward(archive, asked)
        assert it.deliver()
    assert it.row(it.uid)["state"] == "done"
    assert (it.delivery["state"], it.delivery["reason"]) == ("done", "held, by query")


@pytest.mark.parametrize("asked", ["find", None])
def test_an_object_that_was_accepted_and_is_not_listed_keeps_the_delivery_open_until_it_is(ward, asked):
    with pacs() as archive:
        it = ward(archive, asked)
        archive.loses = lambda one: one.Modality == "SEG"
        assert it.deliver()
        assert it.row(it.uid)["state"] == "delivering"
        assert it.delivery["reason"] == "accepted, and not listed by the archive: SEG"
        assert not it.deliver(), "not before its time"
        it.hurry()
        assert it.deliver()
        assert it.delivery["state"] == "ready"
        archive.loses = lambda _: False
        it.hurry()
        assert it.deliver()
        assert len(archive.stored) == 3, "what is there is looked for, not sent again"
    assert it.delivery["state"] == "done"


@pytest.mark.fault(10, "g")
def test_an_object_that_never_shows_up_fails_the_delivery_and_a_retry_sends_everything_again(ward, monkeypatch):
    with pacs() as archive:
        it = ward(archive, "find")
        archive.loses = lambda one: one.Modality == "SR"
        assert it.deliver()
        it.hurry()
        monkeypatch.setattr(proof, "GIVE_UP_SECONDS", 0.0)
        assert it.deliver()
        assert it.row(it.uid)["state"] == "failed"
        assert it.row(it.uid)["reason"] == "not delivered to archive: accepted, and not listed by the archive: SR"
        archive.loses = lambda _: False
        it.hurry()
        assert it.deliver()
        assert len(archive.stored) == 6
    assert it.row(it.uid)["state"] == "done"


@pytest.mark.parametrize("asked", ["find", "commitment"])
def test_an_archive_that_cannot_give_the_proof_that_was_asked_for_fails_the_delivery_with_that_reason(ward, asked):
    with pacs(queries=False, commits=False) as archive:
        it = ward(archive, asked)
        assert it.deliver()
    assert it.delivery["state"] == "failed"
    assert "stored, not proven" in it.delivery["reason"]
    assert "accepts none of the SOP classes" in it.delivery["reason"]


def test_what_was_sent_without_the_patient_is_asked_for_under_the_names_it_was_sent_with(ward):
    with pacs() as archive:
        it = ward(archive, "find")
        [usual] = it.node.config.destination
        outside = usual.model_copy(update={"deidentify": True, "results": ("seg", "sr")})
        it.node = replace(it.node, config=it.node.config.model_copy(update={"destination": (outside,)}))
        assert it.deliver()
        ours = {row["sop_uid"] for row in it.node.ledger.rows(schema.result)}
        assert len(archive.stored) == 2
        assert not ours & {str(one.SOPInstanceUID) for one in archive.stored}
    assert (it.delivery["state"], it.delivery["reason"]) == ("done", "held, by query")


def test_without_proof_the_archives_word_counts(ward):
    with pacs() as archive:
        it = ward(archive, "none")
        archive.loses = lambda _: True
        assert it.deliver()
    assert (it.delivery["state"], it.delivery["reason"]) == ("done", "")


def test_a_report_on_an_association_of_the_archive_ends_the_delivery(ward):
    with pacs() as archive:
        it = ward(archive, "commitment")
        assert it.deliver()
        assert it.row(it.uid)["state"] == "delivering"
        assert "its report has not come" in it.delivery["reason"]
        [action] = archive.actions
        asked = {item.ReferencedSOPInstanceUID: item.ReferencedSOPClassUID for item in action.ReferencedSOPSequence}
        assert asked == {one.SOPInstanceUID: one.SOPClassUID for one in archive.stored}
        assert not it.deliver(), "not before its report"
        assert archive.report(it.listen(), archive.report_of(action)) == FIRST_TRY
        assert it.deliver()
        assert it.row(it.uid)["state"] == "done"
        assert (it.delivery["state"], it.delivery["reason"]) == ("done", "held, by storage commitment")
        assert archive.report(it.listen(), archive.report_of(action)) == FIRST_TRY, "a repeated report is welcome"
    assert len(archive.stored) == 3


def test_a_report_on_the_association_of_the_request_ends_the_delivery(ward, monkeypatch):
    monkeypatch.setattr("dicomnode.network.commitment.REPORT_SECONDS", 20.0)
    with pacs() as archive:
        archive.answers_there = True
        it = ward(archive, "commitment")
        assert it.deliver()
        assert archive.statuses == [FIRST_TRY]
        assert it.deliver(), "at once"
    assert it.delivery["reason"] == "held, by storage commitment"


def test_a_transaction_waits_for_its_report_over_a_restart(ward):
    with pacs() as archive:
        it = ward(archive, "commitment")
        assert it.deliver()
        it.send_to(archive.address, "commitment")  # another node on the same ledger
        assert archive.report(it.listen(), archive.report_of(archive.actions[0])) == FIRST_TRY
        assert it.deliver()
    assert it.delivery["state"] == "done"
    assert len(archive.stored) == 3


def test_what_is_not_committed_is_sent_again_and_fails_in_the_end_with_the_archives_reason(ward, monkeypatch):
    monkeypatch.setattr("dicomnode.network.commitment.REPORT_SECONDS", 0.0)
    monkeypatch.setattr("dicomnode.node.MAX_LOSSES", 1)
    with pacs() as archive:
        it = ward(archive, "commitment")
        listening = it.listen()
        archive.loses = lambda one: one.Modality == "SEG"
        for state in ("ready", "failed"):
            assert it.deliver()
            assert archive.report(listening, archive.report_of(archive.actions[-1])) == FIRST_TRY
            assert it.deliver()
            assert (it.delivery["state"], it.delivery["reason"]) == (state, "SEG not committed: 0112 no such object")
            if state == "ready":
                it.hurry()
        assert len(archive.stored) == 6
        assert it.row(it.uid)["state"] == "failed"
        archive.loses = lambda _: False
        it.hurry()
        assert it.deliver()
        assert archive.report(listening, archive.report_of(archive.actions[-1])) == FIRST_TRY
        assert it.deliver()
    assert it.row(it.uid)["state"] == "done"
    assert len({action.TransactionUID for action in archive.actions}) == 3


def test_a_report_that_is_lost_is_asked_for_again_and_the_late_one_counts_too(ward, monkeypatch):
    monkeypatch.setattr("dicomnode.network.commitment.REPORT_SECONDS", 0.0)
    monkeypatch.setattr(proof, "ASK_AGAIN_SECONDS", 0.0)
    with pacs() as archive:
        it = ward(archive, "commitment")
        assert it.deliver() and it.deliver()
        first, second = archive.actions
        assert first.TransactionUID != second.TransactionUID
        assert archive.report(it.listen(), archive.report_of(first)) == FIRST_TRY
        assert it.deliver()
    assert it.delivery["state"] == "done"
    assert len(archive.stored) == 3


def test_a_report_that_never_comes_fails_the_delivery_visibly(ward, monkeypatch):
    monkeypatch.setattr("dicomnode.network.commitment.REPORT_SECONDS", 0.0)
    with pacs() as archive:
        it = ward(archive, "commitment")
        assert it.deliver()
        it.hurry()
        monkeypatch.setattr(proof, "GIVE_UP_SECONDS", 0.0)
        assert it.deliver()
        assert it.row(it.uid)["state"] == "failed"
        assert "no report of storage commitment came" in it.row(it.uid)["reason"]
        late = archive.report_of(archive.actions[0])
        assert archive.report(it.listen(), late) == UNKNOWN, "what was given up is not waited for"


def test_a_request_that_is_not_taken_is_tried_again_and_holds_no_other_delivery_up(ward, monkeypatch):
    with pacs() as archive:
        archive.action_status = 0x0213
        it = ward(archive, "commitment")
        assert node.deliver(it.node, it.lease(), it.node.config.destination[0]), "the archive is there"
        assert it.delivery["reason"].endswith("answered the storage commitment request with status 0213")
        it.hurry()
        assert not node.deliver(it.node, it.lease(), it.node.config.destination[0]), "it may rest"
        assert (it.delivery["state"], len(archive.stored)) == ("ready", 3)
        it.hurry()
        monkeypatch.setattr(proof, "GIVE_UP_SECONDS", 0.0)
        assert it.deliver()
    assert it.delivery["state"] == "failed"


def unknown(report: Dataset) -> str:
    report.TransactionUID = generate_uid(prefix=None)
    return "PEER"


def unnamed(report: Dataset) -> str:
    del report.TransactionUID
    return "PEER"


def stranger(report: Dataset) -> str:
    return "OTHER"


@pytest.mark.parametrize("change", [unknown, unnamed, stranger])
def test_a_report_of_an_unknown_transaction_or_from_another_is_refused_and_changes_nothing(ward, change, monkeypatch):
    monkeypatch.setattr("dicomnode.network.commitment.REPORT_SECONDS", 0.0)
    with pacs() as archive:
        it = ward(archive, "commitment")
        assert it.deliver()
        report = archive.report_of(archive.actions[0])
        title = change(report)
        assert archive.report(it.listen(), report, calling_ae=title) == UNKNOWN
        assert not it.deliver()


def test_an_object_that_the_report_does_not_mention_is_not_held(ward, monkeypatch):
    monkeypatch.setattr("dicomnode.network.commitment.REPORT_SECONDS", 0.0)
    with pacs() as archive:
        it = ward(archive, "commitment")
        assert it.deliver()
        report = archive.report_of(archive.actions[0])
        del report.ReferencedSOPSequence[0]
        assert archive.report(it.listen(), report) == FIRST_TRY
        assert it.deliver()
    assert it.delivery["state"] == "ready"
    assert it.delivery["reason"] == "SEG not committed: not mentioned in the report"


def test_a_report_that_finds_the_database_away_is_answered_so(ward, monkeypatch):
    import sqlalchemy as sa

    def away(*_):
        raise sa.exc.OperationalError("", {}, OSError())

    with pacs() as archive:
        it = ward(archive, "commitment")
        listening = it.listen()
        monkeypatch.setattr(it.node.ledger.engine, "begin", away)
        report = Dataset()
        report.TransactionUID = "1.2.3"
        assert archive.report(listening, report) == 0x0110


class Attempts:
    """Two destinations with three deliveries each: one is there, the other is not."""

    def __init__(self, hospital: Hospital, folder: Path) -> None:
        self.ledger = hospital.node.ledger
        there = hospital.node.config.destination[0].model_copy(update={"proof": "none"})
        self.port = free_port()
        down = there.model_copy(update={"name": "down", "port": self.port})
        self.config = hospital.node.config.model_copy(update={"destination": (down, there)})
        hospital.node = replace(build(self.config), load=hospital.node.load)
        for number in "123":
            hospital.assemble(hospital.receive(neck(folder / number, study=number)))
            assert hospital.infer()

    def of(self, name: str) -> list[tuple[str, int]]:
        tasks = self.ledger.rows(schema.task, kind="deliver", name=name)
        return [(task["state"], task["attempts"]) for task in tasks]

    @contextmanager
    def sending(self) -> Iterator[None]:
        life = Life("sender")
        sender = threading.Thread(target=roles.send, args=(self.config, life))
        sender.start()
        yield
        life.stop.set()
        sender.join()


@pytest.mark.fault(10, "e")
def test_a_destination_that_is_down_is_tried_with_one_delivery_and_gets_all_once_it_is_back(tmp_path, monkeypatch):
    hospital = Hospital(tmp_path)
    attempts = Attempts(hospital, tmp_path)
    monkeypatch.setattr("dicomnode.node.RETRY_SECONDS", (3600.0, 3600.0))
    with attempts.sending():
        soon("the other destination", lambda: attempts.of("archive") == [("done", 0)] * 3, 60)
        soon("one try", lambda: ("ready", 1) in attempts.of("down"), 60)
    assert sorted(attempts.of("down")) == [("ready", 0), ("ready", 0), ("ready", 1)]
    monkeypatch.setattr("dicomnode.node.RETRY_SECONDS", (0.1, 0.1))
    attempts.ledger.retry(destination="down")
    with attempts.sending():
        soon("more tries", lambda: sum(count for _, count in attempts.of("down")) > 3, 60)
        back = Listener(hospital.archive, host="127.0.0.1", port=attempts.port)
        soon("all deliveries", lambda: {state for state, _ in attempts.of("down")} == {"done"}, 60)
    back.stop()
    hospital.go_offline()
