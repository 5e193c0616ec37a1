"""Acknowledged means durable, whatever happens around it: many senders, a disk or a database that fails, a restart."""

from __future__ import annotations

import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa

from dicomnode import ledger, receive, schema
from dicomnode.config import Config, Receive
from dicomnode.errors import Transient
from dicomnode.header import read_instance
from dicomnode.network.association import Peer
from dicomnode.network.echo import echo
from dicomnode.network.send import Address, send
from dicomnode.spool import Part, digest_of
from dicomnode.supervise import Life
from tests.receivers import Running, association_to, ct_bytes, ct_file, pdata, soon, store_command, value


@pytest.fixture
def receiver(tmp_path):
    running = Running(tmp_path / "data")
    yield running
    assert running.still_works(), "whatever the test did, the next association is served"
    running.listener.stop()


def send_all(paths: list[Path], receiver: Running) -> list[str]:
    """The problems with their comments, empty for what was acknowledged."""
    return [f"{o.problem}: {o.comment}" if o.problem else "" for o in send(paths, receiver.address, calling_ae="TEST")]


def known_files(receiver: Running) -> set[Path]:
    return {instance.path for instance in receiver.ledger.instances()}


def test_parallel_associations_lose_nothing_and_leave_no_file_that_nobody_knows(receiver, tmp_path):
    parts = [
        [ct_file(tmp_path / f"{n}", sop_uid=f"1.2.3.{n}.{k}", study_uid=f"1.2.{n % 3}") for k in range(8)]
        for n in range(12)
    ]
    with ThreadPoolExecutor(12) as senders:
        problems = [p for found in senders.map(lambda paths: send_all(paths, receiver), parts) for p in found]
    assert problems == [""] * 96
    assert receiver.stored() == {
        instance.sop_uid: digest_of(instance) for paths in parts for instance in map(read_instance, paths)
    }
    assert receiver.files() == known_files(receiver)


@pytest.mark.fault(14, "b")
def test_the_same_images_over_several_associations_at_once_are_acknowledged_everywhere_and_kept_once(
    receiver, tmp_path
):
    paths = [ct_file(tmp_path, sop_uid=f"1.2.3.{n}") for n in range(6)]
    with ThreadPoolExecutor(6) as senders:
        problems = [p for found in senders.map(lambda _: send_all(paths, receiver), range(6)) for p in found]
    assert problems == [""] * 36
    assert len(receiver.stored()) == 6
    assert receiver.files() == known_files(receiver)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.fault(3, "b")
def test_a_copy_is_not_acknowledged_before_the_first_one_is_durable(receiver, tmp_path, monkeypatch, broken):
    """Else a power cut, or a flush that fails, takes an image whose second sender was told that it is safe."""
    flush, first_begun, go_on = Part.flush, threading.Event(), threading.Event()

    def slow_first(part: Part) -> None:
        if not first_begun.is_set():
            first_begun.set()
            assert go_on.wait(20)
            if broken:
                raise OSError(5, "Input/output error")
        flush(part)

    monkeypatch.setattr(Part, "flush", slow_first)
    path = ct_file(tmp_path)
    with ThreadPoolExecutor(2) as senders:
        first = senders.submit(send_all, [path], receiver)
        assert first_begun.wait(20)
        second = senders.submit(send_all, [path], receiver)
        soon("both copies", lambda: second.done() or len(receiver.kept()) == 2, seconds=5)
        assert not second.done()
        go_on.set()
        problems = [first.result(20)[0], second.result(20)[0]]
    acknowledged = "" in problems
    assert acknowledged == bool(receiver.stored()), problems
    assert problems[0].startswith("refused with status A700") == broken
    assert receiver.files() == known_files(receiver)


