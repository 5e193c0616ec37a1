"""A study on its way through the three steps while something goes wrong: it arrives, once, without help."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

import inference.pipeline
from dicomnode import clock, ledger, node, roles, schema
from dicomnode.config import CONFIG_DIR
from dicomnode.errors import ConfigError
from dicomnode.network.archive import Archive
from dicomnode.process import read_studies
from dicomnode.supervise import Life
from tests.receivers import soon
from tests.test_node import NAME, Hospital, _no_space, neck

#: The steps that a study has behind it at each moment.
MOMENTS = {"b": 0, "c": 1, "e": 2, "g": 3}
HOUR = 3600.0


@pytest.fixture
def ward(tmp_path, monkeypatch) -> Iterator[Hospital]:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.1)
    it = Hospital(tmp_path)
    yield it
    it.go_offline()


def advance(ward: Hospital, uid: str, steps: int) -> None:
    """Take the first steps of a study."""
    for step in (lambda: ward.assemble(uid), ward.infer, ward.deliver)[:steps]:
        step()


def finish(ward: Hospital, uid: str) -> None:
    """Do everything there is to do; the study must end with one set of results in the archive."""
    if ward.row(uid)["state"] == "receiving":
        ward.assemble(uid)
    while ward.infer() or ward.deliver():
        pass
    assert ward.row(uid)["state"] == "done"
    names = sorted(name.split()[0] for name, _ in ward.archive.stored.values())
    assert names == ["Comprehensive", "Secondary", "Segmentation"]


@contextlib.contextmanager
def locked(book: ledger.Ledger) -> Iterator[None]:
    """Another program holds the database's write lock."""
    with book.engine.connect() as other, other.begin():
        yield


@pytest.mark.fault(7, "bcde")
@pytest.mark.parametrize("steps", range(3))
def test_a_step_that_cannot_write_to_the_database_is_done_later(ward, tmp_path, steps):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, steps)
    with locked(ward.node.ledger), pytest.raises(sa.exc.OperationalError, match="locked"):
        advance(ward, uid, 1) if steps == 0 else ward.infer() if steps == 1 else ward.deliver()
    finish(ward, uid)


@pytest.mark.fault(7, "de")
@pytest.mark.parametrize("kind", ["infer", "deliver"])
def test_work_that_is_done_but_cannot_be_noted_is_done_again_and_changes_nothing(ward, tmp_path, kind):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, 1 if kind == "infer" else 2)
    task = ward.node.ledger.lease(kind, "w")
    with locked(ward.node.ledger), pytest.raises(sa.exc.OperationalError, match="locked"):
        if kind == "infer":
            node.infer(ward.node, task)
        else:
            node.deliver(ward.node, task, ward.node.config.destination[0])
    before = set(ward.archive.stored)
    ward.node.ledger.release_owner("w", died=None)  # as after the lease
    finish(ward, uid)
    assert before <= set(ward.archive.stored)


@pytest.mark.fault(7, "e")
def test_the_sender_goes_on_after_the_database_was_away(ward, tmp_path, monkeypatch, caplog):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, 2)
    monkeypatch.setattr(roles, "build", lambda _: ward.node)
    life = Life("test")
    sender = threading.Thread(target=roles.send, args=(ward.node.config, life))
    with locked(ward.node.ledger):
        sender.start()
        soon("the failure", lambda: "the ledger cannot be asked for work" in caplog.text, seconds=60)
    soon("the delivery", lambda: ward.row(uid)["state"] == "done", seconds=60)
    life.stop.set()
    sender.join(20)


@pytest.mark.fault(7, "s")
@pytest.mark.parametrize("offset", [0, 100, 4096 * 2])
def test_a_damaged_ledger_is_refused_at_the_start_and_the_images_stay(ward, tmp_path, offset):
    ward.receive(neck(tmp_path, slices=40))
    ward.node.ledger.engine.dispose()
    file = ward.node.config.data_dir / "ledger.sqlite"
    with file.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xa5" * 2000)
    with pytest.raises(ConfigError, match="damaged|cannot open the database"):
        schema.check(ledger.connect(ward.node.config.ledger_url).engine)


