"""The receiver against raw sockets: whatever comes, it answers or ends the connection, and takes the next one."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import closing, suppress

import pydicom
import pytest
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.sop_class import BasicFilmSession, MRImageStorage, Verification

from dicomnode.config import Limits
from dicomnode.doctor import encode_sample
from dicomnode.errors import Transient
from dicomnode.network import association, wire
from dicomnode.network.echo import echo
from dicomnode.network.listen import TRANSFER_SYNTAXES
from dicomnode.network.send import send
from dicomnode.spool import dataset_offset
from tests.receivers import (
    Running,
    associate_request,
    association_to,
    closed_by_peer,
    ct_file,
    echo_command,
    numbers,
    pdata,
    soon,
    status_of,
    store_command,
    value,
)

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
@pytest.mark.fault(18, "a")
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
@pytest.mark.fault(18, "a")
def test_a_breach_of_the_protocol_ends_the_association_and_stores_nothing(receiver, data):
    with closing(receiver.associated()) as sock:
        sock.sendall(data)
        assert closed_by_peer(sock)
    assert receiver.stored() == {}
    assert not list(receiver.spool.incoming.iterdir())


@pytest.mark.fault(18, "a")
def test_a_data_set_of_absurd_size_ends_the_association_and_leaves_nothing(tmp_path, caplog):
    running = Running(tmp_path / "data", limits=Limits(instance_mb=1))
    for size in (200_000, 100_000):
        with closing(running.associated()) as sock:
            with suppress(OSError):  # it may be closed before all is sent
                sock.sendall(pdata(value(store_command())) + pdata(value(bytes(size), control=0x00)) * 6)
            if size * 6 > 1 << 20:
                assert closed_by_peer(sock)
    soon("the sweep", lambda: not running.files())
    assert caplog.text.count("association aborted") == 1
    assert running.stored() == {}
    running.listener.stop()


@pytest.mark.fault(11, "a")
def test_a_silent_peer_is_cut_off_before_and_after_its_request(tmp_path, monkeypatch):
    monkeypatch.setattr(association, "REQUEST_SECONDS", 0.3)
    running = Running(tmp_path / "data", limits=Limits(idle_seconds=0.3))
    for sock in (running.connection(), running.associated()):
        with closing(sock):
            assert closed_by_peer(sock)
    running.listener.stop()


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
@pytest.mark.fault(19, "a")
def test_a_peer_that_leaves_inside_a_data_set_leaves_nothing_behind(receiver, ending):
    sock = receiver.associated()
    sock.sendall(pdata(value(store_command())) + pdata(value(bytes(5000), control=0x00)))
    soon("a file to be begun", lambda: list(receiver.spool.incoming.iterdir()))
    if ending == "abort":
        sock.sendall(struct.pack(">BBL4x", 0x07, 0, 4))
    sock.close()
    soon("it to be gone", lambda: not list(receiver.spool.incoming.iterdir()))
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
@pytest.mark.fault(20, "a")
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


@pytest.mark.fault(12, "b")
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
        assert receiver.raw_store(data[:length]) == 0xC000
    assert receiver.stored() == {}
    assert receiver.raw_store(data) == 0x0000


def test_a_data_set_that_contradicts_its_request_is_refused(receiver, tmp_path):
    path = ct_file(tmp_path)
    data = path.read_bytes()[dataset_offset(path) :]
    assert receiver.raw_store(data, sop_uid="1.2.4") == 0xA900
    assert receiver.raw_store(data, sop_class=MRImageStorage) == 0xA900
    assert receiver.stored() == {}


@pytest.mark.parametrize("sop_uid", ["../../etc/passwd", "1.2.x", "1" * 65, ""])
def test_a_name_that_is_no_uid_is_refused(receiver, tmp_path, sop_uid):
    path = ct_file(tmp_path)
    assert receiver.raw_store(path.read_bytes()[dataset_offset(path) :], sop_uid=sop_uid) == 0xC000


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.fault(12, "b")
def test_a_data_set_without_its_uids_is_refused(receiver, tmp_path, keyword):
    dataset = pydicom.dcmread(ct_file(tmp_path))
    del dataset[keyword]
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, dataset)
    assert receiver.raw_store(buffer.getvalue()) == 0xC000


@pytest.mark.fault(6, "a")
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
        body = numbers(kind=0x0020, message_id=3, dataset=1)
        sock.sendall(pdata(value(body)) + pdata(value(b"ident", control=0x02)))
        assert status_of(sock.recv(1000)) == 0x0211
        sock.sendall(pdata(value(echo_command())))
        assert status_of(sock.recv(1000)) == 0x0000


@pytest.mark.fault(17, "a")
def test_too_many_associations_are_told_to_come_back(receiver):
    socks = [receiver.associated(Verification) for _ in range(Limits().associations)]
    with closing(receiver.connection()) as sock:
        sock.sendall(associate_request(Verification))
        answer = sock.recv(100)
    for one in socks:
        one.close()
    assert (answer[0], answer[7], answer[8], answer[9]) == (0x03, 2, 3, 2)
    soon("a free place", lambda: answers(receiver))


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
    receiver.raw_store(path.read_bytes()[dataset_offset(path) :][:400])
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


def answers(running: Running) -> bool:
    """Whether there is a place for one more association."""
    try:
        return running.still_works()
    except Transient:
        return False


INCOMPLETE = {
    "no application context": {"without": ["application"]},
    "no transfer syntax": {"syntaxes": []},
    "even context number": {"context": 2},
    "blank calling title": {"calling": ""},
    "calling title that is no ASCII": {"calling": b"\xe9\xe8"},
    "calling title with a line break": {"calling": "A\nB"},
}


@pytest.mark.parametrize("request_", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_a_request_that_cannot_be_answered_gives_its_place_back(tmp_path, request_):
    running = Running(tmp_path / "data", limits=Limits(associations=2))
    for _ in range(3):
        with closing(running.connection()) as sock:
            sock.sendall(associate_request(CTImageStorage, **request_))
            assert closed_by_peer(sock)
    soon("a free place", lambda: answers(running))
    running.listener.stop()


@pytest.mark.parametrize("without", ["contexts", "user"])
def test_a_request_that_asks_for_little_is_answered(receiver, without):
    with closing(receiver.connection()) as sock:
        sock.sendall(associate_request(CTImageStorage, without=[without]))
        assert sock.recv(65536)[0] == 0x02


def test_peers_that_leave_before_the_answer_give_their_place_back(tmp_path):
    running = Running(tmp_path / "data", limits=Limits(associations=3))
    for _ in range(12):
        sock = running.connection()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        sock.sendall(associate_request(Verification))
        sock.close()
    soon("a free place", lambda: answers(running))
    running.listener.stop()


@pytest.mark.fault(17, "a")
def test_a_request_that_stops_half_way_keeps_nobody_else_waiting(receiver, monkeypatch):
    monkeypatch.setattr(association, "REQUEST_SECONDS", 1.0)
    begun = [receiver.connection() for _ in range(20)]
    for sock in begun:
        sock.sendall(associate_request(CTImageStorage)[:40])
    assert receiver.still_works()
    assert all(closed_by_peer(sock) for sock in begun)
    for sock in begun:
        sock.close()
