"""Who did what with whose images: the audit trail by PS3.15 A.5, in files of its own under the data directory.

Unlike the log, it names patients. Every event is one line (RFC 5424) that is on the disk when the call returns;
`network/syslog.py` forwards the lines. All processes append to the newest file, under a lock on the folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from xml.etree.ElementTree import Element

from dicomnode import audit_message as xml
from dicomnode.audit_message import Code, Event, Subject
from dicomnode.config import Config, Destination, Sender

if TYPE_CHECKING:
    from pydicom import Dataset

    from dicomnode.network.association import Peer, StoreRequest
    from dicomnode.study import Instance

logger = logging.getLogger(__name__)

FILE_BYTES = 16 << 20  # a file that has grown to this is followed by the next
ALERT_SECONDS = 10.0  # an address that is refused more often is written once in this time: it must not fill the disk
PRIORITY = 10 * 8 + 5  # security, notice (PS3.15 A.6)
HOST = socket.gethostname()


class Object(Protocol):
    """An instance or a result: what an event can be about."""

    @property
    def study_uid(self) -> str: ...

    @property
    def sop_class_uid(self) -> str: ...

    @property
    def path(self) -> Path: ...


class Sent(Protocol):
    """What became of an object that was sent."""

    @property
    def problem(self) -> str: ...

    @property
    def comment(self) -> str: ...

    @property
    def transient(self) -> bool: ...


class Trail:
    """Writes the audit messages of one node, from any of its processes. A Trail of `audit.enabled = false` is mute."""

    def __init__(self, config: Config) -> None:
        self._folder, self._title = folder(config), config.receive.ae_title
        self._enabled = config.audit.enabled
        self._alerted: dict[str, float] = {}
        if self._enabled:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def application(self, what: Code) -> None:
        """The node starts or stops."""
        self._write(Event(id=xml.ACTIVITY, action="E", type=what), [self._us(xml.APPLICATION, requestor=True)])

    def received(self, peer: Peer, subject: Subject, problem: str = "") -> None:
        """A sender brought instances of a study, which are stored; `problem` says how its association broke off."""
        self._write(Event(id=xml.TRANSFERRED, action="C", problem=problem), self._incoming(peer), xml.study(subject))

    def not_received(self, peer: Peer, classes: Counter[str]) -> None:
        """So many instances by SOP class were refused or cut off; nobody knows of which study they are."""
        event = Event(id=xml.TRANSFERRED, action="C", problem=f"{classes.total()} instance(s) were not stored")
        self._write(event, self._incoming(peer), [xml.instances(uid, count) for uid, count in classes.items()])

    def begins(self, peer: Destination, objects: Iterable[Object]) -> None:
        """Results are about to be sent."""
        for subject in subjects(objects, anonymized=peer.deidentify):
            self._write(Event(id=xml.BEGIN, action="E"), self._outgoing(peer), xml.study(subject))

    def sent(self, peer: Destination, objects: Sequence[Object], outcomes: Sequence[Sent]) -> None:
        """Results were sent: one message for those that arrived, one for those to be tried again, one for the others.

        (PS3.15 A.5.2: one message is not to have mixed outcomes.)
        """
        groups: dict[tuple[bool, bool], list[tuple[Object, Sent]]] = {}
        for item, outcome in zip(objects, outcomes, strict=True):
            groups.setdefault((bool(outcome.problem), outcome.transient), []).append((item, outcome))
        for (failed, transient), pairs in groups.items():
            comments = dict.fromkeys(outcome.comment for _, outcome in pairs if outcome.comment)
            why = (f"refused, {'to be tried again' if transient else 'given up'}") if failed else ""
            why = "; ".join([why, *comments])
            event = Event(id=xml.TRANSFERRED, action="R", problem=why, serious=failed and not transient)
            for subject in subjects((item for item, _ in pairs), anonymized=peer.deidentify):
                self._write(event, self._outgoing(peer), xml.study(subject))

    def not_sent(self, peer: Destination, objects: Iterable[Object], problem: str) -> None:
        """A try to send broke off or did not come about; it will be made again."""
        for subject in subjects(objects, anonymized=peer.deidentify):
            self._write(
                Event(id=xml.TRANSFERRED, action="R", problem=problem), self._outgoing(peer), xml.study(subject)
            )

    def analysed(self, objects: Iterable[Object], problem: str) -> None:
        """An analysis read images; `problem` says why it failed."""
        event = Event(id=xml.ACCESSED, action="R", problem=problem, serious=True)
        for subject in subjects(objects):
            self._write(event, [self._us(xml.APPLICATION, requestor=True)], xml.study(subject))

    def viewed(self, address: str, image: Dataset) -> None:
        """Somebody looked at a key image on the status page, which knows people by their address only."""
        people = [xml.party(address, address=address, requestor=True), self._us(xml.APPLICATION)]
        subject = Subject(study_uid=image.StudyInstanceUID, patient_id=str(image.get("PatientID", "")))
        subject.classes[image.SOPClassUID] += 1
        self._write(Event(id=xml.ACCESSED, action="R"), people, xml.study(subject))

    def deleted(self, objects: Iterable[Object]) -> None:
        """Instances or results were deleted for good."""
        for subject in subjects(objects):
            self._write(
                Event(id=xml.DELETED, action="D"), [self._us(xml.APPLICATION, requestor=True)], xml.study(subject, "15")
            )

    def queried(self, peer: Sender, query: tuple[str, bytes], problem: str = "") -> None:
        """A sender was asked; `query` is the SOP class of the C-FIND and its identifier, in implicit little endian."""
        sop_class, identifier = query
        parties = [self._us(xml.SOURCE, requestor=True), xml.peer(xml.DESTINATION, peer.ae_title, str(peer.host))]
        asked = xml.thing(xml.CLASS_UID, sop_class, kind="2", role="3", query=identifier)
        xml.detail(asked, "TransferSyntax", "1.2.840.10008.1.2")
        self._write(Event(id=xml.QUERY, action="E", problem=problem), parties, [asked])

    def alert(self, address: str, why: str, serious: bool) -> None:
        """Somebody was refused at the door: a wrong name (minor), or a wrong proof of who it is (serious)."""
        now = time.monotonic()
        self._alerted = {who: at for who, at in self._alerted.items() if now - at < ALERT_SECONDS}
        if address in self._alerted:
            return
        self._alerted[address] = now
        event = Event(id=xml.ALERT, action="E", type=xml.AUTHENTICATION, problem=why, serious=serious)
        node = xml.thing(xml.NODE_ID, self._title, kind="2")
        xml.detail(node, "Alert Description", why)
        self._write(event, [self._us(xml.APPLICATION), xml.party(address, address=address, requestor=True)], [node])

    def _us(self, role: Code, *, requestor: bool = False) -> Element:
        party = xml.party(str(os.getpid()), address=HOST, requestor=requestor, title=self._title)
        xml.coded(party, "RoleIDCode", role)
        return party

    def _incoming(self, peer: Peer) -> list[Element]:
        return [xml.peer(xml.SOURCE, peer.calling_ae, peer.address, requestor=True), self._us(xml.DESTINATION)]

    def _outgoing(self, peer: Destination) -> list[Element]:
        return [self._us(xml.SOURCE, requestor=True), xml.peer(xml.DESTINATION, peer.ae_title, peer.host)]

    def _write(self, event: Event, parties: Iterable[Element], objects: Iterable[Element] = ()) -> None:
        """Have a message on the disk. One that cannot be written is an error in the log, and holds no images up."""
        if not self._enabled:
            return
        now = datetime.now(UTC)
        message = xml.message(event, now, self._title, [*parties, *objects])
        stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = f"<{PRIORITY}>1 {stamp} {HOST} dicomnode {os.getpid()} DICOM+RFC3881 - \ufeff"
        try:
            _append(self._folder, head.encode() + message + b"\n")
        except OSError as error:
            logger.exception("audit message lost", extra={"event_id": event.id.meaning, "errno": error.errno})


class Transfers:
    """What each open association has brought; an association is served by one thread."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._stored: dict[str, dict[str, Subject]] = {}
        self._waiting: dict[str, Counter[str]] = {}  # announced and not stored, by SOP class

    def offered(self, peer: Peer, request: StoreRequest) -> None:
        """An instance is announced."""
        self._waiting.setdefault(peer.association, Counter())[request.sop_class_uid] += 1

    @contextmanager
    def storing(self, peer: Peer, item: Instance) -> Iterator[None]:
        """Around the step that makes an instance durable."""
        mine = self._stored.setdefault(peer.association, {})
        subject = mine.get(item.study_uid) or Subject(study_uid=item.study_uid, patient_id=_patient_id(item.path))
        yield
        mine[item.study_uid] = subject
        subject.classes[item.sop_class_uid] += 1
        self._waiting[peer.association][item.sop_class_uid] -= 1

    def ended(self, peer: Peer, ending: str) -> None:
        """The association is over: write what came and what did not."""
        problem = "" if ending == "released" else f"association {ending} after these instances were stored"
        for subject in self._stored.pop(peer.association, {}).values():
            self._trail.received(peer, subject, problem)
        if missing := +self._waiting.pop(peer.association, Counter()):
            self._trail.not_received(peer, missing)