@pytest.mark.fault(7, "a")
def test_a_database_that_is_busy_for_too_long_refuses_with_out_of_resources_and_heals(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.2)
    running = Running(tmp_path / "data")
    path = ct_file(tmp_path)
    with running.ledger.engine.connect() as other, other.begin():
        other.execute(sa.text("SELECT 1"))  # BEGIN IMMEDIATE: nobody else may write
        with association_to(running) as peer:
            reply = peer.send_c_store(pydicom.dcmread(path))
            assert reply.Status == 0xA700
            assert "database" in reply.ErrorComment
            other.rollback()
            assert peer.send_c_store(pydicom.dcmread(path)).Status == 0x0000
    assert running.files() == known_files(running)
    running.listener.stop()


@pytest.mark.fault(6, "a")
def test_a_spool_that_cannot_be_written_refuses_with_out_of_resources_and_heals(receiver, tmp_path, monkeypatch):
    path = ct_file(tmp_path)

    def full(*_arguments) -> None:
        raise OSError(28, "No space left on device")

    for method in ("write", "keep"):
        with monkeypatch.context() as patch:
            patch.setattr(Part, method, full)
            [problem] = send_all([path], receiver)
        assert problem.startswith("refused with status A700: storage failed: No space left on device")
        assert receiver.files() == known_files(receiver) == set()
    assert send_all([path], receiver) == [""]


@pytest.mark.fault(3, "b")
def test_nothing_is_acknowledged_whose_row_is_not_committed(receiver, tmp_path, monkeypatch):
    def lost(*_arguments, **_options) -> bool:
        raise sa.exc.OperationalError("INSERT", {}, Exception("disk I/O error"))

    path = ct_file(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(type(receiver.ledger), "_touch_study", lost)
        [problem] = send_all([path], receiver)
    assert problem.startswith("refused with status A700")
    assert receiver.files() == known_files(receiver) == set()


def test_what_the_receiver_writes_is_for_its_own_user_only(receiver, tmp_path):
    send_all([ct_file(tmp_path)], receiver)
    folders = {path.parent for path in receiver.files()} | {receiver.spool.root}
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)


@pytest.mark.fault(27, "s")
def test_names_from_the_network_reach_no_path(receiver, tmp_path):
    for number, uid in enumerate(["../../../escaped", "/escaped", "1.2.3/../../escaped", "1.2.3\\..", "1.2.3\0x"]):
        data = ct_bytes(tmp_path / f"{number}")
        assert receiver.raw_store(data, sop_uid=uid) != 0x0000
    assert not list(tmp_path.rglob("*escaped*"))
    assert receiver.files() == set()


