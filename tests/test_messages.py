"""Messages to the receiver: however they are cut into PDUs, each is answered once and with the right status."""

from __future__ import annotations

import struct
from contextlib import closing

import pytest
from pynetdicom.sop_class import MRImageStorage, Verification

from tests.receivers import closed_by_peer, ct_bytes, echo_command, pdata, status_of, store_command, value


def test_command_and_data_set_may_come_in_one_pdu_or_in_pieces_of_any_size(receiver, tmp_path):
    data = ct_bytes(tmp_path, sop_uid="1.2.3")
    command = store_command()
    together = pdata(value(command), value(data, control=0x02))
    crumbs = b"".join(pdata(value(command[n : n + 3], control=0x01)) for n in range(0, len(command), 3))
    crumbs += pdata(value(b"")) + pdata()
    crumbs += b"".join(pdata(value(data[n : n + 997], control=0x00)) for n in range(0, len(data), 997))
    crumbs += pdata(value(b"", control=0x02))
    for message in (together, crumbs):
        with closing(receiver.associated()) as sock:
            sock.sendall(message)
            assert status_of(sock.recv(65536)) == 0x0000
    assert len(receiver.stored()) == 1


def test_bytes_that_come_one_by_one_are_the_same_message(receiver):
    with closing(receiver.associated(Verification)) as sock:
        for byte in pdata(value(echo_command())):
            sock.sendall(bytes([byte]))
        assert status_of(sock.recv(65536)) == 0x0000


def test_requests_sent_without_waiting_for_answers_are_all_answered_in_order(receiver, tmp_path):
    messages = [
        pdata(value(store_command(sop_uid=uid)), value(ct_bytes(tmp_path / uid, sop_uid=uid), control=0x02))
        for uid in ("1.2.3.1", "1.2.3.2", "1.2.3.3")
    ]
    with closing(receiver.associated()) as sock:
        sock.sendall(b"".join(messages) + struct.pack(">BBL4x", 0x05, 0, 4))
        replies = b""
        while part := sock.recv(65536):
            replies += part
            if replies.endswith(struct.pack(">BBL4x", 0x06, 0, 4)):
                break
    assert [f"1.2.3.{n}" for n in (1, 2, 3)] == sorted(receiver.stored())
    positions = [replies.index(f"1.2.3.{n}".encode()) for n in (1, 2, 3)]
    assert positions == sorted(positions)


@pytest.mark.fault(18, "a")
def test_a_store_request_without_data_set_ends_the_association(receiver):
    with closing(receiver.associated()) as sock:
        sock.sendall(pdata(value(store_command(dataset=0x0101))) + pdata(value(echo_command())))
        assert closed_by_peer(sock)


def test_a_store_request_of_another_class_than_negotiated_is_refused_and_the_association_goes_on(receiver, tmp_path):
    data = ct_bytes(tmp_path)
    with closing(receiver.associated()) as sock:
        sock.sendall(pdata(value(store_command(sop_class=MRImageStorage))) + pdata(value(data, control=0x02)))
        assert status_of(sock.recv(65536)) == 0xA900
        sock.sendall(pdata(value(store_command())) + pdata(value(data, control=0x02)))
        assert status_of(sock.recv(65536)) == 0x0000


@pytest.mark.fault(18, "a")
def test_sequences_nested_without_end_are_refused_and_the_association_goes_on(receiver, tmp_path):
    nested = struct.pack("<HH2s2xL", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    data = ct_bytes(tmp_path)
    with closing(receiver.associated()) as sock:
        for refused in (nested * 20_000, nested * 900):
            parts = [refused[n : n + 100_000] for n in range(0, len(refused), 100_000)]
            sock.sendall(pdata(value(store_command())) + b"".join(pdata(value(part, control=0x00)) for part in parts))
            sock.sendall(pdata(value(b"", control=0x02)))
            assert status_of(sock.recv(65536)) == 0xC000
        sock.sendall(pdata(value(store_command())) + pdata(value(data, control=0x02)))
        assert status_of(sock.recv(65536)) == 0x0000
    assert list(receiver.stored()) == ["1.2.3"]


def test_a_refusal_says_why_in_at_most_64_characters(receiver, tmp_path):
    with closing(receiver.associated()) as sock:
        data = ct_bytes(tmp_path)[:300]
        sock.sendall(pdata(value(store_command())) + pdata(value(data, control=0x02)))
        reply = sock.recv(65536)
    position = reply.index(struct.pack("<HH", 0, 0x0902))
    length = struct.unpack_from("<L", reply, position + 4)[0]
    assert b"truncated" in reply[position + 8 : position + 8 + length]
    assert length <= 64
