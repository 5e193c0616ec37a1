"""Real programs for the tests: this node, Orthanc as the PACS, DCMTK as foreign clients."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dicomnode import ledger, report
from dicomnode.config import Config
from dicomnode.errors import Transient
from dicomnode.network.echo import echo
from dicomnode.network.send import Address, send
from dicomnode.network.tls import Files, client
from tests.integration.validators import missing, require

T = TypeVar("T")
DICOMNODE = Path(sys.executable).with_name("dicomnode")
#: The node with a model that answers at once.
STAND_IN = (sys.executable, "-m", "tests.stand_in")
TLS_FILES = ("certificate", "key", "authorities")
FINAL = ("done", "not_applicable", "failed")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def local(ae_title: str, port: int) -> Address:
    return Address(ae_title=ae_title, host="127.0.0.1", port=port)


def wait_for(what: str, ask: Callable[[], T], seconds: float = 90.0) -> T:
    """Return the first true answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def dcmtk(name: str) -> str:
    """DCMTK's program, not the script of the same name that pynetdicom puts beside Python."""
    own = Path(sys.executable).parent
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != own)
    return shutil.which(name, path=path) or require(f"{name} (DCMTK)")


class Node:
    """A `dicomnode serve` that can be killed and started again on the same data."""

    def __init__(
        self,
        folder: Path,
        *,
        destinations: Mapping[str, Address] | None = None,
        senders: Sequence[Address] = (),
        quiet_seconds: float = 0.5,
        allow: Sequence[str] = ("*",),
        port: int | None = None,
        results: Sequence[str] = ("seg", "sr", "sc"),
        tls: Files | None = None,
        web: int = 0,
        program: Sequence[str | Path] = (DICOMNODE,),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = replace(local("DICOMNODE", port or free_port()), tls=client(tls) if tls else None)
        self.data_dir, self.config, self.log = folder / "data", folder / "node.toml", folder / "node.log"
        lines = [
            f'data_dir = "{self.data_dir}"',
            f'[receive]\nhost = "127.0.0.1"\nport = {self.address.port}\nallow = {json.dumps(list(allow))}',
            *(["tls = true\n[tls]", *(f'{k} = "{getattr(tls, k)}"' for k in TLS_FILES)] if tls else []),
            f"[assembly]\nquiet_seconds = {quiet_seconds}",
            f"[web]\nport = {web}",
            *(f'[[sender]]\nae_title = "{s.ae_title}"\nhost = "{s.host}"\nport = {s.port}' for s in senders),
            *(
                f'[[destination]]\nname = "{name}"\nae_title = "{d.ae_title}"\nhost = "{d.host}"\nport = {d.port}\n'
                f"results = {json.dumps(list(results))}"
                for name, d in (destinations or {}).items()
            ),
        ]
        self.config.write_text("\n".join(lines) + "\n")
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        command = [*self.program, "serve", "--config", self.config]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env=os.environ | environment, start_new_session=True)
        wait_for("the node to answer C-ECHO", self._answers)

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            echo(self.address, calling_ae="TEST")
        except Transient:
            return False
        return True

    def stop(self) -> int:
        """SIGTERM; return the exit status. The receiver must have ended by itself: it answers what is at hand."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        lines = [line for line in self.log.read_text().splitlines() if "process did not end by itself" in line]
        assert "receiver" not in [json.loads(line)["name_"] for line in lines], lines
        return status

    def kill(self) -> None:
        """SIGKILL, and wait until the port is free: the children go with their parent."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        wait_for("the children to end", lambda: _is_free(self.address.port))

    def kill_group(self) -> None:
        """SIGKILL to every process of the node at once, as a power cut would end them."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_for("the port to be free", lambda: _is_free(self.address.port))

    @property
    def ledger(self) -> ledger.Ledger:
        return ledger.connect(Config(data_dir=self.data_dir).ledger_url)

    def study(self, uid: str) -> dict[str, Any]:
        return report.stored_document(self.ledger, uid)

    def answer(self, uid: str, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until a study has its answer and every destination has it."""
        book = self.ledger

        def final() -> bool:
            return any(row["uid"] == uid and row["state"] in FINAL for row in book.studies())

        wait_for(f"an answer about {uid}", final, seconds)
        return report.stored_document(book, uid)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `dicomnode` command with this node's configuration."""
        command = [str(DICOMNODE), *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def digests(self) -> dict[str, str]:
        """What `dicomnode instances --digests` says."""
        done = self.run("instances", "--digests")
        assert done.returncode == 0, done.stderr
        return dict(line.split() for line in done.stdout.splitlines())


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def running(node: Node, **environment: str) -> Iterator[Node]:
    """Start a node, and end it in any case."""
    try:
        node.start(**environment)
        yield node
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()


class Orthanc:
    """Debian's Orthanc as the PACS."""

    def __init__(
        self,
        folder: Path,
        *,
        routes_to: Address | None = None,
        port: int | None = None,
        dicomweb: bool = False,
        takes_seconds: float = 0.0,
    ) -> None:
        self._program = require("Orthanc")
        if dicomweb and not DICOMWEB.exists():
            missing("Orthanc's DICOMweb plugin")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.address = local("PACS", port or free_port())
        self._http = free_port()
        self.url = f"http://127.0.0.1:{self._http}"
        script = folder / "route.lua"
        # The rule that docs/operations.md gives.
        script.write_text(
            "function OnStableStudy(studyId, tags, metadata)\n"
            """  RestApiPost("/modalities/dicomnode/store", '{"Resources": ["' .. studyId .. '"],"""
            """ "Asynchronous": true}')\nend\n"""
        )
        slow = folder / "slow.lua"
        slow.write_text(
            f'function ReceivedInstanceFilter()\n  os.execute("sleep {takes_seconds}")\n  return true\nend\n'
        )
        scripts = [*([script] if routes_to else []), *([slow] if takes_seconds else [])]
        peers = {"dicomnode": [routes_to.ae_title, routes_to.host, routes_to.port]} if routes_to else {}
        settings = {
            "Name": "pacs", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": self._http, "DicomPort": self.address.port, "DicomAet": "PACS", "StableAge": 2,
            "AuthenticationEnabled": False, "RemoteAccessAllowed": False, "DicomModalities": peers,
            "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True, "DicomAlwaysAllowEcho": True,
            "LuaScripts": [str(path) for path in scripts], "Plugins": [str(DICOMWEB)] if dicomweb else [],
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self.folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
            )
        wait_for("Orthanc", self._answers)

    def _answers(self) -> bool:
        try:
            self.get("/system")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def get(self, path: str) -> Any:
        return json.loads(self.raw(path))

    def raw(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def delete(self, path: str) -> None:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", method="DELETE"), timeout=10):
            pass

    def series(self) -> list[tuple[str, int]]:
        """Modality and number of instances of every series."""
        return sorted((s["MainDicomTags"]["Modality"], len(s["Instances"])) for s in self.get("/series?expand"))

    def instances(self, modality: str | None = None) -> list[str]:
        """Orthanc's identifiers of the instances in all series, or in those of a modality."""
        series = self.get("/series?expand")
        found = [s["Instances"] for s in series if modality in (None, s["MainDicomTags"]["Modality"])]
        return [instance for part in found for instance in part]

    def save(self, instance: str, path: Path) -> Path:
        path.write_bytes(self.raw(f"/instances/{instance}/file"))
        return path


@contextlib.contextmanager
def orthanc(folder: Path, **options: Any) -> Iterator[Orthanc]:
    pacs = Orthanc(folder, **options)
    pacs.start()
    try:
        yield pacs
    finally:
        pacs.stop()


def send_all(files: Sequence[Path], peer: Address, *, calling_ae: str = "TEST") -> None:
    """Send files; every one must be acknowledged."""
    refused = [outcome for outcome in send(files, peer, calling_ae=calling_ae) if outcome.problem]
    assert not refused, refused[0]
