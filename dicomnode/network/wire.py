"""PDUs on a blocking socket: every read has a deadline and every length a limit (PS3.8 section 9.3)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from typing import NamedTuple

from dicomnode.network.tls import HANDSHAKE_SECONDS

PDU_SECONDS = 20.0  # for the rest of a PDU that has begun
MAX_PDU_BYTES = 256 << 10  # offered to the peer, and enforced

ASSOCIATE_REQUEST, DATA, RELEASE_REQUEST, ABORT = 0x01, 0x04, 0x05, 0x07


class PeerError(Exception):
    """The peer broke the protocol, a limit or a deadline: the association is aborted."""


class NotAuthenticated(PeerError):
    """The peer could not prove by TLS who it is."""


class PeerGone(Exception):
    """The peer closed the connection or sent an abort."""


class Pdu(NamedTuple):
    """A PDU's type and what follows its head; the whole PDU for an association request."""

    kind: int
    body: memoryview


class Value(NamedTuple):
    """A presentation data value (PS3.8 9.3.5.1): control bit 0 marks a command, bit 1 the last fragment."""

    context_id: int
    control: int
    data: memoryview


class Wire:
    """One TCP connection, seen as PDUs."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(MAX_PDU_BYTES)

    def secure(self, context: ssl.SSLContext) -> None:
        """Shake hands as the server."""
        self._socket.settimeout(HANDSHAKE_SECONDS)
        try:
            self._socket = context.wrap_socket(self._socket, server_side=True)
        except TimeoutError as error:
            raise PeerError("TLS: silent for too long") from error
        except ssl.SSLEOFError as error:  # gone before it said who it is, as the checks of a load balancer are
            raise PeerError(f"TLS: {error}") from error
        except ssl.SSLError as error:
            raise NotAuthenticated(f"TLS: {error}") from error
        except OSError as error:
            raise PeerError(f"TLS: {error}") from error

    def open(self) -> None:
        """Make the connection ready; it may be gone already."""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise PeerGone("lost") from error

    def read(self, wait: float, limit: int, *, first: bool = False) -> Pdu:
        """Read one PDU; its body is valid until the next call."""
        deadline = time.monotonic() + wait
        head = bytearray(6)
        begun = self._receive(memoryview(head), deadline)
        # A peer that has begun a PDU must finish it: a trickle of bytes does not hold the connection.
        deadline = deadline if first else time.monotonic() + PDU_SECONDS
        self._fill(memoryview(head)[begun:], deadline)
        kind, _, length = struct.unpack(">BBL", head)
        if length > limit:
            raise PeerError(f"PDU of {length} bytes, the limit is {limit}")
        # Only an association request can be longer than the buffer; what it took is not held for the association.
        body = memoryview(self._buffer if length <= len(self._buffer) else bytearray(length))[:length]
        self._fill(body, deadline)
        if kind == ABORT:
            raise PeerGone("aborted")
        if not first and kind not in (DATA, RELEASE_REQUEST):
            raise PeerError(f"unexpected PDU of type {kind:#04x}")
        return Pdu(kind, memoryview(bytes(head) + bytes(body)) if first else body)

    def _fill(self, target: memoryview, deadline: float) -> None:
        filled = 0
        while filled < len(target):
            filled += self._receive(target[filled:], deadline)

    def _receive(self, target: memoryview, deadline: float) -> int:
        """Read what there is, at least one byte."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerError("silent for too long")
        self._socket.settimeout(left)
        try:
            count = self._socket.recv_into(target)
        except TimeoutError as error:
            raise PeerError("silent for too long") from error
        except OSError as error:
            raise PeerGone("lost") from error
        if count == 0:
            raise PeerGone("lost")
        return count

    def send(self, data: bytes) -> None:
        self._socket.settimeout(PDU_SECONDS)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise PeerGone("lost") from error

    def await_close(self, seconds: float) -> None:
        """Let the peer close first, as the requestor does after a rejection (PS3.8 9.2.3, state 13)."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            self._socket.recv(1)

    def cut(self) -> None:
        """From any thread: end the connection now, whoever waits for it."""
        with contextlib.suppress(OSError):  # it is closed already
            # Not the method of a TLS socket, which would read on without TLS in the thread that waits.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def values(pdu: Pdu) -> list[Value]:
    """Split a P-DATA-TF PDU into its presentation data values."""
    if pdu.kind != DATA:
        raise PeerError("release inside a message")
    found, position, body = [], 0, pdu.body
    while position < len(body):
        if position + 6 > len(body):
            raise PeerError("malformed presentation data value")
        length, context_id, control = struct.unpack_from(">LBB", body, position)
        end = position + 4 + length
        if length < 2 or end > len(body):
            raise PeerError("malformed presentation data value")
        found.append(Value(context_id, control, body[position + 6 : end]))
        position = end
    return found
