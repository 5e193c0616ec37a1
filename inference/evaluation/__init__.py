"""Evaluation of committed models on phantoms they never saw: tables for people, JSON for programs."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

TASKS = ("cervical-ct-fracture",)


def run(
    task: str, *, config_dir: Path, out: Path, cache: Path, progress: Callable[[str], None] = logger.info
) -> list[Path]:
    """Evaluate the pinned model of a task; write `out/<task>.json` and `out/<task>.md` and return both paths.

    `cache` keeps the rendered phantoms and can be shared with training.
    """
    if task not in TASKS:
        raise ValueError(f"no evaluation task {task!r}: there is {', '.join(TASKS)}")
    # A task imports torch; naming the tasks does not.
    module = importlib.import_module(f"inference.evaluation.{task.replace('-', '_')}")
    paths: list[Path] = module.evaluate(config_dir, out, cache=cache, progress=progress)
    return paths