class Serving:
    """receive.run in a thread, as its own process runs it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.config = Config(data_dir=folder, receive=Receive(host="127.0.0.1", port=port))
        self.address = Address(ae_title="DICOMNODE", host="127.0.0.1", port=port)
        self.life = Life("test/receiver/1")
        self.thread = threading.Thread(target=receive.run, args=(self.config, self.life))

    def __enter__(self) -> Serving:
        self.config.data_dir.mkdir(exist_ok=True)
        self.thread.start()
        soon("the receiver", self.answers)
        return self

    def answers(self) -> bool:
        try:
            return echo(self.address, calling_ae="TEST") > 0
        except Transient:
            return False

    def __exit__(self, *_error: object) -> None:
        self.life.stop.set()
        self.thread.join(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.fault(3, "b")
def test_a_start_sweeps_what_was_half_received_and_forgets_what_did_not_reach_the_disk(tmp_path):
    whole, torn = (ct_file(tmp_path, sop_uid=uid, study_uid=uid) for uid in ("1.2.3.1", "1.2.3.2"))
    folder = tmp_path / "data"
    with Serving(folder, free_port()) as serving:
        book = ledger.connect(serving.config.ledger_url)
        for path in (whole, torn):
            assert [o.problem for o in send([path], serving.address, calling_ae="TEST")] == [""]
        soon("the endings", lambda: {t["ending"] for t in book.rows(schema.transfer)} == {"released"})
    # As a power cut leaves it: an open association, a row whose bytes are not all there, a half-received file.
    kept = {instance.sop_uid: instance for instance in book.instances()}
    with book.engine.begin() as db:
        db.execute(sa.update(schema.transfer).values(ending="open"))
    os.truncate(kept["1.2.3.2"].path, 500)
    incoming = folder / "spool" / "incoming"
    (incoming / "left.part").write_bytes(b"half")
    # As a kill leaves it: one file before its row is written, one after, both still arriving.
    unrecorded = kept["1.2.3.1"].path.with_name("unrecorded.dcm")
    unrecorded.write_bytes(b"whole")
    for path in (unrecorded, kept["1.2.3.1"].path):
        (incoming / f"{path.stem}.part").hardlink_to(path)
    with Serving(folder, free_port()) as serving:
        assert [instance.sop_uid for instance in book.instances()] == ["1.2.3.1"]
        assert not list(incoming.iterdir())
        assert not unrecorded.exists()
        assert {t["ending"] for t in book.rows(schema.transfer)} == {"lost"}
        assert [o.problem for o in send([torn], serving.address, calling_ae="TEST")] == [""]
    assert {instance.sop_uid: digest_of(instance) for instance in book.instances()} == {
        uid: digest_of(replace(instance, path=path))
        for (uid, instance), path in zip(sorted(kept.items()), (whole, torn), strict=True)
    }


def test_log_lines_of_every_outcome_hold_no_patient_data(receiver, tmp_path, caplog):
    caplog.set_level("DEBUG", logger="dicomnode")
    secret = {"PatientName": "SECRET^NAME", "PatientID": "SECRETID", "StudyDescription": "SECRETTEXT"}
    path, other = (ct_file(tmp_path, InstanceNumber=n, **secret) for n in (1, 2))
    data = ct_bytes(tmp_path / "raw", **secret)
    assert [p[:24] for p in send_all([path, path, other], receiver)] == ["", "", "refused with status A900"]
    assert receiver.raw_store(data[:-1]) == 0xC000
    assert receiver.raw_store(data, sop_uid="1.2.4") == 0xA900
    with receiver.associated() as sock:
        sock.sendall(pdata(value(store_command())) + pdata(value(data, control=0x01)))
        assert sock.recv(100)[:1] in (b"\x07", b"")
    soon("the log", lambda: "association aborted" in caplog.text)
    lines = [json.dumps({k: str(v) for k, v in vars(r).items()}) for r in caplog.records if r.name[:9] == "dicomnode"]
    assert not [line for line in lines if "SECRET" in line]
    assert [(r.status, r.why) for r in caplog.records if r.msg == "instance refused"] == [
        ("A900", "another data set with this SOP Instance UID is already stored"),
        ("C000", "truncated inside (FFFC,FFFC)"),
        ("A900", "SOP class or instance differs from the C-STORE request"),
    ]
    assert sorted(r.refused for r in caplog.records if r.msg == "association ended") == [0, 1, 1, 1]


def test_a_reason_to_refuse_is_logged_once_in_an_association_and_a_flood_of_reasons_is_not(receiver, tmp_path, caplog):
    caplog.set_level("INFO", logger="dicomnode")
    send_all([ct_file(tmp_path, InstanceNumber=n) for n in range(4)], receiver)
    soon("the end", lambda: "association ended" in caplog.text)
    [refused, ended] = [r for r in caplog.records if r.msg in ("instance refused", "association ended")][-2:]
    assert (refused.association, refused.status) == (ended.association, "A900")
    assert ended.refused == 3
    caplog.clear()
    acceptor = receive.Receiver(Config(data_dir=tmp_path), receiver.spool, receiver.ledger, receiver.trail)
    peer = Peer(association="a", address="", calling_ae="PACS", called_ae="DICOMNODE", only_verifies=False)
    for number in range(100):
        acceptor.refused(peer, 0xC000, f"truncated inside ({number:04X},0010)")
    acceptor.ended(peer, "released")
    assert len([r for r in caplog.records if r.msg == "instance refused"]) == receive.REASONS + 1
    assert caplog.records[-1].refused == 100
