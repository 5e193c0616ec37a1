"""Durable bytes: instances as they were received, and results as they will be sent.

An instance is written under `incoming/`, linked into its study's folder and flushed there, all before its sender is
answered; its entry under `incoming/` goes when the ledger has its row, so that a start finds what a kill cut off. No
name from the network becomes part of a path.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID

from dicomnode.errors import Refused
from dicomnode.study import Instance

IMPLEMENTATION_CLASS_UID = UID("2.25.264445062933580866729359264153678910429")
IMPLEMENTATION_VERSION = "DICOMNODE_01"


class Spool:
    """The folder that holds every stored instance and every written result."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        for folder in (root, self.incoming, root / "results", root / "rejected"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sweep(self, is_recorded: Callable[[Path], bool]) -> int:
        """Delete what an earlier process left half received or unrecorded; only the receiver does, at its start."""
        leftovers = list(self.incoming.iterdir())
        for path in leftovers:
            for kept in self.root.glob(f"studies/*/{path.stem}.dcm"):
                if not is_recorded(kept):
                    kept.unlink()
            path.unlink()
        return len(leftovers)

    def receive(self, *, sop_class_uid: str, sop_uid: str, transfer_syntax_uid: str) -> Part:
        """Open a file for an instance that is about to arrive."""
        return Part(self, _file_head(sop_class_uid, sop_uid, transfer_syntax_uid))

    def results_folder(self, study_uid: str) -> Path:
        """Where the results of a study lie."""
        return self._folder(self.root / "results", study_uid)

    def drop_results(self, study_uid: str, tasks: Collection[int]) -> None:
        """Delete what these analyses of a study had written when they were cut off; file names begin with the task."""
        names = {str(number) for number in tasks}
        for path in self.results_folder(study_uid).iterdir():
            if path.name.lstrip(".").partition("-")[0] in names:
                path.unlink()

    def study_folder(self, study_uid: str) -> Path:
        """Where the instances of a study lie."""
        return self._folder(self.root / "studies", study_uid)

    def keep_rejected(self, dataset: Dataset) -> Path:
        """Keep a result object that failed its check, for the people who must find out why."""
        path = self.root / "rejected" / f"{uuid.uuid4().hex}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    def _folder(self, parent: Path, study_uid: str) -> Path:
        folder = parent / hashlib.sha256(study_uid.encode()).hexdigest()[:20]
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flush_folder(parent)
            flush_folder(parent.parent)
        return folder


class Part:
    """An instance while it arrives: a file under `incoming/` and a running digest of its data set."""

    def __init__(self, spool: Spool, head: bytes) -> None:
        self._spool = spool
        self._digest = hashlib.sha256()
        self.path = self._arriving = spool.incoming / f"{uuid.uuid4().hex}.part"
        self._file = self.path.open("xb", buffering=0)
        self._file.write(head)

    def write(self, data: memoryview) -> None:
        """Append data set bytes as they come from the network."""
        self._digest.update(data)
        self._file.write(data)

    @property
    def sha256(self) -> str:
        """Digest of the data set bytes so far."""
        return self._digest.hexdigest()

    def keep(self, study_uid: str) -> Path:
        """Give the file its final name and return it; it is durable once `flush` has returned."""
        final = self._spool.study_folder(study_uid) / f"{self.path.stem}.dcm"
        final.hardlink_to(self.path)
        self.path = final
        return final

    def flush(self) -> None:
        """Return once the bytes and the name are on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()
        flush_folder(self.path.parent)

    def settle(self) -> None:
        """It is durable and recorded: no longer arriving."""
        self._arriving.unlink()

    def discard(self) -> None:
        """Forget what has arrived."""
        self._file.close()
        for path in (self.path, self._arriving):
            path.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_head(sop_class_uid: str, sop_uid: str, transfer_syntax_uid: str) -> bytes:
    """A zero preamble, the prefix, and file meta information (PS3.10 section 7.1).

    By hand: pydicom's writer would be a sixth of what receiving an image costs.
    """
    if not (UID(sop_uid).is_valid and len(sop_uid) <= 64):
        raise ValueError("not a UID")
    elements = [
        struct.pack("<HH2sHL", 2, 0x01, b"OB", 0, 2) + b"\x00\x01",
        _meta_element(0x02, b"UI", sop_class_uid),
        _meta_element(0x03, b"UI", sop_uid),
        _meta_element(0x10, b"UI", transfer_syntax_uid),
        _meta_element(0x12, b"UI", IMPLEMENTATION_CLASS_UID),
        _meta_element(0x13, b"SH", IMPLEMENTATION_VERSION),
    ]
    length = sum(map(len, elements))
    return b"".join([bytes(128), b"DICM", struct.pack("<HH2sHL", 2, 0, b"UL", 4, length), *elements])


def _meta_element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def dataset_offset(path: Path) -> int:
    """Where the data set starts in a DICOM file: behind the file meta information."""
    with path.open("rb") as file:
        head = file.read(144)
    if head[128:132] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise Refused(Refused.CANNOT_UNDERSTAND, "no file meta information with a group length")
    return 144 + int.from_bytes(head[140:144], "little")


def digest_of(instance: Instance) -> str:
    """SHA-256 of the stored data set bytes, read again from the disk."""
    with instance.path.open("rb") as file:
        file.seek(dataset_offset(instance.path))
        return hashlib.file_digest(file, "sha256").hexdigest()
