"""The audit trail: what is written when and by whom, that it obeys the schema of PS3.15, and that nothing is lost."""

from __future__ import annotations

import base64
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
from lxml import etree
from pydicom.uid import CTImageStorage

from dicomnode import audit, audit_message
from dicomnode.audit import Trail
from dicomnode.config import Audit, Config, Destination, Sender
from dicomnode.errors import Permanent, Transient
from dicomnode.network.find import query
from dicomnode.network.send import Outcome, send
from dicomnode.network.syslog import Position, read_after
from dicomnode.receive import _audit_lost
from dicomnode.task import StoredResult
from tests.certificates import Identity, authority, identity
from tests.receivers import Running, associate_request, closed_by_peer, ct_bytes, ct_file, soon
from tests.test_node import Hospital, neck
from tests.test_web import analysed_study, client

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("audit.rng")))
HEAD = re.compile(
    rb"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ dicomnode \d+ DICOM\+RFC3881 - \xef\xbb\xbf(<\?xml .*)"
)
PACS = Destination(name="pacs", ae_title="PACS", host="10.0.0.5", port=104)


def lines(data_dir: Path) -> list[bytes]:
    return [line for path in audit.files(data_dir / "audit") for line in path.read_bytes().splitlines()]


def parsed(line: bytes) -> etree._Element:
    match = HEAD.fullmatch(line)
    assert match, line
    message = etree.fromstring(match[1])
    SCHEMA.assertValid(message)
    return message


class Message:
    """What the tests ask about a message; reading it proves that it is valid."""

    def __init__(self, line: bytes) -> None:
        self.xml = parsed(line)
        event = self.xml[0]
        self.name, self.outcome = event[0].get("originalText"), event.get("EventOutcomeIndicator")
        self.action, self.why = event.get("EventActionCode"), event.findtext("EventOutcomeDescription") or ""
        self.parties = [
            ("".join(role.get("csd-code") for role in p), p.get("UserID"), p.get("NetworkAccessPointID"),
             p.get("UserIsRequestor") == "true")
            for p in self.xml.findall("ActiveParticipant")
        ]  # fmt: skip
        self.objects = {
            o[0].get("originalText"): o.get("ParticipantObjectID")
            for o in self.xml.findall("ParticipantObjectIdentification")
        }
        self.counts = {c.get("UID"): int(c.get("NumberOfInstances")) for c in self.xml.iter("SOPClass")}


def messages(data_dir: Path) -> list[Message]:
    return [Message(line) for line in lines(data_dir)]


def trail(folder: Path, **values) -> Trail:
    return Trail(Config(data_dir=folder, **values))


def result(folder: Path, **changes) -> StoredResult:
    path = ct_file(folder, PatientID="PID-7", **changes)
    uid = str(pydicom.dcmread(path).SOPInstanceUID)
    return StoredResult(
        sop_uid=uid, series_uid="1.9", study_uid="1.2", sop_class_uid=CTImageStorage, kind="SR", path=path
    )


# -- receiving ----------------------------------------------------------------------------------------------


def test_a_transfer_names_sender_study_patient_and_number(receiver, tmp_path):
    files = [ct_file(tmp_path, sop_uid=f"1.2.{n}", PatientID="PID-7") for n in range(3)]
    send(files, receiver.address, calling_ae="CT1")
    soon("the message", lambda: lines(receiver.trail._folder.parent))
    (one,) = messages(tmp_path / "data")
    assert (one.name, one.action, one.outcome) == ("DICOM Instances Transferred", "C", "0")
    assert one.objects == {"Study Instance UID": "1.2", "Patient Number": "PID-7"}
    assert one.counts == {CTImageStorage: 3}
    (source, destination) = one.parties
    assert source == ("110153", "CT1", "127.0.0.1", True)
    assert (destination[0], destination[3]) == ("110152", False)


def test_what_was_refused_is_a_message_of_its_own_and_what_was_sent_twice_counts(receiver, tmp_path):
    good = ct_file(tmp_path, sop_uid="1.2.1", PatientID="PID-7")
    other = ct_file(tmp_path, sop_uid="1.2.1", PatientID="PID-8")  # another data set of the same name
    send([good, good, other], receiver.address, calling_ae="CT1")
    soon("two messages", lambda: len(lines(tmp_path / "data")) == 2)
    stored, refused = messages(tmp_path / "data")
    assert (stored.outcome, stored.counts) == ("0", {CTImageStorage: 2})
    assert (refused.outcome, refused.counts) == ("4", {CTImageStorage: 1})
    assert refused.why == "1 instance(s) were not stored"
    assert refused.objects == {"SOP Class UID": CTImageStorage}


def test_an_aborted_association_is_no_success(receiver, tmp_path):
    data = ct_bytes(tmp_path, sop_uid="1.2.3", PatientID="PID-7")
    receiver.raw_store(data, sop_class=CTImageStorage, sop_uid="1.2.3")  # and closes without a release
    soon("the message", lambda: lines(tmp_path / "data"))
    (one,) = messages(tmp_path / "data")
    assert (one.outcome, one.why) == ("4", "association lost after these instances were stored")


