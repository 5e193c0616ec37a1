"""Listen for associations: one blocking thread for each, with limits on how many."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Sequence
from functools import cache

from pydicom import uid
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification

from dicomnode.errors import ConfigError
from dicomnode.network.association import (
    TOO_MANY,
    Acceptor,
    Connection,
    Peer,
    Rejected,
    Sink,
    StoreRequest,
)
from dicomnode.network.wire import PeerError, PeerGone

logger = logging.getLogger(__name__)

MAX_ASSOCIATIONS = 200
MAX_CONNECTIONS = 600  # with those that are being told that there are too many
BACKLOG = 512
DRAIN_SECONDS = 5.0

UNCOMPRESSED = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)
#: Stored as received. Deflated is not offered: 500 kB of it can become 500 MB.
TRANSFER_SYNTAXES = (
    *UNCOMPRESSED,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
)


@cache
def storage_contexts() -> list[PresentationContext]:
    """Verification and every storage class: a PACS that routes whole studies must not meet a refusal half way."""
    syntaxes = list(TRANSFER_SYNTAXES)
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts]
    return [build_context(Verification), *(build_context(name, syntaxes) for name in classes if name)]


class Listener:
    """Accepts connections in a thread of its own until `stop`."""

    def __init__(
        self,
        acceptor: Acceptor,
        *,
        host: str,
        port: int,
        contexts: Sequence[PresentationContext] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._acceptor = _Limited(acceptor, MAX_ASSOCIATIONS)
        self._tls = tls
        self._contexts = storage_contexts() if contexts is None else contexts
        self._connections: set[Connection] = set()
        self._stopping = False
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="is another program using receive.port? ports below 1024 need root",
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept_connections, name="listen", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse new connections, let messages at hand finish, cut what remains after the grace period."""
        self._stopping = True
        self._socket.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept() would keep a closed socket listening
        self._socket.close()
        self._thread.join()
        for connection in list(self._connections):
            connection.drain()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.02)
        for connection in list(self._connections):
            connection.close()

    def _accept_connections(self) -> None:
        while not self._stopping:
            try:
                sock, address = self._socket.accept()
            except OSError:
                if not self._stopping:  # out of descriptors: wait for some to come back
                    logger.warning("cannot accept a connection", exc_info=True)
                    time.sleep(0.1)
                continue
            if len(self._connections) >= MAX_CONNECTIONS:
                sock.close()
                continue
            connection = Connection(sock, address=address[0], name=uuid.uuid4().hex)
            thread = threading.Thread(target=self._serve, args=(connection, address[0]), daemon=True)
            self._connections.add(connection)
            try:
                thread.start()
            except RuntimeError:  # the machine has no thread left: one connection less, not a listener less
                logger.warning("cannot serve a connection", exc_info=True)
                self._connections.discard(connection)
                sock.close()

    def _serve(self, connection: Connection, address: str) -> None:
        try:
            connection.serve(self._acceptor, self._contexts, self._tls)
        except Rejected as rejection:
            logger.warning("association rejected", extra={"address": address, "why": str(rejection)})
        except PeerError as error:
            logger.warning("association aborted", extra={"address": address, "why": str(error)})
        except PeerGone:
            logger.info("connection closed by the peer", extra={"address": address})
        except Exception:
            # Ours, not the peer's: it must neither end the process nor go unseen.
            logger.exception("association ended by an internal error", extra={"address": address})
        finally:
            self._connections.discard(connection)
            connection.end()


class _Limited:
    """An Acceptor that counts the associations it admitted."""

    def __init__(self, inner: Acceptor, limit: int) -> None:
        self._inner, self._slots = inner, threading.Semaphore(limit)

    def admit(self, peer: Peer) -> None:
        if not self._slots.acquire(blocking=False):
            raise Rejected(*TOO_MANY, f"{MAX_ASSOCIATIONS} associations are open")
        try:
            self._inner.admit(peer)
        except BaseException:
            self._slots.release()
            raise

    def store(self, peer: Peer, request: StoreRequest) -> Sink:
        return self._inner.store(peer, request)

    def report(self, peer: Peer, data: bytes, transfer_syntax_uid: str) -> None:
        self._inner.report(peer, data, transfer_syntax_uid)

    def ended(self, peer: Peer, ending: str) -> None:
        self._slots.release()
        self._inner.ended(peer, ending)