@pytest.mark.fault(25, "bcde")
@pytest.mark.parametrize("steps", range(3))
def test_a_ledger_of_a_newer_version_is_refused_with_its_work_untouched(ward, tmp_path, steps):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, steps)
    book = ward.node.ledger

    def version(number: int) -> None:
        with book.engine.begin() as db:
            db.execute(sa.update(schema.meta).values(schema_version=number))

    def content() -> list[list[sa.RowMapping]]:
        return [book.rows(table) for table in schema.metadata.sorted_tables if table is not schema.meta]

    before = content()
    version(schema.VERSION + 1)
    with pytest.raises(ConfigError, match="schema"):
        ledger.connect(ward.node.config.ledger_url)
    version(schema.VERSION)
    assert content() == before
    finish(ward, uid)


@pytest.mark.fault(14, "bceg")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_study_that_is_sent_again_is_answered_once(ward, tmp_path, moment):
    files = neck(tmp_path)
    uid = ward.receive(files)
    advance(ward, uid, MOMENTS[moment])
    for association in ("again-1", "again-2"):
        send_again(ward, files, association)
    finish(ward, uid)


@pytest.mark.fault(14, "df")
@pytest.mark.parametrize("kind", ["infer", "deliver"])
def test_a_study_that_is_sent_again_while_a_step_runs_is_answered_once(ward, tmp_path, kind):
    files = neck(tmp_path)
    uid = ward.receive(files)
    advance(ward, uid, 1 if kind == "infer" else 2)
    task = ward.node.ledger.lease(kind, "w")
    send_again(ward, files, "again")
    if kind == "infer":
        node.infer(ward.node, task)
    else:
        node.deliver(ward.node, task, ward.node.config.destination[0])
    finish(ward, uid)


def send_again(ward: Hospital, files: list[Path], association: str) -> None:
    [study] = read_studies(files, lambda path, why: pytest.fail(f"{path}: {why}"))
    for instance in study.instances:
        copy = replace(instance, sha256=instance.sop_uid)
        assert not ward.node.ledger.file_instance(copy, association=association, calling_ae="CT1")
    ward.node.ledger.end_association(association, "released")


@pytest.mark.fault(10, "g")
@pytest.mark.fault(3, "g")
def test_results_that_an_archive_stored_and_did_not_acknowledge_are_sent_again_under_the_same_uids(
    ward, tmp_path, monkeypatch
):  # fmt: skip
    keep = Archive._keep

    def keep_and_fail(*arguments) -> None:
        keep(*arguments)
        raise OSError(5, "Input/output error")

    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "_keep", keep_and_fail)
        assert ward.deliver()
    first = set(ward.archive.stored)
    assert len(first) == 3
    assert ward.row(uid)["state"] == "delivering"
    ward.node.ledger.retry(uid)
    finish(ward, uid)
    assert set(ward.archive.stored) == first


@pytest.mark.fault(3, "e")
def test_results_are_on_the_disk_before_their_rows_are(ward, tmp_path, monkeypatch):
    events: list[str] = []
    flush, commit = os.fsync, ledger.Ledger.finish_analysis

    def note_flush(descriptor: int) -> None:
        flush(descriptor)
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def note_commit(*arguments, **named) -> None:
        events.append("rows")
        commit(*arguments, **named)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(ledger.Ledger, "finish_analysis", note_commit)
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, 2)
    before = events[: events.index("rows")]
    for row in ward.node.ledger.rows(schema.result):
        path = Path(row["path"])
        written = before.index(str(path.with_name(f".{path.name}.part")))
        assert str(path.parent) in before[written:]


def fail_twice(ward: Hospital, uid: str) -> None:
    """Let the analysis fail, be tried once more at once, and the report be delivered."""
    advance(ward, uid, 2)
    assert ward.row(uid)["state"] == "analysing", "it is tried once more"
    ward.node.ledger.retry(uid)
    assert ward.infer() and ward.deliver()


@pytest.mark.fault(9, "d")
@pytest.mark.parametrize("kind", ["OutOfMemoryError", "AcceleratorError"])
def test_a_gpu_that_fails_costs_the_study_a_failure_report_and_nothing_else(ward, tmp_path, kind):
    import torch

    def lost(_volume):
        raise getattr(torch, kind)("CUDA error")

    usual, ward.model = ward.model, lost
    uid = ward.receive(neck(tmp_path))
    fail_twice(ward, uid)
    assert ward.row(uid)["state"] == "failed"
    assert [kind in text for text in ward.reports()] == [True]
    ward.model = usual
    other = ward.receive(neck(tmp_path / "other", study="2"))
    ward.assemble(other)
    assert ward.infer() and ward.deliver()
    assert ward.row(other)["state"] == "done"