def test_what_a_killed_receiver_had_taken_is_written_at_the_next_start(receiver, tmp_path):
    with closing(receiver.associated()) as sock:
        from tests.receivers import pdata, store_command, value

        data = ct_bytes(tmp_path, sop_uid="1.2.3", PatientID="PID-7")
        sock.sendall(pdata(value(store_command(sop_uid="1.2.3"))) + pdata(value(data, control=0x02)))
        sock.recv(65536)
        assert lines(tmp_path / "data") == []
        _audit_lost(receiver.trail, receiver.ledger, "DICOMNODE")
    (one, *_) = messages(tmp_path / "data")
    assert (one.outcome, one.counts, one.objects["Patient Number"]) == ("4", {CTImageStorage: 1}, "PID-7")
    assert "the node ended" in one.why


@pytest.mark.parametrize(
    ("titles", "why"), [({"called": "WRONG"}, "called as 'WRONG'"), ({"calling": "EVIL"}, "'EVIL' is not in")]
)
def test_a_refused_association_is_an_alert_and_a_flood_of_them_is_one(tmp_path, titles, why):
    receiver = Running(tmp_path / "data", allow=["RAW", "AFTER"])
    for _ in range(3):
        with closing(receiver.connection()) as sock:
            sock.sendall(associate_request(CTImageStorage, **titles))
            assert sock.recv(1) == b"\x03"
    soon("the message", lambda: lines(tmp_path / "data"))
    assert receiver.still_works()
    receiver.listener.stop()
    (one,) = messages(tmp_path / "data")
    assert (one.name, one.outcome) == ("Security Alert", "4")
    assert why in one.why
    assert one.xml[0].find("EventTypeCode").get("csd-code") == "110126"
    assert why in base64.b64decode(one.xml.find(".//ParticipantObjectDetail").get("value")).decode()
    assert ("", "127.0.0.1", "127.0.0.1", True) in one.parties


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Identity:
    return identity(authority(tmp_path_factory.mktemp("certificates")), "node")


def test_a_peer_that_cannot_prove_who_it_is_is_a_serious_alert_and_one_that_hangs_up_is_none(tmp_path, ours):
    from dicomnode.network import tls

    receiver = Running(tmp_path / "data", tls=(tls.server(ours), tls.client(ours)))
    receiver.connection().close()
    assert receiver.still_works()
    assert lines(tmp_path / "data") == []
    with closing(receiver.connection()) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert closed_by_peer(sock)
    soon("the message", lambda: lines(tmp_path / "data"))
    receiver.listener.stop()
    (one,) = messages(tmp_path / "data")
    assert (one.name, one.outcome) == ("Security Alert", "8")


# -- the other events ---------------------------------------------------------------------------------------


def test_a_delivery_begins_and_ends_with_one_message_for_each_outcome(tmp_path):
    objects = [result(tmp_path / "in", sop_uid=f"1.2.{n}") for n in range(4)]
    outcomes = [
        Outcome(path=o.path, sop_uid=o.sop_uid, problem=problem, transient=transient)
        for o, (problem, transient) in zip(
            objects, [("", False), ("refused: A700 DOE^JOHN", True), ("refused: C000", False), ("", False)], strict=True
        )
    ]
    it = trail(tmp_path)
    it.begins(PACS, objects)
    it.sent(PACS, objects, outcomes)
    begin, *ends = messages(tmp_path)
    assert (begin.name, begin.action, begin.outcome) == ("Begin Transferring DICOM Instances", "E", "0")
    assert [(m.outcome, sum(m.counts.values())) for m in ends] == [("0", 2), ("4", 1), ("8", 1)]
    for message in (begin, *ends):
        assert message.parties[1] == ("110152", "PACS", "10.0.0.5", False)
        assert message.objects == {"Study Instance UID": "1.2", "Patient Number": "PID-7"}


def test_what_is_sent_without_identity_says_so_beside_the_true_patient(tmp_path):
    trail(tmp_path).begins(PACS.model_copy(update={"deidentify": True}), [result(tmp_path / "in")])
    (one,) = messages(tmp_path)
    assert one.xml.findtext(".//Anonymized") == "true"
    assert one.objects["Patient Number"] == "PID-7"


def test_analysis_question_deletion_start_and_stop(tmp_path):
    it, images = trail(tmp_path), [result(tmp_path / "in")]
    it.application(audit_message.START)
    it.analysed(images, "")
    it.analysed(images, "the analysis failed: MemoryError")
    it.queried(Sender(ae_title="CT1", host="pacs.example", port=104), query("1.2"))
    it.deleted(images)
    it.application(audit_message.STOP)
    found = messages(tmp_path)
    assert [(m.name, m.action, m.outcome) for m in found] == [
        ("Application Activity", "E", "0"),
        ("DICOM Instances Accessed", "R", "0"),
        ("DICOM Instances Accessed", "R", "8"),
        ("Query", "E", "0"),
        ("DICOM Study Deleted", "D", "0"),
        ("Application Activity", "E", "0"),
    ]
    asked = base64.b64decode(found[3].xml.findtext(".//ParticipantObjectQuery"))
    assert b"1.2" in asked and b"SERIES" in asked
    assert found[3].parties[1][:3] == ("110152", "CT1", "pacs.example")


