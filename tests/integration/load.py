"""Send a node many images: what its processes use before, halfway and after, and how fast it comes back.

`scripts/soak --instances` runs it long, `test_load.py` shortly. Node, sender and PACS are those of `crash.py`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode import schema
from tests.integration.crash import Trial
from tests.integration.programs import wait_for

#: In the order in which the supervisor starts them.
PROCESSES = ("supervisor", "receiver", "coordinator", "sender", "web", "worker")
# No process may grow by more, once it has served a study; what grows with the number of images does not stop here.
MORE_MIB = 25.0
MORE_HANDLES = 5  # open files, or threads
LEDGER_BYTES = 4096  # for each image


@dataclass(frozen=True)
class Use:
    """What one process has."""

    resident_mib: float
    files: int
    threads: int


def uses(supervisor: int) -> dict[str, Use]:
    """What each process of the node has now."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    spawned = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    return {name: _use(pid) for name, pid in zip(PROCESSES, [str(supervisor), *spawned], strict=True)}


def _pid(trial: Trial) -> int:
    assert trial.node.process is not None
    return trial.node.process.pid


def _use(pid: str) -> Use:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Use(
        resident_mib=int(status["VmRSS"].split()[0]) / 1024,
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
    )


def run(trial: Trial, instances: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Figures, and under "problems" what is out of its bounds, refused, lost or doubled."""
    trial.start()
    _answered(trial, 1)
    samples = {"start": uses(_pid(trial))}
    before = _ledger_bytes(trial)
    studies = -(-instances // trial.slices)
    start = time.monotonic()
    for half, name in ((studies // 2, "middle"), (studies - studies // 2, "end")):
        _answered(trial, half)
        samples[name] = uses(_pid(trial))
        tell(f"{name}: {len(trial.acknowledged)} images acknowledged, {time.monotonic() - start:.0f} s")
    figures = {
        "images": studies * trial.slices,
        "images_per_second_to_the_pacs": round(studies * trial.slices / (time.monotonic() - start), 1),
        "ledger_bytes_per_image": round((_ledger_bytes(trial) - before) / (studies * trial.slices)),
        "seconds_to_delivery_after_the_pacs_came_back": _pacs_away(trial),
        "seconds_to_echo_after_a_kill": _killed(trial),
        "processes": {name: {at: vars(samples[at][name]) for at in samples} for name in PROCESSES},
    }
    refused = trial.studies * trial.slices - len(trial.acknowledged)
    problems = [f"{refused} images were refused"] if refused else []
    return figures | {"problems": problems + beyond(samples, figures["ledger_bytes_per_image"]) + trial.examine()}


def _answered(trial: Trial, studies: int) -> None:
    """Send so many studies, one after the other, and wait until the PACS has the answers to all."""
    for _ in range(studies):
        trial.send_study()
    _delivered(trial)


def _delivered(trial: Trial) -> None:
    def done() -> bool:
        book = trial.node.ledger
        states = [row["state"] for row in book.studies()]
        return states.count("done") == trial.studies and not book.rows(schema.task, state="ready") + book.rows(
            schema.task, state="running"
        )

    wait_for("all answers in the PACS", done, 120 + 3 * trial.studies)


def _pacs_away(trial: Trial) -> float:
    """Seconds from the PACS's start until it has the answer to a study that came while it was stopped."""
    trial.pacs.stop()
    trial.send_study()
    wait_for("a delivery that failed", lambda: any(row["attempts"] for row in _deliveries(trial)), 120)
    trial.pacs.start()
    start = time.monotonic()
    _delivered(trial)
    return round(time.monotonic() - start, 1)


def _deliveries(trial: Trial) -> list[Any]:
    return trial.node.ledger.rows(schema.task, kind="deliver", state="ready")


def _ledger_bytes(trial: Trial) -> int:
    """What the ledger holds; its journal has some megabytes more for a time."""
    with closing(sqlite3.connect(f"file:{trial.node.data_dir}/ledger.sqlite?mode=ro", uri=True)) as book:
        (pages,), (size,) = (book.execute(f"pragma {what}").fetchone() for what in ("page_count", "page_size"))
    return int(pages * size)


def _killed(trial: Trial) -> float:
    """Seconds from the start after a SIGKILL until the node answers C-ECHO, with studies on their way."""
    for _ in range(3):
        trial.send_study()
    trial.node.kill_group()
    start = time.monotonic()
    trial.node.start()  # whether it kept its word is looked at in the end
    return round(time.monotonic() - start, 1)


def beyond(samples: dict[str, dict[str, Use]], ledger_bytes: int) -> list[str]:
    """What grew by more than it may."""
    problems = [f"the ledger grew by {ledger_bytes} bytes per image"] if ledger_bytes > LEDGER_BYTES else []
    for name in PROCESSES:
        first, last = samples["start"][name], samples["end"][name]
        for what, more in (("resident_mib", MORE_MIB), ("files", MORE_HANDLES), ("threads", MORE_HANDLES)):
            grown = getattr(last, what) - getattr(first, what)
            if grown > more:
                problems.append(f"{name}: {what} grew by {grown:.0f}")
    return problems
