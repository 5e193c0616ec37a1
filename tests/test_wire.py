"""PDUs over a pair of sockets: what is read, what is refused, and how long anyone waits."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from dicomnode.network import wire
from dicomnode.network.wire import DATA, RELEASE_REQUEST, Pdu, PeerError, PeerGone, Value, Wire, values
from tests.receivers import pdata, value


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    """Our end, and the peer's socket."""
    ours, theirs = socket.socketpair()
    yield Wire(ours), theirs
    ours.close()
    theirs.close()


def head(kind: int, length: int) -> bytes:
    return struct.pack(">BBL", kind, 0, length)


def test_pdus_are_read_one_after_the_other_however_they_are_cut_up(ends):
    reader, peer = ends
    stream = pdata(value(b"first")) + head(RELEASE_REQUEST, 4) + bytes(4)
    for byte in stream:
        peer.sendall(bytes([byte]))
    assert [bytes(part.data) for part in values(reader.read(5, 1000))] == [b"first"]
    assert reader.read(5, 1000).kind == RELEASE_REQUEST


def test_the_first_pdu_comes_with_its_head_because_the_decoder_wants_it(ends):
    reader, peer = ends
    peer.sendall(head(0x01, 3) + b"abc")
    pdu = reader.read(5, 1000, first=True)
    assert (pdu.kind, bytes(pdu.body)) == (0x01, head(0x01, 3) + b"abc")


def test_a_request_longer_than_the_usual_pdu_is_read_up_to_its_own_limit(ends):
    reader, peer = ends
    long = bytes(wire.MAX_PDU_BYTES + 1000)
    sending = threading.Thread(target=peer.sendall, args=(head(0x01, len(long)) + long,))
    sending.start()
    assert len(reader.read(5, len(long), first=True).body) == len(long) + 6
    sending.join()


@pytest.mark.parametrize("length", [1001, 0xFFFFFFFF])
@pytest.mark.fault(18, "a")
def test_a_length_above_the_limit_is_refused_before_anything_of_it_is_read(ends, length):
    reader, peer = ends
    peer.sendall(head(DATA, length))
    with pytest.raises(PeerError, match="the limit is 1000"):
        reader.read(5, 1000)


@pytest.mark.parametrize("sent", [b"", head(DATA, 10)[:3], head(DATA, 10), head(DATA, 10) + b"abc"])
def test_a_peer_that_closes_is_gone_wherever_it_stopped(ends, sent):
    reader, peer = ends
    peer.sendall(sent)
    peer.close()
    with pytest.raises(PeerGone, match="lost"):
        reader.read(5, 1000)


def test_an_abort_says_that_it_was_one(ends):
    reader, peer = ends
    peer.sendall(head(wire.ABORT, 4) + bytes(4))
    with pytest.raises(PeerGone, match="aborted"):
        reader.read(5, 1000)


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x02, 0x03, 0x06, 0x08, 0xFF])
def test_a_pdu_that_has_no_place_inside_an_association_is_refused(ends, kind):
    reader, peer = ends
    peer.sendall(head(kind, 4) + bytes(4))
    with pytest.raises(PeerError, match="unexpected PDU"):
        reader.read(5, 1000)


def test_silence_is_an_error_after_the_wait(ends):
    with pytest.raises(PeerError, match="silent"):
        ends[0].read(0.05, 1000)


@pytest.mark.parametrize("sent", [head(DATA, 10)[:1], head(DATA, 10), head(DATA, 10) + b"abc"])
def test_a_pdu_that_has_begun_must_end_however_long_the_wait_for_one_may_be(ends, monkeypatch, sent):
    reader, peer = ends
    monkeypatch.setattr(wire, "PDU_SECONDS", 0.05)
    peer.sendall(sent)
    with pytest.raises(PeerError, match="silent"):
        reader.read(1e6, 1000)


def test_a_peer_that_does_not_read_its_answers_is_gone(ends, monkeypatch):
    monkeypatch.setattr(wire, "PDU_SECONDS", 0.1)
    with pytest.raises(PeerGone):
        ends[0].send(bytes(16 << 20))


def test_a_cut_from_another_thread_wakes_the_reader(ends):
    reader, _ = ends
    cutting = threading.Timer(0.05, reader.cut)
    cutting.start()
    with pytest.raises(PeerGone, match="lost"):
        reader.read(60, 1000)
    cutting.join()
    reader.cut()  # once more does no harm


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (value(b"", control=0x02), [(1, 0x02, b"")]),
        (value(b"a", context=3, control=0x01) + value(b"bc"), [(3, 0x01, b"a"), (1, 0x03, b"bc")]),
    ],
)
def test_values_are_split(body, expected):
    found = values(Pdu(DATA, memoryview(body)))
    assert [(v.context_id, v.control, bytes(v.data)) for v in found] == expected
    assert all(isinstance(v, Value) for v in found)


MISFITS = {
    "one byte": b"\0",
    "no head": bytes(5),
    "shorter than its head": struct.pack(">LBB", 1, 1, 3),
    "one byte short": struct.pack(">LBB", 3, 1, 3),
    "absurd": struct.pack(">LBB", 0xFFFFFFFF, 1, 3),
}


@pytest.mark.parametrize("body", MISFITS.values(), ids=MISFITS.keys())
def test_a_value_that_does_not_fit_its_pdu_is_refused(body):
    with pytest.raises(PeerError, match="malformed"):
        values(Pdu(DATA, memoryview(body)))


def test_a_release_where_values_belong_is_refused():
    with pytest.raises(PeerError, match="release"):
        values(Pdu(RELEASE_REQUEST, memoryview(bytes(4))))