def folder(config: Config) -> Path:
    """Where the trail lies: audit-000001.log, audit-000002.log, ..."""
    return config.data_dir / "audit"


def files(folder: Path) -> list[Path]:
    """The files of a trail, oldest first."""
    return sorted(folder.glob("audit-*.log"))


def subjects(objects: Iterable[Object], *, anonymized: bool = False) -> list[Subject]:
    """Group objects by study; one of each says who the patient is."""
    found: dict[str, Subject] = {}
    for item in objects:
        if item.study_uid not in found:
            patient = _patient_id(item.path)
            found[item.study_uid] = Subject(study_uid=item.study_uid, patient_id=patient, anonymized=anonymized)
        found[item.study_uid].classes[item.sop_class_uid] += 1
    return list(found.values())


def _patient_id(path: Path) -> str:
    import pydicom  # costs a second, which the supervisor need not wait for

    try:
        return str(pydicom.dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True).get("PatientID", ""))
    except Exception as error:  # noqa: BLE001 - hostile bytes raise anything inside the parser; the event stays true
        return f"cannot be read: {type(error).__name__}"


def _append(folder: Path, line: bytes) -> None:
    """Write and flush a line as a whole, whoever else writes."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = _newest(folder)
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a writer was killed, or the disk was full
                line = b"\n" + line
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            os.fsync(lock)
    finally:
        os.close(lock)


def _newest(folder: Path) -> Path:
    present = files(folder)
    if not present:
        return folder / "audit-000001.log"
    if present[-1].stat().st_size < FILE_BYTES:
        return present[-1]
    return folder / f"audit-{int(present[-1].stem.removeprefix('audit-')) + 1:06d}.log"
