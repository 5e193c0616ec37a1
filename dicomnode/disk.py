"""Whether the disk has room for more: senders are turned away while analyses and deliveries can still go on."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from enum import StrEnum
from pathlib import Path

logger = logging.getLogger(__name__)

SMALL_DISK_SHARE = 0.1  # of a small disk, instead of limits.free_mb
CHECK_SECONDS = 0.2  # how old an answer may be


class Room(StrEnum):
    """How much there is, in the words that senders and administrators read."""

    ENOUGH = ""
    LOW = "the disk is nearly full, no new associations"
    NONE = "the disk is nearly full, no new images"


def room(folder: Path, free_mb: int) -> Room:
    """Judge the disk of a folder: LOW below the mark, NONE below half of it."""
    disk = shutil.disk_usage(folder)
    mark = min(free_mb << 20, int(disk.total * SMALL_DISK_SHARE))
    if disk.free >= mark:
        return Room.ENOUGH
    return Room.LOW if 2 * disk.free >= mark else Room.NONE


def is_full(error: Exception) -> bool:
    """Whether this is what a disk says that takes nothing: that passes, and is nobody's fault."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Watch:
    """Asks often enough for every fragment of every image, and logs what has changed."""

    def __init__(self, folder: Path, free_mb: int) -> None:
        self._folder, self._free_mb = folder, free_mb
        self._lock = threading.Lock()
        self._room, self._checked = Room.ENOUGH, -CHECK_SECONDS

    def room(self) -> Room:
        with self._lock:
            if time.monotonic() - self._checked >= CHECK_SECONDS:
                before, self._room = self._room, room(self._folder, self._free_mb)
                self._checked = time.monotonic()
                if self._room is not before:
                    logger.warning(self._room or "the disk has room again")
            return self._room
