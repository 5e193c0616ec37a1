"""Foreign peers for our clients: pynetdicom's acceptor with the behaviour a test asks for, and a mute socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext

from dicomnode.network.send import Address


@contextmanager
def peer(
    contexts: Sequence[PresentationContext],
    handlers: Mapping[evt.EventType, Callable[[evt.Event], Any]] | None = None,
    *,
    known: Sequence[str] = (),
) -> Iterator[Address]:
    """Accept these contexts; `known` are the calling AE titles that are let in, all if empty."""
    ae = AE(ae_title="PEER")
    ae.require_calling_aet = list(known)
    ae.require_called_aet = True
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, contexts=list(contexts), evt_handlers=list((handlers or {}).items())
    )
    try:
        yield Address(ae_title="PEER", host="127.0.0.1", port=server.server_address[1])
    finally:
        threading.Thread(target=server.shutdown).start()  # takes half a second: nobody needs to wait for it


@contextmanager
def mute() -> Iterator[Address]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Address(ae_title="MUTE", host="127.0.0.1", port=listening.getsockname()[1])


@contextmanager
def nobody() -> Iterator[Address]:
    """A port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Address(ae_title="NOBODY", host="127.0.0.1", port=taken.getsockname()[1])
