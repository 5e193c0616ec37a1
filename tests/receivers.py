"""A receiver inside the test's own process, and raw sockets that speak to it."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association

from dicomnode import ledger
from dicomnode.audit import Trail
from dicomnode.config import Config, Limits, Receive
from dicomnode.doctor import encode_sample
from dicomnode.network.echo import echo
from dicomnode.network.listen import Listener
from dicomnode.network.send import Address, connect
from dicomnode.receive import Receiver
from dicomnode.spool import Spool, dataset_offset, digest_of


class Running:
    """A receiver on a free port, with its spool and ledger."""

    def __init__(
        self,
        folder: Path,
        *,
        tls: Sequence[ssl.SSLContext | None] = (None, None),
        limits: Limits = Limits(),  # noqa: B008 - frozen
        **receive,
    ) -> None:
        server, client = tls
        config = Config(data_dir=folder, receive=Receive(host="127.0.0.1", **receive), limits=limits)
        folder.mkdir(exist_ok=True)
        self.spool, self.ledger = Spool(folder / "spool"), ledger.connect(config.ledger_url)
        self.trail = Trail(config)
        receiver = Receiver(config, self.spool, self.ledger, self.trail)
        alert = self.trail.alert
        self.listener = Listener(receiver, host="127.0.0.1", port=0, limits=limits, tls=server, alert=alert)
        port = self.listener.port
        self.address = Address(ae_title=config.receive.ae_title, host="127.0.0.1", port=port, tls=client)

    def stored(self) -> dict[str, str]:
        return {instance.sop_uid: digest_of(instance) for instance in self.ledger.instances()}

    def files(self) -> set[Path]:
        """Every file of the spool, whether the ledger knows it or not."""
        return {path for path in self.spool.root.rglob("*") if path.is_file()}

    def kept(self) -> set[Path]:
        """Every file that got its final name."""
        return set(self.spool.root.glob("studies/*/*"))

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.address.port), timeout=10)

    def associated(self, sop_class: str = CTImageStorage) -> socket.socket:
        """A raw socket on which a request was accepted: context 1, explicit little endian."""
        sock = self.connection()
        sock.sendall(associate_request(sop_class))
        assert sock.recv(65536)[0] == 0x02
        return sock

    def raw_store(self, data: bytes, **command: str) -> int:
        """Store bytes as a data set; return the status."""
        with closing(self.associated()) as sock:
            sock.sendall(pdata(value(store_command(**command))) + pdata(value(data, control=0x02)))
            return status_of(sock.recv(65536))

    def still_works(self) -> bool:
        return echo(self.address, calling_ae="AFTER") > 0


@contextmanager
def association_to(receiver: Running, *, syntax: str = ExplicitVRLittleEndian) -> Iterator[Association]:
    peer = connect(receiver.address, [build_context(CTImageStorage, syntax)], calling_ae="TEST")
    yield peer
    if peer.is_established:
        peer.release()


def soon(what: str, ask: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once a condition holds."""
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def associate_request(
    sop_class: str,
    *,
    called: bytes | str = "DICOMNODE",
    calling: bytes | str = "RAW",
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian,),
    context: int = 1,
    without: Collection[str] = (),
) -> bytes:
    """An A-ASSOCIATE-RQ with one presentation context; `without` names items to leave out."""

    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body

    def title(text: bytes | str) -> bytes:
        return (text.encode() if isinstance(text, str) else text).ljust(16)

    offered = item(0x30, sop_class.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    items = {
        "application": item(0x10, b"1.2.840.10008.3.1.1.1"),
        "contexts": item(0x20, struct.pack(">B3x", context) + offered),
        "user": item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")),
    }
    body = struct.pack(">HH16s16s32x", 1, 0, title(called), title(calling))
    body += b"".join(part for name, part in items.items() if name not in without)
    return struct.pack(">BBL", 0x01, 0, len(body)) + body


def value(data: bytes, *, context: int = 1, control: int = 0x03) -> bytes:
    """A presentation data value: a whole command unless `control` says otherwise."""
    return struct.pack(">LBB", len(data) + 2, context, control) + data


def pdata(*values: bytes) -> bytes:
    body = b"".join(values)
    return struct.pack(">BBL", 0x04, 0, len(body)) + body


def numbers(**elements: int) -> bytes:
    """Command elements of VR US, by name."""
    known = {"kind": 0x0100, "message_id": 0x0110, "priority": 0x0700, "dataset": 0x0800}
    return b"".join(struct.pack("<HHLH", 0, known[name], 2, number) for name, number in elements.items())


def store_command(*, sop_uid: str = "1.2.3", sop_class: str = CTImageStorage, dataset: int = 1) -> bytes:
    def text(element: int, uid: str) -> bytes:
        raw = uid.encode() + b"\0" * (len(uid) % 2)
        return struct.pack("<HHL", 0, element, len(raw)) + raw

    body = text(0x0002, sop_class) + numbers(kind=1, message_id=7, priority=0, dataset=dataset) + text(0x1000, sop_uid)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def echo_command() -> bytes:
    return numbers(kind=0x0030, message_id=4, dataset=0x0101)


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
    folder.mkdir(parents=True, exist_ok=True)
    path, _ = encode_sample(ExplicitVRLittleEndian, folder)
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop_uid
    dataset.StudyInstanceUID = study_uid
    for keyword, new in changes.items():
        setattr(dataset, keyword, new)
    target = folder / f"{sop_uid}-{len(list(folder.iterdir()))}.dcm"
    dataset.save_as(target, enforce_file_format=True)
    return target


def ct_bytes(folder: Path, **changes) -> bytes:
    """The data set of a small CT image, without file meta information."""
    path = ct_file(folder, **changes)
    return path.read_bytes()[dataset_offset(path) :]
