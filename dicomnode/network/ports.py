"""Take a port of this machine, or say why it cannot be had."""

from __future__ import annotations

import socket

from dicomnode.errors import ConfigError

BACKLOG = 512


def take(table: str, host: str, port: int) -> socket.socket:
    """Listen at the port of a configuration table; raises ConfigError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint=f"is another program using {table}.port? ports below 1024 need root",
        ) from error
