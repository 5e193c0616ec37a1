"""The receiver: an instance is in the spool and in the ledger, durably, before its sender hears success."""

from __future__ import annotations

import fnmatch
import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from dicomnode import disk, ledger, schema
from dicomnode.audit import Trail, Transfers, subjects
from dicomnode.claims import Claims
from dicomnode.config import Config
from dicomnode.disk import Room
from dicomnode.errors import Refused
from dicomnode.header import read_instance
from dicomnode.ledger import Ledger
from dicomnode.network.association import (
    LOCAL_LIMIT,
    UNKNOWN_CALLED,
    UNKNOWN_CALLING,
    Acceptor,
    Peer,
    Rejected,
    StoreRequest,
)
from dicomnode.network.commitment import read, reporting
from dicomnode.network.listen import Listener, storage_contexts
from dicomnode.peers import listener_tls
from dicomnode.spool import Part, Spool, digest_of
from dicomnode.study import Instance
from dicomnode.supervise import Life

logger = logging.getLogger(__name__)

#: Shared by all associations: a flush is a wait for the disk, not work.
_flushers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="flush")
REASONS = 10  # for refusing instances that are logged of one association: a reason may hold a tag as it was received
LOCKS = 1024  # copies of one instance share a lock; far more than associations, so that others rarely do


def run(config: Config, life: Life) -> None:
    """Listen until told to stop."""
    spool, store = Spool(config.data_dir / "spool"), ledger.connect(config.ledger_url)
    trail = Trail(config)
    _audit_lost(trail, store, config.receive.ae_title)
    broken = store.lose_open_associations(_is_whole)
    swept = spool.sweep(store.has_file)
    listener = Listener(
        Receiver(config, spool, store, trail),
        host=config.receive.host,
        port=config.receive.port,
        limits=config.limits,
        contexts=[*storage_contexts(), reporting()],
        tls=listener_tls(config),
        alert=trail.alert,
    )
    logger.info("listening", extra={"port": listener.port, "swept": swept + broken})
    life.stop.wait()
    listener.stop()


def _audit_lost(trail: Trail, store: Ledger, ae_title: str) -> None:
    """Write what the associations brought that were open when the receiver ended."""
    for row in store.rows(schema.transfer, ending="open"):
        title = row["calling_ae"]
        peer = Peer(
            association=row["association"], address="", calling_ae=title, called_ae=ae_title, only_verifies=False
        )
        brought = {item["sop_uid"] for item in store.rows(schema.instance, association=row["association"])}
        kept = (i for i in store.study(row["study_uid"]).instances if i.sop_uid in brought and i.path.exists())
        for subject in subjects(kept):
            trail.received(peer, subject, "the node ended during the association; these instances were stored")


def _is_whole(instance: Instance) -> bool:
    return instance.path.exists() and digest_of(instance) == instance.sha256


class Receiver(Acceptor):
    """Decides about peers and instances for the Listener."""

    def __init__(self, config: Config, spool: Spool, ledger: Ledger, trail: Trail) -> None:
        self._config, self._spool, self.ledger = config.receive, spool, ledger
        self._claims, self._destinations = Claims(ledger.engine), config.destination
        self.transfers = Transfers(trail)
        self._disk = disk.Watch(spool.root, config.limits.free_mb)
        self._refused: dict[str, Counter[str]] = {}  # by open association, and reason
        self.locks = [threading.Lock() for _ in range(LOCKS)]

    def admit(self, peer: Peer) -> None:
        """Apply the AE title rules, and turn senders away before the disk is full."""
        if peer.called_ae != self._config.ae_title:
            raise Rejected(*UNKNOWN_CALLED, f"called as {peer.called_ae!r}, this node is {self._config.ae_title!r}")
        if not any(_matches(rule, peer) for rule in self._config.allow):
            raise Rejected(*UNKNOWN_CALLING, f"calling AE title {peer.calling_ae!r} is not in receive.allow")
        if not peer.only_verifies and (room := self._disk.room()):
            raise Rejected(*LOCAL_LIMIT, room)
        logger.info("association opened", extra={"association": peer.association, "calling_ae": peer.calling_ae})

    def store(self, peer: Peer, request: StoreRequest) -> _Arrival:
        """Open a spool file for an instance."""
        self.transfers.offered(peer, request)
        self.refuse_if_full()
        try:
            part = self._spool.receive(
                sop_class_uid=request.sop_class_uid,
                sop_uid=request.sop_uid,
                transfer_syntax_uid=request.transfer_syntax_uid,
            )
        except (ValueError, TypeError) as error:
            raise Refused(Refused.CANNOT_UNDERSTAND, "SOP Instance UID is not a UID") from error
        return _Arrival(self, part, peer, request)

    def report(self, peer: Peer, data: bytes, transfer_syntax_uid: str) -> None:
        """Keep an archive's report of storage commitment, for what was sent to a destination of its name."""
        names = [d.name for d in self._destinations if d.ae_title == peer.calling_ae]
        self._claims.report(read(data, transfer_syntax_uid), names)
        logger.info("storage commitment reported", extra={"association": peer.association})

    def refused(self, peer: Peer, status: int, why: str) -> None:
        """Log each reason once; `why` is in our own words."""
        reasons = self._refused.setdefault(peer.association, Counter())
        if why not in reasons and len(reasons) >= REASONS:
            why = "further reasons are not logged"
        reasons[why] += 1
        if reasons[why] == 1:
            about = {"association": peer.association, "status": f"{status:04X}", "why": why}
            logger.warning("instance refused", extra=about)

    def ended(self, peer: Peer, ending: str) -> None:
        """Tell assembly how the association ended."""
        refused = self._refused.pop(peer.association, Counter()).total()
        self.transfers.ended(peer, ending)
        self.ledger.end_association(peer.association, ending)
        about = {"association": peer.association, "ending": ending, "refused": refused}
        logger.info("association ended", extra=about)

    def refuse_if_full(self) -> None:
        if self._disk.room() is Room.NONE:
            raise Refused(Refused.OUT_OF_RESOURCES, Room.NONE)


class _Arrival:
    """One instance on its way in."""

    def __init__(self, receiver: Receiver, part: Part, peer: Peer, request: StoreRequest) -> None:
        self._receiver, self._part, self._peer, self._request = receiver, part, peer, request

    def write(self, data: memoryview) -> None:
        self._receiver.refuse_if_full()  # many large images that are on their way would fill what is left
        self._part.write(data)

    def finish(self) -> None:
        item = read_instance(self._part.path, sha256=self._part.sha256)
        if (item.sop_uid, item.sop_class_uid) != (self._request.sop_uid, self._request.sop_class_uid):
            raise Refused(Refused.MISMATCH, "SOP class or instance differs from the C-STORE request")
        item = replace(item, path=self._part.keep(item.study_uid))
        # A copy on another association is not acknowledged before this one is durable.
        lock = self._receiver.locks[hash(item.sop_uid) % LOCKS]
        with self._receiver.transfers.storing(self._peer, item), lock:
            self._make_durable(item)

    def _make_durable(self, item: Instance) -> None:
        # Bytes, name and ledger row go to the disk side by side: the wait is one flush long, not three.
        ledger, flushing = self._receiver.ledger, _flushers.submit(self._part.flush)
        try:
            stored = ledger.file_instance(item, association=self._peer.association, calling_ae=self._peer.calling_ae)
        except BaseException:
            flushing.exception()
            raise
        try:
            flushing.result()
        except OSError:
            if stored:
                ledger.forget(item)
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