@pytest.mark.fault(9, "d")
def test_a_worker_whose_gpu_is_lost_ends_because_only_a_new_process_can_have_it_back(ward, tmp_path, monkeypatch):
    import torch

    def refuse() -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(roles, "build", lambda _: ward.node)
    monkeypatch.setattr(roles, "limit_memory", lambda _: None)  # it would be ours
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    ward.assemble(ward.receive(neck(tmp_path)))
    roles.work(ward.node.config, Life("w"))
    assert [task["state"] for task in ward.node.ledger.rows(schema.task, kind="infer")] == ["done"]


@pytest.mark.fault(24, "d")
def test_a_model_that_was_changed_on_the_disk_is_not_run_and_the_report_says_why(ward, tmp_path):
    config = shutil.copytree(CONFIG_DIR, tmp_path / "config")
    weights = next((config / "models" / NAME).glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    ward.node = replace(ward.node, load=lambda name: inference.pipeline.load(name, config, "cpu"))
    uid = ward.receive(neck(tmp_path))
    fail_twice(ward, uid)
    assert ward.row(uid)["state"] == "failed"
    assert "SHA-256" in ward.row(uid)["reason"]


@pytest.mark.fault(22, "bcdef")
@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_that_is_set_releases_nothing_early_and_holds_nothing_up(ward, tmp_path, monkeypatch, jump):
    real, jumps = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + sum(jumps))

    def set_the_clock() -> None:
        jumps.append(jump)

    book = ward.node.ledger
    files = neck(tmp_path)
    uid = ward.receive(files[:-1])
    with book.engine.begin() as db:
        db.execute(sa.update(schema.transfer).values(ending="open"))
    set_the_clock()  # b
    ward.assemble(uid)
    assert ward.row(uid)["state"] == "receiving", "its association is open"
    ward.receive(files)
    ward.assemble(uid)
    set_the_clock()  # c
    task = book.lease("infer", "w")
    set_the_clock()  # d
    assert book.lease("infer", "another") is None
    node.infer(ward.node, task)
    set_the_clock()  # e
    delivery = book.lease("deliver", "s")
    set_the_clock()  # f
    assert book.lease("deliver", "another") is None
    node.deliver(ward.node, delivery, ward.node.config.destination[0])
    finish(ward, uid)


def test_the_clock_is_the_time_of_day_and_shared_by_processes():
    assert abs(clock.now() - time.time()) < 5
    code = "import time; time.time = lambda: 0.0\nfrom dicomnode import clock\nprint(clock.now())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert abs(float(child.stdout) - clock.now()) < 60


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.fault(6, "e")
@pytest.mark.fault(5, "ce")
@pytest.mark.parametrize("how", ["ro", "full"])
def test_a_disk_that_takes_nothing_holds_the_work_until_it_does(tmp_path, how):
    with small_disk(tmp_path / "disk", "16m") as disk:
        ward = Hospital(disk)
        uid = ward.receive(neck(tmp_path))
        ballast = disk / "ballast"

        def block() -> None:
            if how == "ro":
                ward.node.ledger.engine.dispose()  # what is open for writing cannot be remounted
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            else:
                with contextlib.suppress(OSError), ballast.open("wb") as file:
                    while True:
                        file.write(bytes(65536))

        def free() -> None:
            if how == "ro":
                subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            else:
                ballast.unlink()

        for steps in (1, 2):  # c: its release; e: its results
            block()
            with pytest.raises((sa.exc.OperationalError, OSError)):
                advance(ward, uid, 1) if steps == 1 else ward.infer()
            free()
            ward.node.ledger.release_owner("w", died=None)
            if steps == 1:
                ward.assemble(uid)
        finish(ward, uid)
        ward.go_offline()
        ward.node.ledger.engine.dispose()


def test_what_an_analysis_had_written_when_it_was_cut_off_goes_when_a_newer_one_is_done(ward, tmp_path, monkeypatch):
    files = neck(tmp_path, slices=30)
    uid = ward.receive(files[:25])
    ward.assemble(uid)
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "finish_analysis", lambda *_, **__: _no_space())
        with pytest.raises(OSError, match="No space"):
            ward.infer()
    ward.node.ledger.release_owner("w", died=None)
    ward.receive(files)
    ward.assemble(uid)
    assert ward.infer()
    results = ward.node.spool.results_folder(uid)
    assert {str(path) for path in results.iterdir()} == {r["path"] for r in ward.node.ledger.rows(schema.result)}
