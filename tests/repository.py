"""An audit repository for tests: syslog over TLS (RFC 5425) that keeps what it reads."""

from __future__ import annotations

import socket
import ssl
import threading

from dicomnode.network import tls
from tests.certificates import Identity


class Repository:
    """Listens on a port of its own choice, or again on an earlier one."""

    def __init__(self, files: Identity, port: int = 0, *, says_goodbye: bool = True) -> None:
        self._context, self._says_goodbye = tls.server(files), says_goodbye
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.messages: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with self._context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as peer:
                    self._read(peer)
            except OSError:  # a peer that is no good
                plain.close()

    def _read(self, peer: ssl.SSLSocket) -> None:
        with peer.makefile("rb") as stream:
            while size := _number(stream):
                self.messages.append(stream.read(size))
        if self._says_goodbye:
            peer.unwrap().close()


def _number(stream) -> int:
    """The length in front of a message; 0 at the end."""
    digits = b""
    while (one := stream.read(1)) not in (b" ", b""):
        digits += one
    return int(digits or 0)
