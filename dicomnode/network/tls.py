"""TLS with a certificate on both sides, as BCP 195 wants it now (RFC 9325; PS3.15 B.12): 1.2 and 1.3, nothing older."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Protocol

from dicomnode.errors import ConfigError

#: Of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2). Those of 1.3 all are.
CIPHERS = "ECDHE+AESGCM:DHE+AESGCM"
HANDSHAKE_SECONDS = 5.0


class Files(Protocol):
    """Who this node is, and whom it believes; PEM files."""

    @property
    def certificate(self) -> Path: ...

    @property
    def key(self) -> Path: ...

    @property
    def authorities(self) -> Path: ...


def server(files: Files) -> ssl.SSLContext:
    """For a listener that hears only peers with a certificate of the authorities. Raises ConfigError."""
    return _prepared(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)


def client(files: Files, *, any_name: bool = False) -> ssl.SSLContext:
    """For connections to peers; their certificate must name their host unless `any_name`. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = not any_name
    return _prepared(context, files)


def _prepared(context: ssl.SSLContext, files: Files) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers(CIPHERS)
    try:
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:
        raise ConfigError(
            f"tls.certificate {files.certificate} and tls.key {files.key} cannot be used: {error.strerror or error}",
            hint="both are PEM files; the key has no password and belongs to the first certificate",
        ) from error
    try:
        context.load_verify_locations(files.authorities)
    except OSError as error:
        raise ConfigError(
            f"tls.authorities {files.authorities} cannot be used: {error.strerror or error}",
            hint="a PEM file with the certificates of those who sign for your peers",
        ) from error
    return context


def problem(context: ssl.SSLContext, host: str, port: int) -> str:
    """Why no TLS connection to a peer comes about, or nothing; for messages, after an association has failed."""
    try:
        with (
            socket.create_connection((host, port), HANDSHAKE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            # Under TLS 1.3 a server that refuses our certificate says so only now.
            secured.settimeout(1.0)
            secured.recv(1)
    except TimeoutError:
        return ""
    except OSError as error:
        return str(error)
    return ""
