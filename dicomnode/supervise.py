"""The processes of a node: start them, restart what dies, stop them all."""

from __future__ import annotations

import fcntl
import importlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import IO

import inference.pipeline
from dicomnode import faults, ledger, ledger_clock, logs, schema
from dicomnode.audit import Trail
from dicomnode.audit_message import START, STOP
from dicomnode.config import CONFIG_DIR, Config
from dicomnode.errors import ConfigError
from dicomnode.ledger import Ledger
from dicomnode.network import ports

logger = logging.getLogger(__name__)

#: Each process runs one function, in a module that it alone imports: the receiver must not pay for torch.
ROLES = {
    "receiver": "dicomnode.receive:run",  # takes instances in; small, starts fast, survives a model's crash
    "coordinator": "dicomnode.roles:coordinate",  # assembles and selects
    "worker": "dicomnode.roles:work",  # analyses; the only one that imports torch
    "sender": "dicomnode.roles:send",  # delivers, one thread for each destination
    "web": "dicomnode.web.pages:run",  # shows what became of each study
}
STOP_SECONDS = 8.0  # for a process to end by itself
RESTART_SECONDS = 1.0
HOST = socket.gethostname()


@dataclass(frozen=True)
class Life:
    """What a role needs to know of its process."""

    #: Prefix of the leases it takes.
    owner: str
    #: Set when it is to end.
    stop: threading.Event = field(default_factory=threading.Event)


def serve(config: Config) -> None:
    """Run the node until SIGTERM or SIGINT.

    Raises ConfigError if another node uses the data directory or a setting cannot work, UnknownPipeline or
    UntrustedWeights if a model is not the one that is pinned.
    """
    for name in inference.pipeline.names(CONFIG_DIR):
        inference.pipeline.verify(name, CONFIG_DIR)
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.umask(0o077)
    lock = _lock(config.data_dir)
    # A port that cannot be had is said now, not by a process that is started again and again.
    ports.take("receive", config.receive.host, config.receive.port).close()
    if config.web.port:
        ports.take("web", config.web.host, config.web.port).close()
    faults.announce()
    book = _take_over(config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    names = [name for name in ROLES if name != "worker" and (name != "web" or config.web.port)]
    names += [f"worker-{index}" for index in range(config.inference.workers)]
    children = {name: _start(name, config) for name in names}
    trail = Trail(config)
    trail.application(START)
    logger.info("node started", extra={"ae_title": config.receive.ae_title, "port": config.receive.port})
    try:
        while not stop.is_set():
            wait([child.sentinel for child in children.values()], timeout=0.5)
            for name, child in list(children.items()):
                if child.exitcode is not None and not stop.is_set():
                    _bury(name, child, config, book)
                    stop.wait(RESTART_SECONDS)
                    children[name] = _start(name, config)
    finally:
        _stop(list(children.values()))
        trail.application(STOP)
        lock.close()
        logger.info("node stopped")


def _lock(data_dir: Path) -> IO[str]:
    lock = (data_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"{data_dir} is in use by another node", hint="stop it, or give this one its own data_dir"
        ) from error
    return lock


def _take_over(config: Config) -> Ledger:
    """The ledger as an earlier node left it: nobody is at work, and nothing waits longer than it may."""
    book = ledger.connect(config.ledger_url)
    schema.check(book.engine)
    book.release_owner(f"{HOST}/", died=None)
    ledger_clock.clamp(book)
    return book


def _start(name: str, config: Config) -> SpawnProcess:
    child = multiprocessing.get_context("spawn").Process(target=_run, args=(name, config), name=name)
    child.start()
    return child


def _bury(name: str, child: SpawnProcess, config: Config, book: Ledger) -> None:
    """Give back what a dead process held. A worker's death counts against the analysis that it was doing."""
    logger.error("process ended, it is started again", extra={"name_": name, "exitcode": child.exitcode})
    limit = f"{config.inference.timeout_seconds:g} s"
    died = f"the analysis ended its process with exit code {child.exitcode} (1: it took longer than {limit})"
    try:
        book.release_owner(f"{HOST}/{name}/", died=died if name.startswith("worker") else None)
    except schema.AWAY:
        # The node stays. What the process held is free when its lease runs out, and this death counts against nothing.
        logger.exception("the ledger is away; what the process held is free when its lease has run out")


def _stop(children: list[SpawnProcess]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.exitcode is None:
            logger.warning("process did not end by itself, it is killed", extra={"name_": child.name})
            child.kill()
            child.join()


def _run(name: str, config: Config) -> None:
    """The main function of a child process."""
    logs.configure(name)
    os.umask(0o077)
    life = Life(f"{HOST}/{name}/{os.getpid()}")
    signal.signal(signal.SIGTERM, lambda *_: life.stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group: the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    module, _, function = ROLES[name.partition("-")[0]].partition(":")
    getattr(importlib.import_module(module), function)(config, life)


def _die_with_parent() -> None:
    """A child must not go on when its supervisor was killed: the next node could not take its place."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
