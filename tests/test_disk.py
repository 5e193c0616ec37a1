"""A disk that fills up: senders are turned away in time, nothing acknowledged is lost, and room heals everything."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest
from pynetdicom.sop_class import CTImageStorage, Verification

from dicomnode import disk
from dicomnode.config import Limits
from dicomnode.disk import Room
from dicomnode.errors import Transient
from dicomnode.network.send import send
from dicomnode.spool import digest_of
from dicomnode.task import NewTask
from tests.receivers import Running, associate_request, association_to, ct_bytes, ct_file, pdata, status_of, value
from tests.receivers import store_command as command

MB = 1 << 20


@pytest.fixture
def free(monkeypatch) -> Callable[..., None]:
    """Sets the free space that the machine reports, on a disk of 1 TB unless told."""
    monkeypatch.setattr(disk, "CHECK_SECONDS", 0.0)

    def report(mb: float, *, total_mb: int = MB) -> None:
        usage = SimpleNamespace(free=int(mb * MB), total=total_mb * MB)
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)

    report(5000)
    return report


@pytest.mark.parametrize(
    ("mb", "total_mb", "expected"),
    [
        (1024, MB, Room.ENOUGH),
        (1023, MB, Room.LOW),
        (512, MB, Room.LOW),
        (511, MB, Room.NONE),
        (0, MB, Room.NONE),
        (10, 100, Room.ENOUGH),  # of a small disk, a tenth
        (9, 100, Room.LOW),
        (4, 100, Room.NONE),
    ],
)
def test_the_mark_and_half_of_it_part_the_states(free, tmp_path, mb, total_mb, expected):
    free(mb, total_mb=total_mb)
    assert disk.room(tmp_path, 1024) is expected


def test_a_change_is_logged_once(free, tmp_path, caplog):
    watch = disk.Watch(tmp_path, 1024)
    for mb in (5000, 1000, 900, 100, 5000, 5000):
        free(mb)
        watch.room()
    assert [record.message for record in caplog.records] == [Room.LOW, Room.NONE, "the disk has room again"]


@pytest.mark.fault(5, "a")
def test_new_senders_are_turned_away_first_and_open_associations_later(free, tmp_path):
    running = Running(tmp_path / "data", limits=Limits(free_mb=1000))
    first, second, third = (pydicom.dcmread(ct_file(tmp_path, sop_uid=f"1.2.3.{n}")) for n in range(3))
    with association_to(running) as peer:
        free(999)
        with pytest.raises(Transient, match="Local limit exceeded"):
            send([ct_file(tmp_path)], running.address, calling_ae="TEST")
        assert peer.send_c_store(first).Status == 0x0000
        free(499)
        reply = peer.send_c_store(second)
        assert (reply.Status, reply.ErrorComment) == (0xA700, Room.NONE)
        assert running.still_works(), "an association for C-ECHO alone is accepted and answered"
        free(5000)
        assert peer.send_c_store(third).Status == 0x0000
    assert [o.problem for o in send([ct_file(tmp_path)], running.address, calling_ae="TEST")] == [""]
    assert set(running.stored()) == {"1.2.3.0", "1.2.3.2", "1.2.3"}
    running.listener.stop()


@pytest.mark.parametrize(("sop_class", "answer"), [(Verification, 0x02), (CTImageStorage, 0x03)])
def test_on_a_full_disk_only_a_verification_is_accepted(free, tmp_path, sop_class, answer):
    running = Running(tmp_path / "data")
    free(0)
    with running.connection() as sock:
        sock.sendall(associate_request(sop_class))
        reply = sock.recv(65536)
    assert reply[0] == answer
    if answer == 0x03:
        assert (reply[7], reply[8], reply[9]) == (2, 3, 2)  # transient, by the presentation service, local limit
    running.listener.stop()


@pytest.mark.fault(5, "a")
def test_a_disk_that_fills_up_inside_an_image_refuses_this_image_and_leaves_nothing_of_it(free, tmp_path):
    running = Running(tmp_path / "data")
    data = ct_bytes(tmp_path)
    with running.associated() as sock:
        sock.sendall(pdata(value(command())) + pdata(value(data[:9000], control=0x00)))
        free(100)
        sock.sendall(pdata(value(data[9000:], control=0x02)))
        assert status_of(sock.recv(65536)) == 0xA700
    assert running.files() == set()
    running.listener.stop()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def leave(folder: Path, mb: float) -> None:
    """Fill a file system until so much is free."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    with filler.open("wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - int(mb * MB)))


@pytest.mark.fault(5, "a")
def test_a_real_disk_that_fills_up_loses_nothing_keeps_the_ledger_going_and_heals(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "CHECK_SECONDS", 0.0)
    running = Running(small_disk / "data")
    files = [ct_file(tmp_path, sop_uid=f"1.2.3.{n}", study_uid="1.2") for n in range(40)]
    with association_to(running) as peer:
        assert peer.send_c_store(pydicom.dcmread(files[0])).Status == 0x0000
        leave(small_disk, 2.5)  # between a tenth and a twentieth of the disk
        with pytest.raises(Transient, match="Local limit exceeded"):
            send(files[1:], running.address, calling_ae="TEST")
        statuses = [peer.send_c_store(pydicom.dcmread(path)).Status for path in files[1:]]
    taken = statuses.count(0x0000)
    assert taken > 5
    assert statuses == [0x0000] * taken + [0xA700] * (39 - taken)
    assert len(running.stored()) == 1 + taken
    assert not list(running.spool.incoming.iterdir())
    assert running.still_works()
    infer = NewTask(kind="infer", name="p", digest="d", payload={})
    assert running.ledger.release(running.ledger.study("1.2"), because="all", selection=[], tasks=[infer])
    assert running.ledger.lease("infer", "w") is not None, "what is in the house is worked on"
    (small_disk / "filler").unlink()
    assert {o.problem for o in send(files, running.address, calling_ae="TEST")} == {""}
    assert all(digest_of(instance) == instance.sha256 for instance in running.ledger.instances())
    assert len(running.stored()) == 40
    running.listener.stop()
    running.ledger.engine.dispose()
