"""What the coordinator, the workers and the sender do all day: look for work in the ledger and do the next step."""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import sys
import threading
from functools import cache, partial
from pathlib import Path

import inference.pipeline
from dicomnode import answer, clock, housekeeping, ledger, node, retention, selection
from dicomnode.audit import Trail
from dicomnode.claims import Claims
from dicomnode.config import CONFIG_DIR, Config, Destination
from dicomnode.network.syslog import Forwarder
from dicomnode.node import Node
from dicomnode.spool import Spool
from dicomnode.supervise import STOP_SECONDS, Life
from dicomnode.task import Task

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25  # how often a step looks for work
REST_SECONDS = 60.0  # before something that failed inside the node is tried again
RETENTION_SECONDS = 60.0  # how often is looked for files to delete
FORWARD_SECONDS = 2.0  # how often new audit messages are delivered
HEARTBEAT_SECONDS = ledger.LEASE_SECONDS / 3


def build(config: Config) -> Node:
    """Put a Node together; the one place that knows where everything comes from."""
    book = ledger.connect(config.ledger_url)
    return Node(
        config=config,
        spool=Spool(config.data_dir / "spool"),
        ledger=book,
        claims=Claims(book.engine),
        rules=selection.load(CONFIG_DIR / "selection.toml"),
        origin=answer.origin(config),
        trail=Trail(config),
        load=cache(partial(inference.pipeline.load, config_dir=CONFIG_DIR, device=config.inference.device)),
    )


def coordinate(config: Config, life: Life) -> None:
    """Look at every study whose deadline has come, delete what the rules let go, and forward the audit trail."""
    this = build(config)
    resting: dict[str, float] = {}

    def assemble_due() -> None:
        now = clock.now()
        for study_uid in this.ledger.studies_to_assemble(now):
            if resting.get(study_uid, 0.0) > now:
                continue
            try:
                node.assemble(this, study_uid)
            except Exception:
                # Not the study's fault (a database that is away), and it must not hold up those behind it.
                logger.exception("assembly interrupted")
                resting[study_uid] = now + REST_SECONDS

    believed = [destination.name for destination in config.destination if destination.proof == "none"]
    cleaner = partial(retention.apply, this.ledger, this.spool, config.retention, this.trail.deleted, believed=believed)
    beats = [housekeeping.every(POLL_SECONDS, assemble_due), housekeeping.every(RETENTION_SECONDS, cleaner)]
    if config.audit.host:
        beats.append(housekeeping.every(FORWARD_SECONDS, Forwarder(config).run))
    life.stop.wait()
    for beat in beats:
        beat.shutdown()


def work(config: Config, life: Life) -> None:
    """Analyse, one study at a time, under a time limit that holds even if native code hangs."""
    limit_memory(config.inference.memory_gib)
    this = build(config)
    _load_all(this)
    held: list[Task] = []

    def extend() -> None:
        for task in held:
            this.ledger.extend(task)

    heartbeat = housekeeping.every(HEARTBEAT_SECONDS, extend)
    with Path(os.devnull).open("w") as nowhere:  # the dump of a stopped analysis could quote its input
        while not life.stop.is_set():
            task = _next(this, "infer", life.owner)
            if task is None:
                life.stop.wait(POLL_SECONDS)
                continue
            held.append(task)
            faulthandler.dump_traceback_later(config.inference.timeout_seconds, exit=True, file=nowhere)
            try:
                node.infer(this, task)
            except Exception:
                # Not the study's fault (a full disk, a database that is away): tried again when the lease has run out.
                logger.exception("analysis interrupted", extra={"study": task.study_id, "pipeline": task.name})
            finally:
                faulthandler.cancel_dump_traceback_later()
                held.clear()
            if _gpu_is_lost():
                logger.error("the GPU is lost; this process ends, its successor may find it again")
                break
    heartbeat.shutdown()


def limit_memory(gib: float) -> None:
    """Let an allocation fail rather than the machine: the kernel would end whichever process it likes.

    The limit is on the memory a process can write, not on addresses: CUDA reserves more of those than there is memory.
    """
    size = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _gpu_is_lost() -> bool:
    """Whether CUDA refuses everything since an error, as it does until the process ends."""
    torch = sys.modules.get("torch")  # there once a model is
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _next(this: Node, kind: str, owner: str, name: str | None = None) -> Task | None:
    """Work to do, if there is any."""
    try:
        return this.ledger.lease(kind, owner, name=name)
    except Exception:
        # A database that is away for a while must not end the process or thread that waits for work.
        logger.exception("the ledger cannot be asked for work")
        return None


def _load_all(this: Node) -> None:
    """Have every model in memory before the first study needs it."""
    for name in inference.pipeline.names(CONFIG_DIR):
        try:
            this.load(name)
        except Exception:
            # The studies that need it will fail with this reason; the others need not.
            logger.exception("a pipeline cannot be loaded", extra={"pipeline": name})


def send(config: Config, life: Life) -> None:
    """Deliver: a destination that is down does not keep others waiting."""
    this = build(config)

    def serve_destination(destination: Destination) -> None:
        failures = 0  # in a row: a destination that is down is tried with one delivery at a time, and rests between
        while not life.stop.is_set():
            task = _next(this, "deliver", f"{life.owner}/{destination.name}", destination.name)
            if task is None:
                life.stop.wait(POLL_SECONDS)
                continue
            try:
                failures = 0 if node.deliver(this, task, destination) else failures + 1
            except Exception:
                # Not the delivery's fault (a full disk, a database that is away): again when the lease has run out.
                logger.exception("delivery interrupted", extra={"study": task.study_id, "destination": task.name})
            if failures:
                life.stop.wait(node.retry_delay(failures - 1))

    threads = [threading.Thread(target=serve_destination, args=(d,), daemon=True) for d in config.destination]
    for thread in threads:
        thread.start()
    life.stop.wait()
    for thread in threads:
        thread.join(STOP_SECONDS / 2)
