"""Send DICOM files to another node by C-STORE."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext

from dicomnode.errors import Transient
from dicomnode.header import IDENTIFIERS
from dicomnode.network import tls

logger = logging.getLogger(__name__)

CONNECT_SECONDS, ASSOCIATE_SECONDS, REPLY_SECONDS = 5, 10, 60
MAX_CONTEXTS = 128  # of one association (PS3.8 9.3.2.2)
_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # they hold patient data


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a DICOM node listens."""

    ae_title: str
    host: str
    port: int
    #: How to speak TLS with it; None for plain TCP.
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file."""

    path: Path
    sop_uid: str
    #: Empty if the peer has it now.
    problem: str = ""
    #: What the peer says about it. It may name the patient: for the sender's eyes and the audit trail alone.
    comment: str = field(default="", repr=False)
    #: Whether the same file may be taken later.
    transient: bool = False
    #: Whether the peer does not take this SOP class at all.
    unsupported: bool = False


class Unsupported(Transient):
    """The peer is there and offers nothing of what it was asked for."""


def connect(address: Address, contexts: Sequence[PresentationContext], *, calling_ae: str) -> Association:
    """Open an association; raises Transient with the reason if the peer cannot be reached or refuses."""
    ae = AE(ae_title=calling_ae)
    ae.connection_timeout, ae.acse_timeout = CONNECT_SECONDS, ASSOCIATE_SECONDS
    ae.dimse_timeout = ae.network_timeout = REPLY_SECONDS
    rejections: list[A_ASSOCIATE_RJ] = []
    try:
        association = ae.associate(
            address.host,
            address.port,
            contexts=list(contexts),
            ae_title=address.ae_title,
            tls_args=(address.tls, address.host) if address.tls else None,
            evt_handlers=[(evt.EVT_CONN_OPEN, _no_delay), (evt.EVT_PDU_RECV, _keep_rejection, [rejections])],
        )
    except OSError as error:  # pynetdicom keeps to itself what goes wrong later, but not a name without an address
        raise Transient(f"{address}: {error.strerror}", hint="check the host name and the name server") from error
    if association.is_established:
        # On a busy machine pynetdicom's own thread wakes up late from the message before, takes the answer to the next
        # off the queue, and drops it. We serve no requests here, so whatever it takes goes back.
        association._serve_request = lambda message, context: association.dimse.msg_queue.put((context, message))
        return association
    if rejections:  # not `is_rejected`: pynetdicom misses an answer that comes before it waits for one
        raise Transient(
            f"{address} rejected the association: {rejections[0].reason_str}",
            hint=f"does it know the calling AE title {calling_ae!r}, and is {address.ae_title!r} its own?",
        )
    if association.acceptor.primitive is not None:
        raise Unsupported(f"{address} accepts none of the SOP classes that were offered")
    if address.tls and (why := tls.problem(address.tls, address.host, address.port)):
        raise Transient(f"{address}: no TLS connection: {why}", hint="compare the certificates and authorities of both")
    raise Transient(f"{address} does not answer", hint="check host, port and firewall; try: dicomnode echo")


def _no_delay(event: evt.Event) -> None:
    """Nagle's algorithm and delayed acknowledgements would cost 40 ms for each image."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _keep_rejection(event: evt.Event, rejections: list[A_ASSOCIATE_RJ]) -> None:
    if isinstance(event.pdu, A_ASSOCIATE_RJ):
        rejections.append(event.pdu)


def send(
    paths: Sequence[Path],
    address: Address,
    *,
    calling_ae: str,
    instead: Mapping[Path, Path] = MappingProxyType({}),
    progress: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Send files and return their outcomes in the same order; a file that is refused does not stop the others.

    `instead` names the file to send in place of one whose SOP class the peer does not accept. Raises Transient if no
    association can be opened or it breaks off.
    """
    # What may be sent instead is offered in the same association.
    files, done = _look_into([*paths, *instead.values()])
    for outcome in done.values():
        progress(outcome)
    kinds = list(dict.fromkeys(kind for _, kind in files.values()))
    for start in range(0, len(kinds), MAX_CONTEXTS):
        group = kinds[start : start + MAX_CONTEXTS]
        contexts = [build_context(sop_class, _syntaxes(syntax)) for sop_class, syntax in group]
        association = connect(address, contexts, calling_ae=calling_ae)
        try:
            for position, (path, kind) in files.items():
                if kind in group and position < len(paths):
                    done[position] = _store(association, path, address)
                    if done[position].unsupported and path in instead:
                        done[position] = replace(_store(association, instead[path], address), path=path)
                    progress(done[position])
        finally:
            if association.is_established:
                association.release()
    return [done[position] for position in range(len(paths))]


def _look_into(paths: Iterable[Path]) -> tuple[dict[int, tuple[Path, tuple[str, str]]], dict[int, Outcome]]:
    """By position: the files with their SOP class and transfer syntax, and the outcomes of those that have none."""
    files, unusable = {}, {}
    for position, path in enumerate(paths):
        try:
            header = pydicom.dcmread(path, specific_tags=list(IDENTIFIERS), stop_before_pixels=True)
            files[position] = path, (str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID))
        except Exception as error:  # noqa: BLE001 - a file that is no DICOM raises anything inside the parser
            problem = f"cannot be read as a DICOM file: {type(error).__name__}"
            unusable[position] = Outcome(path=path, sop_uid="", problem=problem)
    return files, unusable


def _syntaxes(syntax: str) -> list[str]:
    """An uncompressed object may travel in either little endian syntax; a compressed one only as it is."""
    plain = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    return [syntax, *(other for other in plain if other != syntax)] if syntax in plain else [syntax]


def _store(association: Association, path: Path, address: Address) -> Outcome:
    dataset = pydicom.dcmread(path)
    uid = str(dataset.SOPInstanceUID)
    try:
        reply = association.send_c_store(dataset)
    except ValueError:  # pynetdicom: no accepted presentation context fits the data set
        name = dataset.SOPClassUID.name
        return Outcome(path=path, sop_uid=uid, problem=f"{address.ae_title} does not accept {name}", unsupported=True)
    except RuntimeError as error:
        raise Transient(f"the association with {address} broke off") from error
    if "Status" not in reply:
        association.abort()
        raise Transient(f"{address} did not answer a C-STORE request within {REPLY_SECONDS} s")
    status = int(reply.Status)
    if status == 0x0000 or status >> 12 == 0xB:  # success, or stored with a warning
        return Outcome(path=path, sop_uid=uid)
    problem, comment = f"refused with status {status:04X}", str(reply.get("ErrorComment", ""))
    return Outcome(path=path, sop_uid=uid, problem=problem, comment=comment, transient=status >> 8 == 0xA7)
