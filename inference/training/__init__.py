"""Training of the models in this repository; read `run`, then the module of the task."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

#: Settings file in `config/training/` to module of this package: a task has a compact and a full size.
TASKS = {
    "cervical-ct-fracture": "cervical_ct_fracture",
    "cervical-ct-fracture-full": "cervical_ct_fracture",
    "cervical-ct-vertebrae": "cervical_ct_vertebrae",
    "cervical-ct-vertebrae-full": "cervical_ct_vertebrae",
    "cervical-ct-levels": "cervical_ct_levels",
    "cervical-ct-levels-full": "cervical_ct_levels",
    "cord-injury-mr": "spine_detection",
    "cord-injury-mr-full": "spine_detection",
    "lumbar-disc-mr": "spine_detection",
    "lumbar-disc-mr-full": "spine_detection",
    "spine-mr-levels": "spine_mr_levels",
    "spine-mr-levels-full": "spine_mr_levels",
}


def run(  # noqa: PLR0913 - the options of `dicomnode train`, named
    task: str,
    *,
    config_dir: Path,
    out: Path,
    data: str | None = None,
    cache: Path | None = None,
    device: str = "auto",
    progress: Callable[[str], None] = logger.info,
) -> Path:
    """Train the model of a task, evaluate it, and write a model folder; return that folder.

    `data` names a data set to use instead of the configured phantoms. `cache` keeps its cases as arrays (about
    25 MB each, default `out/cases`) and can be shared between tasks. An interrupted run goes on where it stopped.
    """
    if task not in TASKS:
        raise ValueError(f"no training task {task!r}: there is {', '.join(TASKS)}")
    # A task imports torch; naming the tasks does not.
    from inference import engine
    from inference.training.job import Job, read_settings

    out.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"inference.training.{TASKS[task]}")
    job = Job(
        task=task,
        settings=read_settings(config_dir, task),
        config_dir=config_dir,
        data=data,
        out=out,
        cache=cache or out / "cases",
        device=engine.choose_device(device),
        progress=progress,
    )
    folder: Path = module.train(job)
    return folder
