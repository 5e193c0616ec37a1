"""The receiver: an instance is in the spool and in the ledger, durably, before its sender hears success."""

from __future__ import annotations

import fnmatch
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from dicomnode import ledger
from dicomnode.config import Config, Receive
from dicomnode.errors import Refused
from dicomnode.header import read_instance
from dicomnode.ledger import Ledger
from dicomnode.network.association import UNKNOWN_CALLED, UNKNOWN_CALLING, Peer, Rejected, StoreRequest
from dicomnode.network.listen import Listener
from dicomnode.peers import listener_tls
from dicomnode.spool import Part, Spool, digest_of
from dicomnode.study import Instance
from dicomnode.supervise import Life

logger = logging.getLogger(__name__)

#: Shared by all associations: a flush is a wait for the disk, not work.
_flushers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="flush")
LOCKS = 1024  # copies of one instance share a lock; far more than associations, so that others rarely do
FULL_CHECK_SECONDS = 0.2  # how old the answer to "is the disk full?" may be


def run(config: Config, life: Life) -> None:
    """Listen until told to stop."""
    spool, store = Spool(config.data_dir / "spool"), ledger.connect(config.ledger_url)
    broken = store.lose_open_associations(_is_whole)
    swept = spool.sweep(store.has_file)
    receiver = Receiver(config.receive, spool, store)
    listener = Listener(receiver, host=config.receive.host, port=config.receive.port, tls=listener_tls(config))
    logger.info("listening", extra={"port": listener.port, "swept": swept + broken})
    life.stop.wait()
    listener.stop()


def _is_whole(instance: Instance) -> bool:
    return instance.path.exists() and digest_of(instance) == instance.sha256


class Receiver:
    """Decides about peers and instances for the Listener."""

    def __init__(self, config: Receive, spool: Spool, ledger: Ledger) -> None:
        self._config, self._spool, self._ledger = config, spool, ledger
        self._full, self._full_checked = False, 0.0
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def admit(self, peer: Peer) -> None:
        """Apply the AE title rules."""
        if peer.called_ae != self._config.ae_title:
            raise Rejected(*UNKNOWN_CALLED, f"called as {peer.called_ae!r}, this node is {self._config.ae_title!r}")
        if not any(_matches(rule, peer) for rule in self._config.allow):
            raise Rejected(*UNKNOWN_CALLING, f"calling AE title {peer.calling_ae!r} is not in receive.allow")
        logger.info("association opened", extra={"association": peer.association, "calling_ae": peer.calling_ae})

    def store(self, peer: Peer, request: StoreRequest) -> _Arrival:
        """Open a spool file for an instance."""
        if self._disk_is_full():
            raise Refused(Refused.OUT_OF_RESOURCES, "the disk is nearly full")
        try:
            part = self._spool.receive(
                sop_class_uid=request.sop_class_uid,
                sop_uid=request.sop_uid,
                transfer_syntax_uid=request.transfer_syntax_uid,
            )
        except (ValueError, TypeError) as error:
            raise Refused(Refused.CANNOT_UNDERSTAND, "SOP Instance UID is not a UID") from error
        return _Arrival(part, self._ledger, peer, request, self._locks[hash(request.sop_uid) % LOCKS])

    def ended(self, peer: Peer, ending: str) -> None:
        """Tell assembly how the association ended."""
        self._ledger.end_association(peer.association, ending)
        logger.info("association ended", extra={"association": peer.association, "ending": ending})

    def _disk_is_full(self) -> bool:
        now = time.monotonic()
        if now - self._full_checked > FULL_CHECK_SECONDS:
            self._full, self._full_checked = self._spool.full(), now
        return self._full


class _Arrival:
    """One instance on its way in."""

    def __init__(self, part: Part, ledger: Ledger, peer: Peer, request: StoreRequest, lock: threading.Lock) -> None:
        self._part, self._ledger, self._peer, self._request, self._lock = part, ledger, peer, request, lock

    def write(self, data: memoryview) -> None:
        self._part.write(data)

    def finish(self) -> None:
        item = read_instance(self._part.path, sha256=self._part.sha256)
        if (item.sop_uid, item.sop_class_uid) != (self._request.sop_uid, self._request.sop_class_uid):
            raise Refused(Refused.MISMATCH, "SOP class or instance differs from the C-STORE request")
        item = replace(item, path=self._part.keep(item.study_uid))
        with self._lock:  # a copy on another association is not acknowledged before this one is durable
            self._make_durable(item)

    def _make_durable(self, item: Instance) -> None:
        # Bytes, name and ledger row go to the disk side by side: the wait is one flush long, not three.
        flushing = _flushers.submit(self._part.flush)
        try:
            stored = self._ledger.file_instance(
                item, association=self._peer.association, calling_ae=self._peer.calling_ae
            )
        except BaseException:
            flushing.exception()
            raise
        try:
            flushing.result()
        except OSError:
            if stored:
                self._ledger.forget(item)
            raise
        if stored:
            self._part.settle()
        else:  # a copy of what is there already
            self._part.discard()

    def discard(self) -> None:
        self._part.discard()


def _matches(rule: str, peer: Peer) -> bool:
    title, _, address = rule.partition("@")
    return fnmatch.fnmatchcase(peer.calling_ae, title) and (not address or peer.address == address)
