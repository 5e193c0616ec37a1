"""How this node, Orthanc and DCMTK's storescp bear connections that nobody means well with. All in one run.

Deaf: seconds of a C-ECHO beside 200 connections that say nothing and 50 that stop inside their request.
Flood: 500 senders at the same moment, each with one CT image: how many were stored, told no, or left without an answer.
Also, of this node alone: what 10,000 connections that are closed at once leave behind in the receiver.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import CTImageStorage
from pynetdicom.sop_class import Verification

from dicomnode.errors import Transient
from dicomnode.network.echo import echo
from dicomnode.network.send import Address
from scripts.benchmarks import common
from scripts.benchmarks.receive import storescp
from tests.integration.load import uses
from tests.integration.programs import Node, free_port, orthanc, running
from tests.receivers import associate_request, ct_bytes, pdata, status_of, store_command, value

SILENT, HALF, SENDERS, BARE = 200, 50, 500, 10_000
FRAGMENT = 16_000  # bytes; storescp takes PDUs of 16,384
PATIENCE = 60.0  # seconds until a sender counts as left without an answer


def main() -> None:
    """Measure and print."""
    as_json = common.wants_json(__doc__)
    document: dict[str, object] = {}
    rows = [["", "C-ECHO beside 250, s", "stored", "told no", "no answer", "flood, s"]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = [ct_bytes(root / "images", sop_uid=f"1.2.3.{n}") for n in range(SENDERS)]
        for name, peer in peers(root):
            with peer as address:
                waited = deaf(address)
                common.wait_for_echo(address)
                answers, seconds = flood(address, images)
            document[name] = {"echo_seconds": waited, **answers, "flood_seconds": seconds}
            counts = [str(answers[what]) for what in ("stored", "told", "silent")]
            rows.append([name, "no answer" if waited is None else f"{waited:.2f}", *counts, f"{seconds:.1f}"])
        document["receiver_mib"] = grown = bare(root / "bare")
    common.show(document, rows, as_json)
    if not as_json:
        print(f"\nthe receiver after {BARE} bare connections: {grown['before']} MiB before, {grown['after']} MiB after")


def peers(root: Path) -> Iterator[tuple[str, contextlib.AbstractContextManager[Address]]]:
    """What is compared, each started when it is its turn."""
    yield "this node", common.node(root / "node", ASSEMBLY__QUIET_SECONDS="600")
    yield "Orthanc", pacs(root / "orthanc")
    yield "storescp --fork", storescp(root / "storescp")


@contextlib.contextmanager
def pacs(folder: Path) -> Iterator[Address]:
    with orthanc(folder) as found:
        yield found.address


def deaf(peer: Address) -> float | None:
    """Seconds of a C-ECHO beside the silent; None if there was no answer. The silent leave afterwards."""
    request = associate_request(Verification, called=peer.ae_title)
    with contextlib.ExitStack() as stack:
        for number in range(SILENT + HALF):
            try:
                sock = stack.enter_context(socket.create_connection((peer.host, peer.port), timeout=1))
            except TimeoutError:
                return None  # it does not even take a connection any more
            if number >= SILENT:
                sock.sendall(request[: len(request) // 2])
        time.sleep(1)
        try:
            return echo(peer, calling_ae="BENCH")
        except Transient:
            return None


def flood(peer: Address, images: list[bytes]) -> tuple[Counter[str], float]:
    """What became of each sender's image, and the seconds until the last had its answer."""
    gate = threading.Barrier(len(images))
    with ThreadPoolExecutor(len(images)) as senders:
        start = time.perf_counter()
        found = Counter(senders.map(lambda pair: one(peer, gate, *pair), enumerate(images)))
        return found, time.perf_counter() - start


def one(peer: Address, gate: threading.Barrier, number: int, image: bytes) -> str:
    """A sender of one image: "stored", "told" (a rejection, an abort or a status) or "silent"."""
    gate.wait(PATIENCE)
    try:
        with socket.create_connection((peer.host, peer.port), timeout=PATIENCE) as sock, sock.makefile("rb") as replies:
            sock.sendall(associate_request(CTImageStorage, called=peer.ae_title, calling=f"FLOOD{number}"))
            answer = pdu(replies)
            if answer and answer[0] == 0x02:
                sock.sendall(pdata(value(store_command(sop_uid=f"1.2.3.{number}"))) + b"".join(fragments(image)))
                answer = pdu(replies)
    except OSError:
        return "silent"
    if answer and answer[0] == 0x04 and not status_of(answer):
        return "stored"
    return "told" if answer else "silent"


def pdu(replies: BinaryIO) -> bytes:
    """The next PDU; nothing where the peer has ended the connection."""
    head = replies.read(6)
    return head + replies.read(int.from_bytes(head[2:])) if len(head) == 6 else b""


def fragments(image: bytes) -> Iterator[bytes]:
    """PDUs that everybody takes, the last marked as such."""
    for start in range(0, len(image), FRAGMENT):
        last = start + FRAGMENT >= len(image)
        yield pdata(value(image[start : start + FRAGMENT], control=0x02 if last else 0x00))


def bare(folder: Path) -> dict[str, float]:
    """MiB of the receiver before and after connections that are closed at once."""
    node = Node(folder, web=free_port())
    with running(node):
        assert node.process is not None
        before = uses(node.process.pid)["receiver"]
        for _ in range(BARE):
            socket.create_connection((node.address.host, node.address.port), timeout=10).close()
        common.wait_for_echo(node.address)
        after = uses(node.process.pid)["receiver"]
        return {"before": round(before.resident_mib, 1), "after": round(after.resident_mib, 1)}


if __name__ == "__main__":
    main()
