"""Whatever a peer sends: the receiver answers or ends the connection, and acknowledges nothing that it cannot file."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pydicom.uid import CTImageStorage

from dicomnode import ledger
from dicomnode.audit import Trail
from dicomnode.config import Config, Limits, Receive
from dicomnode.network.association import Connection, Peer, Rejected
from dicomnode.network.command import decode, encode_response
from dicomnode.network.listen import storage_contexts
from dicomnode.network.wire import PeerError, PeerGone
from dicomnode.receive import Receiver
from dicomnode.spool import Spool, dataset_offset, digest_of
from tests.fuzzing import damaged, joined
from tests.receivers import associate_request, echo_command, pdata, store_command, value
from tests.test_fuzz_datasets import ODD, image

pytestmark = pytest.mark.filterwarnings("ignore")
REQUEST = associate_request(CTImageStorage)
ITEMS = (0, 74, 99, 107, 132, 155, 163)  # where the items of REQUEST begin
RELEASE = struct.pack(">BBL4x", 0x05, 0, 4)
UID = str(pydicom.filereader.read_dataset(BytesIO(joined(image(1))), False, True).SOPInstanceUID)
COMMAND = store_command(sop_uid=UID)


class Node:
    """A receiver without its listener, which counts the associations that it holds."""

    def __init__(self, folder: Path) -> None:
        config = Config(data_dir=folder, receive=Receive(host="127.0.0.1"))
        self.spool, self.ledger = Spool(folder / "spool"), ledger.connect(config.ledger_url)
        self.receiver = Receiver(config, self.spool, self.ledger, Trail(config))
        self.open = 0

    def admit(self, peer: Peer) -> None:
        self.receiver.admit(peer)
        self.open += 1

    def ended(self, peer: Peer, ending: str) -> None:
        self.receiver.ended(peer, ending)
        self.open -= 1

    def __getattr__(self, name: str):
        return getattr(self.receiver, name)

    def hear(self, stream: bytes) -> bytes:
        """Serve one connection on which exactly this arrives; return what was answered."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        sending = threading.Thread(target=speak, args=(theirs, stream))
        sending.start()
        connection = Connection(ours, address="127.0.0.1", name="fuzz", limits=Limits())
        begun = time.process_time()
        with contextlib.suppress(PeerError, PeerGone, Rejected):
            connection.serve(self, storage_contexts())
        assert time.process_time() - begun < 5
        with contextlib.suppress(OSError):  # closed before all was read, it would reset, and the answer could be lost
            while ours.recv(65536):
                pass
        connection.close()
        sending.join()
        answer = b"".join(iter(lambda: theirs.recv(65536), b""))
        theirs.close()
        return answer

    def forget_all(self) -> None:
        for item in self.ledger.instances():
            self.ledger.forget(item)
            item.path.unlink()


def speak(sock: socket.socket, stream: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(stream)
        sock.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Node:
    return Node(tmp_path_factory.mktemp("node"))


def responses(answer: bytes) -> Iterator[pydicom.Dataset]:
    """The responses in a stream of PDUs, every one of which must be well formed."""
    at = 0
    while at < len(answer):
        kind, _, length = struct.unpack_from(">BBL", answer, at)
        body = answer[at + 6 : at + 6 + length]
        assert kind in (0x02, 0x03, 0x04, 0x06, 0x07)
        assert len(body) == length
        if kind == 0x04:
            yield read_dataset(BytesIO(body[6:]), is_implicit_VR=True, is_little_endian=True)
        at += 6 + length


def holds(node: Node, stream: bytes) -> None:
    """One conversation: it ends, its answers are well formed, and what they acknowledge is whole on the disk."""
    answered = list(responses(node.hear(stream)))
    stored = {item.sop_uid: item for item in node.ledger.instances()}
    acknowledged = {r.AffectedSOPInstanceUID for r in answered if r.CommandField == 0x8001 and r.Status == 0}
    assert acknowledged <= stored.keys()
    for item in stored.values():
        assert digest_of(item) == item.sha256
        dataset = pydicom.dcmread(item.path)
        assert (dataset.SOPInstanceUID, dataset.StudyInstanceUID) == (item.sop_uid, item.study_uid)
        assert len(dataset.PixelData) >= dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    assert node.open == 0
    assert {path for path in node.spool.root.rglob("*") if path.is_file()} == {item.path for item in stored.values()}
    node.forget_all()


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """An association with a few messages, of which anything may be damaged."""
    stream, places = REQUEST, list(ITEMS)
    for _ in range(draw(st.integers(1, 3))):
        whole = st.just(COMMAND)
        command = draw(st.one_of(whole, whole, st.just(echo_command()), damaged(COMMAND, [0, 12, 46, 56, 66, 76])))
        data = draw(st.one_of(st.just(joined(image(1))), ODD))[:100_000]
        cut = draw(st.integers(0, len(data)))
        parts = [value(command), value(data[:cut], control=0x00), value(data[cut:], control=0x02)]
        if command == echo_command():
            parts = parts[:1]
        together = draw(st.booleans())
        places += [len(stream), len(stream) + 6]
        stream += pdata(*parts) if together else b"".join(map(pdata, parts))
    stream += draw(st.sampled_from((RELEASE, b"", RELEASE * 2)))
    return draw(st.one_of(st.just(stream), damaged(stream, places)))


def test_the_base_of_the_mutations_is_stored(node):
    answer = node.hear(REQUEST + pdata(value(COMMAND)) + pdata(value(joined(image(1)), control=0x02)) + RELEASE)
    assert [response.Status for response in responses(answer)] == [0]
    [item] = node.ledger.instances()
    assert item.path.read_bytes()[dataset_offset(item.path) :] == joined(image(1))
    node.forget_all()


@given(stream=damaged(REQUEST, ITEMS))
def test_a_damaged_request_is_answered_or_ends_the_connection(node, stream):
    holds(node, stream)


@given(stream=conversations())
def test_a_damaged_conversation_ends_and_acknowledges_only_what_is_stored(node, stream):
    holds(node, stream)


@given(data=damaged(COMMAND, [0, 12, 46, 56, 66, 76]))
def test_a_damaged_command_is_read_as_pydicom_reads_it_or_refused(data):
    try:
        command = decode(data)
    except PeerError:
        return
    theirs = read_dataset(BytesIO(data), is_implicit_VR=True, is_little_endian=True)
    assert (command.kind, command.message_id) == (theirs.CommandField, theirs.MessageID)
    response = encode_response(command, 0, "x")
    assert struct.unpack_from("<L", response, 8)[0] + 12 == len(response)
