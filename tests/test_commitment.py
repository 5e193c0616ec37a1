"""Reports that are damaged, too long or not expected are answered or cut off, and never end the receiver."""

from __future__ import annotations

import socket
import struct
from contextlib import closing

import pytest

from dicomnode.errors import Refused
from dicomnode.network import association
from dicomnode.network.archive import Archive
from dicomnode.network.commitment import Report, read
from dicomnode.network.listen import Listener
from tests.receivers import associate_request, closed_by_peer, numbers, pdata, status_of, value

LITTLE = "1.2.840.10008.1.2"
TRANSACTION = struct.pack("<HHL", 0x0008, 0x1195, 6) + b"1.2.3\0"


def event_report(*, dataset: int = 1) -> bytes:
    return numbers(kind=0x0100, message_id=3, dataset=dataset)


@pytest.mark.parametrize("data", [b"", b"\x08\x00", TRANSACTION[:-3], TRANSACTION + b"junk", b"\xff" * 200])
def test_a_damaged_report_is_answered_with_its_status(receiver, data):
    with closing(receiver.associated()) as sock:
        sock.sendall(pdata(value(event_report())) + pdata(value(data, control=0x02)))
        assert status_of(sock.recv(65536)) == Refused.INVALID_ARGUMENT


def test_a_report_without_a_data_set_is_answered(receiver):
    with closing(receiver.associated()) as sock:
        sock.sendall(pdata(value(event_report(dataset=0x0101))))
        assert status_of(sock.recv(65536)) == Refused.INVALID_ARGUMENT


def test_a_report_that_does_not_end_is_cut_off(receiver, monkeypatch):
    monkeypatch.setattr(association, "MAX_REPORT_BYTES", 1000)
    with closing(receiver.associated()) as sock:
        sock.sendall(pdata(value(event_report())) + pdata(value(bytes(2000), control=0x00)))
        assert closed_by_peer(sock)


def test_who_asked_for_no_commitment_takes_no_report(tmp_path):
    listener = Listener(Archive(tmp_path, "DICOMNODE"), host="127.0.0.1", port=0)
    with closing(socket.create_connection(("127.0.0.1", listener.port), timeout=10)) as sock:
        sock.sendall(associate_request("1.2.840.10008.5.1.4.1.1.2"))
        assert sock.recv(65536)[0] == 0x02
        sock.sendall(pdata(value(event_report())) + pdata(value(TRANSACTION, control=0x02)))
        assert status_of(sock.recv(65536)) == Refused.UNSUPPORTED_OPERATION
    listener.stop()


def test_what_a_report_names_as_failed_counts_even_if_it_is_also_named_as_held():
    report = Report(transaction_uid="1", held=frozenset({"1.1", "1.2"}), failed={"1.2": "0112 no such object"})
    assert report.lacking(["1.1", "1.2"]) == {"1.2": "0112 no such object"}
    assert report.lacking(["1.1"]) == {}


def test_a_report_names_its_transaction():
    assert read(TRANSACTION, LITTLE).transaction_uid == "1.2.3"
