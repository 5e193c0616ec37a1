"""The receiver against raw sockets: whatever comes, it answers or ends the connection, and takes the next one."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.sop_class import BasicFilmSession, MRImageStorage, Verification

from dicomnode import ledger
from dicomnode.config import Config, Receive
from dicomnode.doctor import encode_sample
from dicomnode.errors import Transient
from dicomnode.network import association, wire
from dicomnode.network.echo import echo
from dicomnode.network.listen import TRANSFER_SYNTAXES, Listener
from dicomnode.network.send import Address, connect, send
from dicomnode.receive import Receiver
from dicomnode.spool import Spool, dataset_offset, digest_of


class Running:
    """A receiver on a free port, with its spool and ledger."""

    def __init__(self, folder: Path, **receive) -> None:
        config = Config(data_dir=folder, receive=Receive(host="127.0.0.1", **receive))
        folder.mkdir(exist_ok=True)
        self.spool, self.ledger = Spool(folder / "spool"), ledger.connect(config.ledger_url)
        self.listener = Listener(Receiver(config.receive, self.spool, self.ledger), host="127.0.0.1", port=0)
        self.address = Address(ae_title=config.receive.ae_title, host="127.0.0.1", port=self.listener.port)

    def stored(self) -> dict[str, str]:
        return {instance.sop_uid: digest_of(instance) for instance in self.ledger.instances()}

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.address.port), timeout=10)

    def associated(self, sop_class: str = CTImageStorage) -> socket.socket:
        """A raw socket on which pynetdicom's request was accepted: context 1, explicit little endian."""
        sock = self.connection()
        sock.sendall(associate_request(sop_class))
        assert sock.recv(65536)[0] == 0x02
        return sock

    def still_works(self) -> bool:
        return echo(self.address, calling_ae="AFTER") > 0


@pytest.fixture
def receiver(tmp_path):
    running = Running(tmp_path / "data")
    yield running
    assert running.still_works(), "whatever the test sent, the next association is served"
    running.listener.stop()


def associate_request(sop_class: str, *, called: str = "DICOMNODE", calling: str = "RAW") -> bytes:
    """An A-ASSOCIATE-RQ with one presentation context."""

    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body

    syntaxes = item(0x30, sop_class.encode()) + item(0x40, ExplicitVRLittleEndian.encode())
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\x01\0\0\0" + syntaxes) + user
    return struct.pack(">BBL", 0x01, 0, len(body)) + body


def value(data: bytes, *, context: int = 1, control: int = 0x03) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context, control) + data


def pdata(*values: bytes) -> bytes:
    body = b"".join(values)
    return struct.pack(">BBL", 0x04, 0, len(body)) + body


