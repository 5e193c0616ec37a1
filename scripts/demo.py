"""The demo: a node, an archive and a sender on this machine, and one study on its way through all three."""

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

import numpy as np
import pydicom
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dicomnode import config as configuration
from dicomnode import ledger, report
from dicomnode.config import Config
from dicomnode.errors import NodeError, Transient
from dicomnode.network.archive import Archive
from dicomnode.network.echo import echo
from dicomnode.network.listen import Listener
from dicomnode.network.send import Address, send
from dicomnode.process import read_studies
from sr import text
from sr.overlay import save_png

OUT = Path(__file__).resolve().parent.parent / "demo-output"
#: Of the phantom: in the range that training never sees, and one whose fracture the model finds. The model card says
#: how often it does not.
SEED = 950_092
START_SECONDS, ANSWER_SECONDS = 60, 900
FINAL = ("done", "not_applicable", "failed")

console = Console(width=None if sys.stdout.isatty() else 140)


def main() -> None:
    """Run the demo; exit status 1 with one line on stderr if any part fails."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, help="a folder of DICOM files instead of the phantom")
    try:
        run(parser.parse_args().path)
    except (NodeError, OSError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        sys.exit(1)


def run(path: Path | None) -> None:
    """Send what is at `path`, or a phantom, and show what comes back."""
    if path is not None and not path.exists():
        raise NodeError(f"{path} does not exist")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    folder, truth = (path, None) if path is not None else make_phantom()
    studies = read_studies([folder], lambda file, why: step(f"  left out {file}: {why}"))
    if not studies:
        raise NodeError(f"no DICOM instance was found in {folder}")
    with archive_unless_configured() as archive, node() as config:
        files = [instance.path for study in studies for instance in study.instances]
        deliver(files, config)
        documents = [wait_for(study.uid, config) for study in studies]
    for document in documents:
        received = received_results(document, archive)
        show(document, truth)
        keep(received, OUT if len(documents) == 1 else OUT / f"study-{document['id']}")
    if any(document["state"] == "failed" for document in documents):
        raise NodeError("an analysis or a delivery failed, see above")


def make_phantom() -> tuple[Path, Mapping[str, Any]]:
    """A synthetic CT study with a fracture, and what is true about it."""
    from inference.phantom.studies import write_studies

    step("rendering a synthetic cervical spine CT with a fracture")
    folder = OUT / "study"
    [study] = write_studies(
        folder, count=1, seed=SEED, profile="standard", truth=True, positive=True, progress=lambda _: None
    )
    truth = json.loads((folder / "truth" / f"{study.name}.json").read_text())
    step(f"  {len(list(study.iterdir()))} images, seed {SEED}, in {study.relative_to(OUT.parent)}")
    return study, truth


@contextlib.contextmanager
def archive_unless_configured() -> Iterator[Archive | None]:
    """The PACS: the one of the environment, or a small archive in this process."""
    if "DICOMNODE_DESTINATION" in os.environ:
        yield None
        return
    archive = Archive(OUT / "archive", "ARCHIVE")
    listener = Listener(archive, host="127.0.0.1", port=0)
    place = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": listener.port}
    place["proof"] = "none"  # it takes objects and answers no questions
    os.environ["DICOMNODE_DESTINATION"] = json.dumps([place])
    step(f"archive ARCHIVE listens on port {listener.port}")
    try:
        yield archive
    finally:
        listener.stop()


@contextlib.contextmanager
def node() -> Iterator[Config]:
    """A real `dicomnode serve` in its own processes, ready to receive; it must end cleanly."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ |= {
        "DICOMNODE_DATA_DIR": str(OUT / "node"),
        "DICOMNODE_RECEIVE__HOST": "127.0.0.1",
        "DICOMNODE_RECEIVE__PORT": str(port),
        "DICOMNODE_WEB__PORT": "0",
    }
    config = configuration.load(None)
    with (OUT / "node.log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("dicomnode"), "serve"], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_until_ready(config, process)
            step(f"node {config.receive.ae_title} listens on port {port}")
            yield config
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(30)
    if status != 0:
        raise NodeError(f"the node ended with exit status {status}", hint=f"see {OUT / 'node.log'}")
    step("node stopped cleanly")


def wait_until_ready(config: Config, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            echo(node_address(config), calling_ae="DEMO")
            return
        except Transient as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NodeError("the node did not start", hint=f"see {OUT / 'node.log'}") from error
            time.sleep(0.2)


def node_address(config: Config) -> Address:
    return Address(ae_title=config.receive.ae_title, host="127.0.0.1", port=config.receive.port)


def deliver(files: Sequence[Path], config: Config) -> None:
    """Send the study, as a scanner would."""
    start = time.monotonic()
    refused = [o for o in send(files, node_address(config), calling_ae="DEMO") if o.problem]
    for outcome in refused:
        step(f"  refused {outcome.path}: {outcome.problem} {outcome.comment}")
    if refused:
        raise NodeError(f"the node refused {len(refused)} of {len(files)} images")
    step(f"sent {len(files)} images by C-STORE in {time.monotonic() - start:.1f} s, every one acknowledged")


def wait_for(study_uid: str, config: Config) -> report.Document:
    """Follow a study's states until it has an answer that was delivered."""
    book = ledger.connect(config.ledger_url)
    deadline, shown = time.monotonic() + ANSWER_SECONDS, 0
    while time.monotonic() < deadline:
        document = report.stored_document(book, study_uid)
        for entry in document["history"][shown:]:
            step(f"  {entry['state']}: {entry['reason']}")
        shown = len(document["history"])
        if document["state"] in FINAL:
            return document
        time.sleep(0.1)
    raise NodeError(f"no answer after {ANSWER_SECONDS} s", hint=f"see {OUT / 'node.log'}")


def received_results(document: report.Document, archive: Archive | None) -> list[tuple[str, Path]]:
    """Kind and file of every result, as the archive received it."""
    results = []
    for result in document["results"]:
        if archive is None:
            results.append((result["kind"], Path(result["path"])))
        elif result["sop_uid"] in archive.stored:
            results.append((result["kind"], archive.stored[result["sop_uid"]][1]))
        else:
            raise NodeError(f"{result['kind']} {result['sop_uid']} did not reach the archive")
    return results


def show(document: report.Document, truth: Mapping[str, Any] | None) -> None:
    """Print the answer, beside the truth where it is known."""
    console.print()
    console.print(report.table(document))
    if truth is None:
        return
    found = [finding for analysis in document["analyses"] for finding in analysis["findings"]]
    table = Table("planted", "level", "mechanism", "centre (LPS mm)", "reported nearby", title="truth", box=box.SIMPLE)
    for number, fracture in enumerate(truth["fractures"], start=1):
        if fracture["box_mm"] is None:  # too thin for any voxel to show it
            table.add_row(f"fracture {number}", fracture["level"], fracture["mechanism"], "in no voxel", "")
            continue
        centre = np.mean(fracture["box_mm"], axis=0)
        near = [f"finding {i}, {distance(f, centre):.0f} mm off" for i, f in enumerate(found, 1) if covers(f, centre)]
        place = " ".join(f"{x:.0f}" for x in centre)
        row = (f"fracture {number}", fracture["level"], fracture["mechanism"], place, ", ".join(near) or "nothing")
        table.add_row(*map(escape, row))
    console.print(table)


def distance(finding: Mapping[str, Any], point: np.ndarray) -> float:
    return float(np.linalg.norm(np.mean(finding["box_mm"], axis=0) - point))


def covers(finding: Mapping[str, Any], point: np.ndarray) -> bool:
    """Whether a finding's box, 5 mm wider, holds a point."""
    low, high = np.array(finding["box_mm"])
    return bool(np.all((low - 5 <= point) & (point <= high + 5)))


def keep(results: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Copy what came back into a folder, with the report as text and the key images as PNG."""
    folder.mkdir(exist_ok=True)
    counts: dict[str, int] = {}
    for kind, path in results:
        counts[kind] = counts.get(kind, 0) + 1
        name = kind.lower() if counts[kind] == 1 else f"{kind.lower()}-{counts[kind]}"
        dataset = pydicom.dcmread(path)
        shutil.copyfile(path, folder / f"{name}.dcm")
        if kind == "SR":
            (folder / f"{name}.txt").write_text(text.render(dataset))
        if kind == "SC":
            save_png(dataset.pixel_array, folder / f"{name.replace('sc', 'overlay')}.png")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    step(f"in {folder.relative_to(OUT.parent)}: {', '.join(names)}")


def step(message: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


if __name__ == "__main__":
    main()
