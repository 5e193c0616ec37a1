"""A small archive that stores what it receives as files: the PACS of the demo, where no real one is configured."""

from __future__ import annotations

import threading
from pathlib import Path

from pydicom.uid import UID

from dicomnode.network.association import UNKNOWN_CALLED, Acceptor, Peer, Rejected, StoreRequest
from dicomnode.spool import Part, Spool


class Archive(Acceptor):
    """Accepts every instance and keeps the newest copy of each, grouped by association."""

    def __init__(self, folder: Path, ae_title: str) -> None:
        self._spool, self._ae_title = Spool(folder), ae_title
        self._lock = threading.Lock()
        self._stored: dict[str, tuple[str, Path]] = {}

    @property
    def stored(self) -> dict[str, tuple[str, Path]]:
        """SOP Instance UID -> name of the SOP class and file, of everything received so far."""
        with self._lock:
            return dict(self._stored)

    def admit(self, peer: Peer) -> None:
        if peer.called_ae != self._ae_title:
            raise Rejected(*UNKNOWN_CALLED, f"called as {peer.called_ae!r}")

    def store(self, peer: Peer, request: StoreRequest) -> _Copy:
        part = self._spool.receive(
            sop_class_uid=request.sop_class_uid,
            sop_uid=request.sop_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
        )
        return _Copy(self, part, peer, request)

    def ended(self, peer: Peer, ending: str) -> None:
        """Nothing to do: the archive does not assemble studies."""

    def _keep(self, part: Part, peer: Peer, request: StoreRequest) -> None:
        path = part.keep(peer.association)
        part.flush()
        part.settle()
        with self._lock:
            self._stored[request.sop_uid] = (UID(request.sop_class_uid).name, path)


class _Copy:
    def __init__(self, archive: Archive, part: Part, peer: Peer, request: StoreRequest) -> None:
        self._archive, self._part, self._peer, self._request = archive, part, peer, request

    def write(self, data: memoryview) -> None:
        self._part.write(data)

    def finish(self) -> None:
        self._archive._keep(self._part, self._peer, self._request)

    def discard(self) -> None:
        self._part.discard()
