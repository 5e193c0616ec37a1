"""Listen for associations: one blocking thread for each, with limits on how many."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache

from pydicom import uid
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification

from dicomnode.config import Limits
from dicomnode.network import ports
from dicomnode.network.association import (
    LOCAL_LIMIT,
    Acceptor,
    Connection,
    Peer,
    Rejected,
    Sink,
    StoreRequest,
)
from dicomnode.network.wire import NotAuthenticated, PeerError, PeerGone

logger = logging.getLogger(__name__)

TURNED_AWAY = 400  # connections beyond the associations, for those that are being told that there are too many
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

    def __init__(  # noqa: PLR0913 - what a port needs, named
        self,
        acceptor: Acceptor,
        *,
        host: str,
        port: int,
        limits: Limits | None = None,
        contexts: Sequence[PresentationContext] | None = None,
        tls: ssl.SSLContext | None = None,
        alert: Callable[[str, str, bool], None] = lambda address, why, serious: None,
    ) -> None:
        """`alert` hears of each peer that is refused for who it is: its address, why, and whether its proof failed."""
        self._alert = alert
        self._limits = limits or Limits()
        self._acceptor = _Limited(acceptor, self._limits.associations)
        self._tls = tls
        self._contexts = storage_contexts() if contexts is None else contexts
        self._connections: set[Connection] = set()
        self._stopping = False
        self._socket = ports.take("receive", host, port)
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
            connection.cut()

    def _accept_connections(self) -> None:
        while not self._stopping:
            try:
                sock, address = self._socket.accept()
            except OSError:
                if not self._stopping:  # out of descriptors: wait for some to come back
                    logger.warning("cannot accept a connection", exc_info=True)
                    time.sleep(0.1)
                continue
            if len(self._connections) >= self._limits.associations + TURNED_AWAY:
                sock.close()
                continue
            connection = Connection(sock, address=address[0], name=uuid.uuid4().hex, limits=self._limits)
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
            if rejection.codes != LOCAL_LIMIT:
                self._alert(address, str(rejection), False)
        except PeerError as error:
            logger.warning("association aborted", extra={"address": address, "why": str(error)})
            if isinstance(error, NotAuthenticated):
                self._alert(address, str(error), True)
        except PeerGone:
            logger.info("connection closed by the peer", extra={"address": address})
        except Exception:
            # Ours, not the peer's: it must neither end the process nor go unseen.
            logger.exception("association ended by an internal error", extra={"address": address})
        finally:
            self._connections.discard(connection)
            connection.close()


class _Limited:
    """An Acceptor that counts the associations it admitted."""

    def __init__(self, inner: Acceptor, limit: int) -> None:
        self._inner, self._limit, self._slots = inner, limit, threading.Semaphore(limit)

    def admit(self, peer: Peer) -> None:
        if not self._slots.acquire(blocking=False):
            raise Rejected(*LOCAL_LIMIT, f"{self._limit} associations are open")
        try:
            self._inner.admit(peer)
        except BaseException:
            self._slots.release()
            raise

    def store(self, peer: Peer, request: StoreRequest) -> Sink:
        return self._inner.store(peer, request)

    def refused(self, peer: Peer, status: int, why: str) -> None:
        self._inner.refused(peer, status, why)

    def report(self, peer: Peer, data: bytes, transfer_syntax_uid: str) -> None:
        self._inner.report(peer, data, transfer_syntax_uid)

    def ended(self, peer: Peer, ending: str) -> None:
        self._slots.release()
        self._inner.ended(peer, ending)