def test_hostile_values_stay_inside_their_message(tmp_path):
    hostile = "<x>&\"'\x1b[31m\n\r\x00\u2028" + "A" * 5000
    trail(tmp_path).alert("10.0.0.9", hostile, False)
    trail(tmp_path).not_sent(PACS, [result(tmp_path / "in", PatientName="X")], hostile)
    assert len(messages(tmp_path)) == 2
    assert all(len(line) < 3000 for line in lines(tmp_path))


def test_a_trail_that_is_switched_off_writes_nothing(tmp_path):
    trail(tmp_path, audit=Audit(enabled=False)).application(audit_message.START)
    assert not (tmp_path / "audit").exists()


# -- files --------------------------------------------------------------------------------------------------


def test_only_the_node_can_read_the_trail_and_a_full_file_is_followed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "FILE_BYTES", 2500)
    it = trail(tmp_path)
    for _ in range(5):
        it.application(audit_message.START)
    found = audit.files(tmp_path / "audit")
    assert [path.name for path in found][:2] == ["audit-000001.log", "audit-000002.log"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700
    assert len(messages(tmp_path)) == 5


def test_processes_that_write_at_once_do_not_mix_their_lines(tmp_path):
    code = (
        "import sys; from pathlib import Path; from dicomnode import audit; from dicomnode.config import Config\n"
        "audit.FILE_BYTES = 20000\n"
        "it = audit.Trail(Config(data_dir=Path(sys.argv[1])))\n"
        "for n in range(40): it.application(audit.xml.START)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(messages(tmp_path)) == 120
    assert len(audit.files(tmp_path / "audit")) > 1


def test_the_line_of_a_killed_writer_spoils_no_other(tmp_path):
    it = trail(tmp_path)
    it.application(audit_message.START)
    (path,) = audit.files(tmp_path / "audit")
    with path.open("ab") as file:
        file.write(b"<85>1 2026-01-01T00:00:00.000Z h dicomnode 1 DICOM+RFC3881 - <AuditMess")
    it.application(audit_message.STOP)
    whole, _ = read_after(tmp_path / "audit", Position()) or ([], None)
    assert [parsed(line)[0][1].get("originalText") for line in whole] == ["Application Start", "Application Stop"]


def test_a_disk_that_takes_no_message_is_an_error_and_no_obstacle(tmp_path, caplog, monkeypatch):
    it = trail(tmp_path)
    monkeypatch.setattr(audit.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    it.application(audit_message.START)
    assert "audit message lost" in caplog.text


# -- where the node calls it --------------------------------------------------------------------------------


@pytest.fixture
def hospital(tmp_path) -> Iterator[Hospital]:
    it = Hospital(tmp_path)
    yield it
    it.go_offline()


def test_an_analysis_and_its_delivery_are_written_once_however_often_it_is_tried(hospital, tmp_path, monkeypatch):
    from dicomnode import node

    monkeypatch.setattr(node, "RETRY_SECONDS", (0.0, 0.0))
    uid = hospital.receive(neck(tmp_path))
    hospital.assemble(uid)
    assert hospital.infer()
    monkeypatch.setattr(
        "dicomnode.network.send.send", lambda *_, **__: (_ for _ in ()).throw(Transient("PACS does not answer"))
    )
    assert hospital.deliver() and hospital.deliver()
    monkeypatch.undo()
    assert hospital.deliver()
    found = messages(hospital.node.config.data_dir)
    assert [(m.name, m.outcome, m.why) for m in found] == [
        ("DICOM Instances Accessed", "0", ""),
        ("Begin Transferring DICOM Instances", "0", ""),
        ("DICOM Instances Transferred", "4", "PACS does not answer"),
        ("DICOM Instances Transferred", "0", ""),
    ]
    assert {m.objects["Study Instance UID"] for m in found} == {uid}
    assert sum(found[-1].counts.values()) == len(hospital.archive.stored)


def test_an_analysis_that_failed_is_no_success(hospital, tmp_path):
    hospital.model = lambda volume: (_ for _ in ()).throw(Permanent("no memory"))
    hospital.assemble(hospital.receive(neck(tmp_path)))
    assert hospital.infer()
    (one,) = messages(hospital.node.config.data_dir)
    assert (one.name, one.outcome, one.why) == ("DICOM Instances Accessed", "8", "the analysis failed: no memory")


def test_a_look_at_a_key_image_is_written_with_the_address(tmp_path):
    analysed_study(tmp_path / "data")
    assert client(tmp_path / "data").get("/studies/1/0.png").status_code == 200
    (one,) = messages(tmp_path / "data")
    assert (one.name, one.action, one.parties[0][2]) == ("DICOM Instances Accessed", "R", "testclient")
