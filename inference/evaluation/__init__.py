"""Evaluation of committed models and repetition of papers' experiments: tables for people, JSON for programs."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

TASKS = (
    "cervical-ct-fracture",
    "cervical-ct-vertebrae",
    "cervical-ct-levels",
    "cord-injury-mr",
    "lumbar-disc-mr",
    "spine-mr-levels",
)
#: Settings file in `config/protocols/` to module of this package: a protocol can have several sizes.
PROTOCOLS = {
    "salehinejad2021": "salehinejad2021",
    "salehinejad2021-full": "salehinejad2021",
    "kannan": "kannan",
    "kannan-full": "kannan",
    "shao2024": "shao2024",
    "shao2024-full": "shao2024",
    "shao2024-text": "shao2024",
    "ppyolov2-lumbar": "ppyolov2_lumbar",
    "ppyolov2-lumbar-full": "ppyolov2_lumbar",
}


def run(  # noqa: PLR0913 - the options of `dicomnode evaluate`, named
    task: str,
    *,
    config_dir: Path,
    out: Path,
    cache: Path,
    data: str | None = None,
    device: str = "auto",
    progress: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Evaluate the pinned model of a task; write `out/<task>.json` and `out/<task>.md` and return both paths.

    `data` names another data set than the one that was set aside for the test, and gives the files another name.
    `cache` can be that of training.
    """
    if task not in TASKS:
        raise ValueError(f"no evaluation task {task!r}: there is {', '.join(TASKS)}")
    # Evaluation imports torch; naming the tasks does not.
    from inference.evaluation import committed

    return committed.evaluate(
        task, config_dir=config_dir, out=out, data=data, cache=cache, device=device, progress=progress
    )


def run_protocol(  # noqa: PLR0913 - the options of `dicomnode evaluate`, named
    name: str,
    *,
    config_dir: Path,
    out: Path,
    cache: Path,
    data: str | None = None,
    device: str = "auto",
    progress: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Repeat the experiment of a paper; write `out/<name>.json`, `.md` and pictures and return their paths.

    `data` names another data set than the configured one. `cache` keeps the cases and the state of each fold: an
    interrupted run goes on from there.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol {name!r}: there is {', '.join(PROTOCOLS)}")
    from inference import engine
    from inference.evaluation.protocol import Request

    request = Request(
        name=name,
        settings=config_dir / "protocols" / f"{name}.toml",
        data=data,
        cache=cache,
        out=out,
        device=engine.choose_device(device),
        progress=progress,
    )
    paths: list[Path] = importlib.import_module(f"inference.evaluation.{PROTOCOLS[name]}").evaluate(request)
    return paths
