"""The acceptor's side of one association: upper layer protocol and requests over a blocking socket.

pynetdicom encodes, decodes and negotiates; the bytes of a data set go straight from the socket to their sink.
pynetdicom's own acceptor moves every PDU through two polling threads and several queues without a bound on
PDU, message or queue, and waits for ever for the rest of a half-sent PDU; here every read has a deadline and
every length a limit (docs/decisions/0002-own-acceptor.md).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.sop_class import Verification

from dicomnode.config import Limits
from dicomnode.errors import Refused
from dicomnode.network.command import (
    C_ECHO_REQUEST,
    C_STORE_REQUEST,
    N_EVENT_REPORT_REQUEST,
    SUCCESS,
    UNSUPPORTED_OPERATION,
    Command,
    decode,
    encode_response,
)
from dicomnode.network.wire import (
    ASSOCIATE_REQUEST,
    DATA,
    MAX_PDU_BYTES,
    PDU_SECONDS,
    RELEASE_REQUEST,
    Pdu,
    PeerError,
    PeerGone,
    Value,
    Wire,
    values,
)
from dicomnode.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

REQUEST_SECONDS = 10.0  # for the association request after the connection (the ARTIM timer of PS3.8)
MAX_REQUEST_BYTES = 1 << 20  # of the association request
MAX_COMMAND_BYTES = 64 << 10
MAX_REPORT_BYTES = 4 << 20  # names some 20,000 instances

_REJECT_PERMANENT, _REJECT_TRANSIENT = 1, 2


class Rejected(Exception):
    """The association is not wanted: result, source and reason of PS3.8 table 9-21."""

    def __init__(self, result: int, source: int, reason: int, why: str) -> None:
        super().__init__(why)
        self.codes = (result, source, reason)


UNKNOWN_CALLED = (_REJECT_PERMANENT, 1, 7)
UNKNOWN_CALLING = (_REJECT_PERMANENT, 1, 3)
LOCAL_LIMIT = (_REJECT_TRANSIENT, 3, 2)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Who is at the other end."""

    association: str  # our own name for this association
    address: str
    calling_ae: str
    called_ae: str
    only_verifies: bool  # it proposes nothing but Verification


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """What a C-STORE request announces about the data set that follows."""

    sop_class_uid: str
    sop_uid: str
    transfer_syntax_uid: str


class Sink(Protocol):
    """Takes one data set. `discard` follows whenever `finish` was not reached or raised."""

    def write(self, data: memoryview) -> None: ...

    def finish(self) -> None:
        """Return once the instance is durable; raises Refused with the status for the sender."""

    def discard(self) -> None: ...


class Acceptor(Protocol):
    """What the owner of the listener decides."""

    def admit(self, peer: Peer) -> None:
        """Raise Rejected for an unwelcome peer."""

    def store(self, peer: Peer, request: StoreRequest) -> Sink:
        """Open a sink for a data set; raises Refused with the status for the sender."""

    def ended(self, peer: Peer, ending: str) -> None:
        """An admitted association ended: "released", "aborted" or "lost"."""

    def report(self, peer: Peer, data: bytes, transfer_syntax_uid: str) -> None:
        """Keep what an N-EVENT-REPORT says; raises Refused with the status for the sender."""
        raise Refused(Refused.UNSUPPORTED_OPERATION, "no reports are expected here")

    def refused(self, peer: Peer, status: int, why: str) -> None:
        """An instance was not taken; its sender is about to hear so."""


class _Rest(NamedTuple):
    """Where the data set of a message begins: the values behind its command in the same PDU."""

    context_id: int
    parts: list[Value]


