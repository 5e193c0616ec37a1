"""Forward the audit trail to a repository: syslog over TLS (RFC 5425), from where the last delivery ended.

Syslog has no acknowledgement. What comes nearest is how a connection ends: each batch gets its own, and counts as
delivered once the repository has closed it in return, so that what it had not read is sent again.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dicomnode import audit
from dicomnode.config import Config
from dicomnode.errors import ConfigError
from dicomnode.peers import repository_tls

logger = logging.getLogger(__name__)

BATCH_BYTES = 1 << 20
SECONDS = 10.0  # for the connection and for each of its steps


class Position(NamedTuple):
    """How far the trail was delivered: the name of a file, and the bytes of it."""

    name: str = ""
    offset: int = 0


class Forwarder:
    """Delivers what is new; only one process of a node may have one."""

    def __init__(self, config: Config) -> None:
        self._config, self._folder = config, audit.folder(config)
        self._note = self._folder / "forwarded"
        self._away = False

    def run(self) -> None:
        """Deliver everything that is there; what cannot be delivered now stays for the next call."""
        while batch := read_after(self._folder, self._position()):
            lines, position = batch
            try:
                deliver(lines, repository_tls(self._config), self._config.audit.host, self._config.audit.port)
            except (OSError, ConfigError) as error:
                if not self._away:
                    logger.warning("the audit repository is away, messages wait", extra={"why": str(error)})
                self._away = True
                return
            self._remember(position)
            if self._away:
                logger.info("the audit repository is back")
            self._away = False

    def _position(self) -> Position:
        if not self._note.exists():
            return Position()
        name, offset = self._note.read_text().split()
        return Position(name, int(offset))

    def _remember(self, position: Position) -> None:
        """Replace the note in one step that survives a power cut."""
        draft = self._note.with_suffix(".new")
        with draft.open("w") as file:
            file.write(f"{position.name} {position.offset}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._note)


def read_after(folder: Path, position: Position) -> tuple[list[bytes], Position] | None:
    """The next whole lines of a trail and where they end; None if there are none."""
    for path in audit.files(folder):
        if path.name < position.name:
            continue
        start = position.offset if path.name == position.name else 0
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(BATCH_BYTES)
        data = data[: data.rfind(b"\n") + 1]
        if data:
            # A line without its end is what a killed writer left.
            lines = [line for line in data.splitlines() if line.endswith(b"</AuditMessage>")]
            return lines, Position(path.name, start + len(data))
    return None


def deliver(lines: Sequence[bytes], context: ssl.SSLContext, host: str, port: int) -> None:
    """Send lines; raises OSError unless the repository has read to the end."""
    with (
        socket.create_connection((host, port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        for line in lines:
            secured.sendall(b"%d %s" % (len(line), line))
        # Closing is answered (RFC 5425 4.4), by some with the end of the connection only; a receiver that dies with
        # unread messages resets it instead.
        with suppress(ssl.SSLEOFError):
            secured.unwrap()