def store_command(*, sop_uid: str = "1.2.3", sop_class: str = CTImageStorage) -> bytes:
    def text(element: int, uid: str) -> bytes:
        raw = uid.encode() + b"\0" * (len(uid) % 2)
        return struct.pack("<HHL", 0, element, len(raw)) + raw

    def number(element: int, x: int) -> bytes:
        return struct.pack("<HHLH", 0, element, 2, x)

    body = text(0x0002, sop_class) + number(0x0100, 1) + number(0x0110, 7) + number(0x0700, 0) + number(0x0800, 1)
    body += text(0x1000, sop_uid)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def closed_by_peer(sock: socket.socket) -> bool:
    """Whether the receiver ends the connection, with or without an abort."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return True


def status_of(reply: bytes) -> int:
    """The Status of a response PDU."""
    position = reply.index(struct.pack("<HHL", 0, 0x0900, 2))
    return struct.unpack_from("<H", reply, position + 8)[0]


def ct_file(folder: Path, *, sop_uid: str = "1.2.3", study_uid: str = "1.2", **changes) -> Path:
    """A small CT image in explicit little endian."""
    path, _ = encode_sample(ExplicitVRLittleEndian, folder)
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop_uid
    dataset.StudyInstanceUID = study_uid
    for keyword, new in changes.items():
        setattr(dataset, keyword, new)
    target = folder / f"{sop_uid}-{len(list(folder.iterdir()))}.dcm"
    dataset.save_as(target, enforce_file_format=True)
    return target


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4096),
    "noise": bytes(range(256)) * 64,
    "oversized request": struct.pack(">BBL", 0x01, 0, 0x7FFFFFFF),
    "undecodable request": struct.pack(">BBL", 0x01, 0, 80) + b"\xff" * 80,
    "release before association": struct.pack(">BBL4x", 0x05, 0, 4),
    "data before association": pdata(value(b"x")),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_the_connection(receiver, data):
    with closing(receiver.connection()) as sock:
        sock.sendall(data)
        assert closed_by_peer(sock)


MISBEHAVIOUR = {
    "oversized PDU": struct.pack(">BBL", 0x04, 0, association.MAX_PDU_BYTES + 1),
    "unknown PDU type": struct.pack(">BBL4x", 0x09, 0, 4),
    "second association request": associate_request(CTImageStorage),
    "malformed value": struct.pack(">BBL", 0x04, 0, 6) + struct.pack(">LBB", 99, 1, 3),
    "data set where a command belongs": pdata(value(b"data", control=0x02)),
    "undecodable command": pdata(value(b"\x01" * 30)),
    "command of another group": pdata(value(struct.pack("<HHL", 8, 0x18, 0))),
    "context that was not accepted": pdata(value(store_command(), context=9)),
    "endless command": pdata(*[value(bytes(60000), control=0x01)] * 2),
    "release inside a message": pdata(value(store_command())) + struct.pack(">BBL4x", 0x05, 0, 4),
    "command inside a data set": pdata(value(store_command())) + pdata(value(b"x", control=0x01)),
    "data set of another context": pdata(value(store_command())) + pdata(value(b"x", context=3, control=0x02)),
}


@pytest.mark.parametrize("data", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR.keys())
def test_a_breach_of_the_protocol_ends_the_association_and_stores_nothing(receiver, data):
    with closing(receiver.associated()) as sock:
        sock.sendall(data)
        assert closed_by_peer(sock)
    assert receiver.stored() == {}
    assert not list(receiver.spool.incoming.iterdir())


def test_a_data_set_of_absurd_size_ends_the_association(receiver, monkeypatch):
    monkeypatch.setattr(association, "MAX_DATASET_BYTES", 10_000)
    with closing(receiver.associated()) as sock:
        sock.sendall(pdata(value(store_command())) + pdata(value(bytes(6000), control=0x00)) * 2)
        assert closed_by_peer(sock)
    assert receiver.stored() == {}


@pytest.mark.parametrize("seconds", ["REQUEST_SECONDS", "IDLE_SECONDS"])
def test_a_silent_peer_is_cut_off(receiver, monkeypatch, seconds):
    monkeypatch.setattr(association, seconds, 0.3)
    with closing(receiver.connection() if seconds == "REQUEST_SECONDS" else receiver.associated()) as sock:
        assert closed_by_peer(sock)


def test_a_trickle_of_bytes_does_not_hold_a_pdu_open(receiver, monkeypatch):
    monkeypatch.setattr(wire, "PDU_SECONDS", 0.5)
    with closing(receiver.associated()) as sock:
        start = time.monotonic()
        sock.sendall(struct.pack(">BBL", 0x04, 0, 1000))
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe, as the timing has it
            while time.monotonic() - start < 20:
                sock.sendall(b"\0")
                time.sleep(0.1)


@pytest.mark.parametrize("ending", ["abort", "close"])
def test_a_peer_that_leaves_inside_a_data_set_leaves_nothing_behind(receiver, ending):
    sock = receiver.associated()
    sock.sendall(pdata(value(store_command())) + pdata(value(bytes(5000), control=0x00)))
    if ending == "abort":
        sock.sendall(struct.pack(">BBL4x", 0x07, 0, 4))
    sock.close()
    deadline = time.monotonic() + 10
    while list(receiver.spool.incoming.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(receiver.spool.incoming.iterdir())
    assert receiver.stored() == {}


@pytest.mark.parametrize(
    ("called", "calling", "allow", "reason"),
    [
        ("OTHER", "SCANNER", ("*",), 7),
        ("DICOMNODE", "SCANNER", ("PACS",), 3),
        ("DICOMNODE", "PACS", ("PACS@10.9.9.9",), 3),
        ("DICOMNODE", "PACS2", ("PACS", "*@10.9.9.9"), 3),
    ],
)
def test_an_unwelcome_peer_is_rejected_with_the_reason(tmp_path, called, calling, allow, reason):
    running = Running(tmp_path / "data", allow=allow)
    with closing(running.connection()) as sock:
        sock.sendall(associate_request(Verification, called=called, calling=calling))
        answer = sock.recv(100)
    running.listener.stop()
    assert (answer[0], answer[7], answer[8], answer[9]) == (0x03, 1, 1, reason)


@pytest.mark.parametrize("allow", [("PACS",), ("P*",), ("PACS@127.0.0.1",), ("*@127.0.0.1",), ("X", "PACS")])
def test_a_welcome_peer_is_accepted(tmp_path, allow):
    running = Running(tmp_path / "data", allow=allow)
    assert echo(running.address, calling_ae="PACS") > 0
    running.listener.stop()


def test_deflated_and_foreign_classes_are_not_accepted_and_what_is_stored_is(receiver):
    ae = AE(ae_title="TEST")
    contexts = [
        build_context(CTImageStorage, DeflatedExplicitVRLittleEndian),
        build_context(BasicFilmSession),
        build_context(MRImageStorage),
        build_context(Verification),
    ]
    peer = ae.associate("127.0.0.1", receiver.address.port, contexts=contexts, ae_title="DICOMNODE")
    accepted = {context.abstract_syntax for context in peer.accepted_contexts}
    peer.release()
    assert accepted == {MRImageStorage, Verification}


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=[s.name for s in TRANSFER_SYNTAXES])
def test_every_transfer_syntax_is_stored_as_it_came(receiver, tmp_path, syntax):
    path, _ = encode_sample(syntax, tmp_path)
    sent = path.read_bytes()[dataset_offset(path) :]
    with association_to(receiver, syntax=syntax) as peer:
        assert peer.send_c_store(path).Status == 0x0000
    [kept] = receiver.ledger.instances()
    assert kept.transfer_syntax_uid == syntax
    assert kept.path.read_bytes()[dataset_offset(kept.path) :] == sent
    assert pydicom.dcmread(kept.path).file_meta.TransferSyntaxUID == syntax


def test_the_same_image_twice_is_a_success_and_kept_once(receiver, tmp_path):
    path = ct_file(tmp_path)
    assert [o.problem for o in send([path, path], receiver.address, calling_ae="TEST")] == ["", ""]
    assert len(list(receiver.spool.root.glob("studies/*/*.dcm"))) == len(receiver.stored()) == 1


def test_another_image_under_a_known_uid_is_refused_and_the_first_one_stays(receiver, tmp_path):
    first, second = ct_file(tmp_path), ct_file(tmp_path, InstanceNumber=99)
    send([first], receiver.address, calling_ae="TEST")
    before = receiver.stored()
    [outcome] = send([second], receiver.address, calling_ae="TEST")
    assert outcome.problem.startswith("refused with status A900")
    assert receiver.stored() == before


def raw_store(receiver: Running, data: bytes, **command) -> int:
    """Store bytes as a data set; return the status."""
    with closing(receiver.associated()) as sock:
        sock.sendall(pdata(value(store_command(**command))) + pdata(value(data, control=0x02)))
        return status_of(sock.recv(65536))


def test_a_truncated_data_set_is_refused_wherever_it_is_cut(receiver, tmp_path):
    path = ct_file(tmp_path)
    data = path.read_bytes()[dataset_offset(path) :]
    for length in (
        0,
        1,
        7,
        100,
        500,
        len(data) // 2,
        *range(len(data) - 300, len(data), 7),
        len(data) - 2,
        len(data) - 1,
    ):
        assert raw_store(receiver, data[:length]) == 0xC000
    assert receiver.stored() == {}
    assert raw_store(receiver, data) == 0x0000


def test_a_data_set_that_contradicts_its_request_is_refused(receiver, tmp_path):
    path = ct_file(tmp_path)
    data = path.read_bytes()[dataset_offset(path) :]
    assert raw_store(receiver, data, sop_uid="1.2.4") == 0xA900
    assert raw_store(receiver, data, sop_class=MRImageStorage) == 0xA900
    assert receiver.stored() == {}


@pytest.mark.parametrize("sop_uid", ["../../etc/passwd", "1.2.x", "1" * 65, ""])
def test_a_name_that_is_no_uid_is_refused(receiver, tmp_path, sop_uid):
    path = ct_file(tmp_path)
    assert raw_store(receiver, path.read_bytes()[dataset_offset(path) :], sop_uid=sop_uid) == 0xC000


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_a_data_set_without_its_uids_is_refused(receiver, tmp_path, keyword):
    dataset = pydicom.dcmread(ct_file(tmp_path))
    del dataset[keyword]
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, dataset)
    assert raw_store(receiver, buffer.getvalue()) == 0xC000


def test_a_full_disk_refuses_with_out_of_resources(receiver, tmp_path, monkeypatch):
    monkeypatch.setattr(Spool, "full", lambda self: True)
    [outcome] = send([ct_file(tmp_path)], receiver.address, calling_ae="TEST")
    assert outcome.problem.startswith("refused with status A700")
    assert outcome.transient


def test_a_flush_that_fails_takes_the_instance_back(receiver, tmp_path, monkeypatch):
    def broken(_descriptor):
        raise OSError(5, "Input/output error")

    path = ct_file(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("dicomnode.spool.os.fsync", broken)
        [outcome] = send([path], receiver.address, calling_ae="TEST")
    assert outcome.problem.startswith("refused with status A700")
    assert receiver.stored() == {}
    assert [o.problem for o in send([path], receiver.address, calling_ae="TEST")] == [""]


def test_an_unknown_operation_is_answered_and_the_association_goes_on(receiver):
    with closing(receiver.associated(Verification)) as sock:
        body = b"".join(struct.pack("<HHLH", 0, e, 2, v) for e, v in ((0x0100, 0x0020), (0x0110, 3), (0x0800, 1)))
        sock.sendall(pdata(value(body)) + pdata(value(b"ident", control=0x02)))
        assert status_of(sock.recv(1000)) == 0x0211
        ping = b"".join(struct.pack("<HHLH", 0, e, 2, v) for e, v in ((0x0100, 0x0030), (0x0110, 4), (0x0800, 0x0101)))
        sock.sendall(pdata(value(ping)))
        assert status_of(sock.recv(1000)) == 0x0000


def test_too_many_associations_are_told_to_come_back(receiver, monkeypatch):
    from dicomnode.network import listen

    socks = [receiver.associated(Verification) for _ in range(listen.MAX_ASSOCIATIONS)]
    with closing(receiver.connection()) as sock:
        sock.sendall(associate_request(Verification))
        answer = sock.recv(100)
    for one in socks:
        one.close()
    assert (answer[0], answer[7], answer[8], answer[9]) == (0x03, 2, 3, 2)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # their places come back
        try:
            assert receiver.still_works()
            break
        except Transient:
            time.sleep(0.05)


@contextmanager
def association_to(receiver: Running, *, syntax: str = ExplicitVRLittleEndian):
    peer = connect(receiver.address, [build_context(CTImageStorage, syntax)], calling_ae="TEST")
    yield peer
    if peer.is_established:
        peer.release()


def test_how_an_association_ended_is_kept_for_assembly(receiver, tmp_path):
    for ending, number in (("release", 1), ("abort", 2)):
        with association_to(receiver) as peer:
            path = ct_file(tmp_path, sop_uid=f"1.2.3.{number}", study_uid=f"1.2.{number}")
            assert peer.send_c_store(pydicom.dcmread(path)).Status == 0
            getattr(peer, ending)()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        endings = [receiver.ledger.study(f"1.2.{n}").transfers[0].ending for n in (1, 2)]
        if "open" not in endings:
            break
        time.sleep(0.02)
    assert endings == ["released", "aborted"]


def test_no_patient_data_reaches_the_log(receiver, tmp_path, caplog):
    caplog.set_level("DEBUG", logger="dicomnode")
    path = ct_file(tmp_path, PatientName="SECRET^NAME", PatientID="SECRETID", AccessionNumber="SECRETACC")
    send([path], receiver.address, calling_ae="TEST")
    raw_store(receiver, path.read_bytes()[dataset_offset(path) :][:400])
    text = caplog.text + "".join(str(vars(record)) for record in caplog.records if record.name.startswith("dicomnode"))
    assert "association" in text
    assert "SECRET" not in text


def test_a_stop_lets_the_message_at_hand_finish(tmp_path):
    running = Running(tmp_path / "data")
    path = ct_file(tmp_path)
    data = path.read_bytes()[dataset_offset(path) :]
    sock = running.associated()
    sock.sendall(pdata(value(store_command())) + pdata(value(data[:1000], control=0x00)))
    deadline = time.monotonic() + 10
    while not list(running.spool.incoming.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    import threading

    stopping = threading.Thread(target=running.listener.stop)
    stopping.start()
    sock.sendall(pdata(value(data[1000:], control=0x02)))
    assert status_of(sock.recv(65536)) == 0x0000
    stopping.join(20)
    sock.close()
    assert list(running.stored()) == ["1.2.3"]


def test_after_a_stop_nobody_listens(tmp_path):
    running = Running(tmp_path / "data")
    assert running.still_works()
    running.listener.stop()
    with pytest.raises(ConnectionRefusedError):
        running.connection()
