"""The demo's archive: keeps what it is sent, the newest copy of each instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import CTImageStorage

from dicomnode.errors import Transient
from dicomnode.network.archive import Archive
from dicomnode.network.listen import Listener
from dicomnode.network.send import Address, send
from dicomnode.spool import dataset_offset
from tests.receivers import ct_file


@contextmanager
def archive(folder: Path) -> Iterator[tuple[Archive, Address]]:
    store = Archive(folder / "archive", "ARCHIVE")
    listener = Listener(store, host="127.0.0.1", port=0)
    yield store, Address(ae_title="ARCHIVE", host="127.0.0.1", port=listener.port)
    listener.stop()


def data_of(path: Path) -> bytes:
    return path.read_bytes()[dataset_offset(path) :]


def test_what_is_sent_lies_there_with_the_name_of_its_class(tmp_path):
    paths = [ct_file(tmp_path, sop_uid=f"1.2.3.{n}") for n in range(3)]
    with archive(tmp_path) as (store, address):
        assert not any(outcome.problem for outcome in send(paths, address, calling_ae="ANYONE"))
        stored = store.stored
    assert sorted(stored) == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert {name for name, _ in stored.values()} == {CTImageStorage.name}
    assert [data_of(stored[f"1.2.3.{n}"][1]) for n in range(3)] == [data_of(path) for path in paths]


def test_the_newest_copy_counts(tmp_path):
    old, new = (ct_file(tmp_path, InstanceNumber=number) for number in (1, 2))
    with archive(tmp_path) as (store, address):
        send([old], address, calling_ae="ANYONE")
        send([new], address, calling_ae="ANYONE")
        [(_, path)] = store.stored.values()
    assert pydicom.dcmread(path).InstanceNumber == 2


def test_it_answers_to_its_own_title_only(tmp_path):
    with archive(tmp_path) as (store, address):
        other = Address(ae_title="PACS", host=address.host, port=address.port)
        with pytest.raises(Transient, match="Called AE title not recognised"):
            send([ct_file(tmp_path)], other, calling_ae="ANYONE")
        assert store.stored == {}
