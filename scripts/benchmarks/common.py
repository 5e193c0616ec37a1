"""What the benchmarks share: a real node, and numbers as a table or JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dicomnode.errors import Transient
from dicomnode.network.echo import echo
from dicomnode.network.send import Address

AE_TITLE = "DICOMNODE"
SETTLE_SECONDS = 12.0  # the other processes import libraries and load models, which the first images would pay for


def dcmtk(name: str) -> str:
    """A DCMTK program of the system: pynetdicom installs scripts with the same names beside Python."""
    own = Path(sys.executable).parent
    elsewhere = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p).resolve() != own.resolve())
    program = shutil.which(name, path=elsewhere)
    if program is None:
        sys.exit(f"{name} was not found; on Debian: apt-get install dcmtk")
    return program


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def node(data_dir: Path, **settings: str) -> Iterator[Address]:
    """A real `dicomnode serve` on a free port; settings are environment variables without their prefix."""
    address = Address(ae_title=AE_TITLE, host="127.0.0.1", port=free_port())
    names = {
        "DATA_DIR": str(data_dir),
        "RECEIVE__PORT": str(address.port),
        "RECEIVE__HOST": "127.0.0.1",
        "WEB__PORT": "0",
        **settings,
    }
    environment = os.environ | {f"DICOMNODE_{name}": value for name, value in names.items()}
    command = [Path(sys.executable).with_name("dicomnode"), "serve"]
    data_dir.mkdir(parents=True)
    with (data_dir / "node.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_echo(address)
            time.sleep(SETTLE_SECONDS)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def wait_for_echo(address: Address, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            echo(address, calling_ae="BENCH")
            return
        except Transient:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def wants_json(description: str | None) -> bool:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return bool(parser.parse_args().json)


def show(document: Mapping[str, Any], rows: Sequence[Sequence[str]], as_json: bool) -> None:
    """Print the document, or the rows under their first one as a Markdown table."""
    if as_json:
        print(json.dumps(document))
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    print("\n".join(lines))