class Connection:
    """One TCP connection that may become an association."""

    def __init__(self, sock: socket.socket, *, address: str, name: str, limits: Limits) -> None:
        self._wire, self._address, self._limits = Wire(sock), address, limits
        self.name = name
        self.busy = False  # inside a message
        self.draining = False  # set by another thread: end after the message

    def serve(
        self, acceptor: Acceptor, contexts: Sequence[PresentationContext], tls: ssl.SSLContext | None = None
    ) -> None:
        """Negotiate, then answer until the peer releases, aborts, misbehaves or vanishes."""
        if tls is not None:
            self._wire.secure(tls)
        self._wire.open()
        request, peer = self._read_request()
        try:
            acceptor.admit(peer)
        except Rejected as rejection:
            self._reject(rejection)
            raise
        ending = "lost"
        try:
            accepted = self._accept(request, contexts)
            self._serve_messages(acceptor, peer, accepted)
            ending = "released"
        except PeerGone as gone:
            ending = str(gone)
        except PeerError:
            self._abort()
            ending = "aborted"
            raise
        finally:
            acceptor.ended(peer, ending)

    def drain(self) -> None:
        """From another thread: finish the message at hand, then end."""
        self.draining = True
        if not self.busy:
            self.cut()

    def cut(self) -> None:
        """From another thread: end the connection at once."""
        self._wire.cut()

    def close(self) -> None:
        """After `serve`: give the socket back."""
        self._wire.close()

    # -- negotiation ----------------------------------------------------------------------------------------

    def _read_request(self) -> tuple[A_ASSOCIATE, Peer]:
        pdu = self._wire.read(REQUEST_SECONDS, MAX_REQUEST_BYTES, first=True)
        if pdu.kind != ASSOCIATE_REQUEST:
            raise PeerError(f"the first PDU has type {pdu.kind:#04x}, not an association request")
        try:
            request = A_ASSOCIATE_RQ()
            request.decode(bytes(pdu.body))
            primitive = request.to_primitive()
            calling, called = primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()
            proposed = {context.abstract_syntax for context in primitive.presentation_context_definition_list}
        except Exception as error:  # noqa: BLE001 - hostile bytes raise anything inside the decoder
            raise PeerError(f"association request cannot be decoded: {type(error).__name__}") from error
        return primitive, Peer(
            association=self.name,
            address=self._address,
            calling_ae=calling,
            called_ae=called,
            only_verifies=proposed <= {Verification},
        )

    def _accept(self, request: A_ASSOCIATE, contexts: Sequence[PresentationContext]) -> dict[int, PresentationContext]:
        """Send the answer; returns the accepted presentation contexts by their number."""
        try:
            # An archive that reports on an association of its own says that it is the provider there.
            proposed = [i for i in request.user_information if isinstance(i, SCP_SCU_RoleSelectionNegotiation)]
            results, roles = negotiate_as_acceptor(
                request.presentation_context_definition_list,
                list(contexts),
                {item.sop_class_uid: (item.scu_role, item.scp_role) for item in proposed},
            )
            answer = _acceptance(request, results, roles)
        except Exception as error:  # noqa: BLE001 - a request that lacks what the standard demands shows only here
            raise PeerError(f"association request cannot be answered: {type(error).__name__}") from error
        self._wire.send(answer)
        return {context.context_id: context for context in results if context.result == 0}

    def _reject(self, rejection: Rejected) -> None:
        primitive = A_ASSOCIATE()
        primitive.result, primitive.result_source, primitive.diagnostic = rejection.codes
        pdu = A_ASSOCIATE_RJ()
        pdu.from_primitive(primitive)
        self._wire.send(pdu.encode())
        self._wire.await_close(1.0)

    def _abort(self) -> None:
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 2, 0  # by the service provider, no reason given
        with contextlib.suppress(PeerGone):
            self._wire.send(pdu.encode())

    # -- messages -------------------------------------------------------------------------------------------

    def _serve_messages(self, acceptor: Acceptor, peer: Peer, accepted: dict[int, PresentationContext]) -> None:
        while True:
            pdu = self._wire.read(self._limits.idle_seconds, MAX_PDU_BYTES)
            if pdu.kind == RELEASE_REQUEST:
                reply = A_RELEASE_RP()
                reply.from_primitive(A_RELEASE())
                self._wire.send(reply.encode())
                return
            self.busy = True
            command, rest = self._read_command(pdu)
            if rest.context_id not in accepted:
                raise PeerError(f"message on presentation context {rest.context_id}, which was not accepted")
            self._answer(acceptor, peer, accepted[rest.context_id], command, rest)
            self.busy = False
            if self.draining:
                raise PeerError("the node is shutting down")

    def _answer(
        self, acceptor: Acceptor, peer: Peer, context: PresentationContext, command: Command, rest: _Rest
    ) -> None:
        if command.kind == C_ECHO_REQUEST:
            self._respond(context, command, SUCCESS)
        elif command.kind == C_STORE_REQUEST:
            status, comment = self._store(acceptor, peer, context, command, rest)
            if status != SUCCESS:
                acceptor.refused(peer, status, comment)
            self._respond(context, command, status, comment)
        elif command.kind == N_EVENT_REPORT_REQUEST:
            status, comment = self._report(acceptor, peer, context, self._collect(command, rest))
            self._respond(context, command, status, comment)
        else:
            if command.has_dataset:
                for _ in self._fragments(rest):
                    pass
            self._respond(context, command, UNSUPPORTED_OPERATION)

    def _report(self, acceptor: Acceptor, peer: Peer, context: PresentationContext, data: bytes) -> tuple[int, str]:
        """Hand a report on; returns status and comment for the sender."""
        try:
            acceptor.report(peer, data, str(context.transfer_syntax[0]))
        except Refused as refusal:
            return refusal.status, str(refusal)
        return SUCCESS, ""

    def _collect(self, command: Command, rest: _Rest) -> bytes:
        """A small data set as a whole."""
        data = bytearray()
        for fragment in self._fragments(rest) if command.has_dataset else ():
            data += fragment
            if len(data) > MAX_REPORT_BYTES:
                raise PeerError(f"report is longer than {MAX_REPORT_BYTES} bytes")
        return bytes(data)

    def _store(
        self, acceptor: Acceptor, peer: Peer, context: PresentationContext, command: Command, rest: _Rest
    ) -> tuple[int, str]:
        """Move one data set from the socket to its sink; returns status and comment for the sender."""
        sink: Sink | None = None
        refusal: Refused | None = None
        fragments = self._fragments(rest)
        try:
            try:
                sink = acceptor.store(peer, _store_request(command, context))
                for data in fragments:
                    sink.write(data)
                sink.finish()
                sink = None
            except Refused as error:
                refusal = error
            except OSError as error:  # of the sink: the socket's own become PeerGone
                refusal = Refused(Refused.OUT_OF_RESOURCES, f"storage failed: {error.strerror}")
            for _ in fragments:  # what is left of a refused data set is read and forgotten
                pass
        finally:
            if sink is not None:
                sink.discard()
        return (refusal.status, str(refusal)) if refusal else (SUCCESS, "")

    def _respond(self, context: PresentationContext, request: Command, status: int, comment: str = "") -> None:
        pdv = bytes([context.context_id or 0, 0x03]) + encode_response(request, status, comment)
        self._wire.send(struct.pack(">BBLL", DATA, 0, len(pdv) + 4, len(pdv)) + pdv)

    def _read_command(self, pdu: Pdu) -> tuple[Command, _Rest]:
        """Collect a command set; what follows it in the same PDU is handed on."""
        data = bytearray()
        parts = values(pdu)
        while True:
            for index, value in enumerate(parts):
                if not value.control & 1:
                    raise PeerError("data set fragment where a command was expected")
                data += value.data
                if len(data) > MAX_COMMAND_BYTES:
                    raise PeerError("command set is too long")
                if value.control & 2:
                    return decode(bytes(data)), _Rest(value.context_id, parts[index + 1 :])
            parts = values(self._wire.read(PDU_SECONDS, MAX_PDU_BYTES))

    def _fragments(self, rest: _Rest) -> Iterator[memoryview]:
        """The data set's bytes up to its last fragment."""
        context_id, parts = rest
        total = 0
        while True:
            for value in parts:
                total += len(value.data)
                if value.control & 1 or value.context_id != context_id:
                    raise PeerError("command or other context inside a data set")
                if total > self._limits.instance_mb << 20:
                    raise PeerError(f"data set is longer than {self._limits.instance_mb} MB")
                yield value.data
                if value.control & 2:
                    return
            parts = values(self._wire.read(PDU_SECONDS, MAX_PDU_BYTES))


def _store_request(command: Command, context: PresentationContext) -> StoreRequest:
    if command.sop_class_uid != context.abstract_syntax:
        raise Refused(Refused.MISMATCH, "SOP class differs from the one that was negotiated")
    return StoreRequest(
        sop_class_uid=command.sop_class_uid,
        sop_uid=command.sop_uid,
        transfer_syntax_uid=str(context.transfer_syntax[0]),
    )


def _acceptance(
    request: A_ASSOCIATE, results: list[PresentationContext], roles: list[SCP_SCU_RoleSelectionNegotiation]
) -> bytes:
    """Encode the answer to an association request."""
    maximum = MaximumLengthNotification()
    maximum.maximum_length_received = MAX_PDU_BYTES
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION
    answer = A_ASSOCIATE()
    answer.application_context_name = request.application_context_name
    answer.calling_ae_title, answer.called_ae_title = request.calling_ae_title, request.called_ae_title
    answer.result, answer.result_source = 0x00, 0x01
    answer.presentation_context_definition_results_list = results
    answer.user_information = [maximum, implementation, version, *roles]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    return bytes(pdu.encode())
