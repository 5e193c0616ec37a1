"""Training of the models in this repository; read `run`, then the module of the task."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

TASKS = ("cervical-ct-fracture",)


def run(
    task: str, *, config_dir: Path, out: Path, cache: Path | None = None, progress: Callable[[str], None] = logger.info
) -> Path:
    """Train the model of a task on phantoms, evaluate it, and write a model folder; return that folder.

    `cache` keeps the rendered phantoms (several GB, default `out/phantoms`) and can be shared between runs.
    A finished slice network that an interrupted run with the same settings left in `out` is used again.
    """
    if task not in TASKS:
        raise ValueError(f"no training task {task!r}: there is {', '.join(TASKS)}")
    # A task imports torch; naming the tasks does not.
    module = importlib.import_module(f"inference.training.{task.replace('-', '_')}")
    folder: Path = module.train(config_dir, out, cache=cache or out / "phantoms", progress=progress)
    return folder
