"""Where labelled cases are kept on disk: each made once, on every core, and complete only when its record is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from inference.datasets.labelled import UnusableData

#: Makes the case of a name: its arrays into the folder, which exists, and its record as plain values for JSON.
Make = Callable[[str, Path], dict[str, Any]]


def filled(
    shelf: Path, names: Sequence[str], make: Make, *, record: str, title: str, progress: Callable[[str], None]
) -> list[Path]:
    """The folder of each name, after making those that lack the file `record`; `make` goes to other processes.

    `title` begins the lines of progress. Raises what `make` raises.
    """
    missing = [name for name in names if not (shelf / name / record).exists()]
    # Spawned, not forked: torch has threads by now, and a fork of a threaded process can hang.
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn")) as pool:
        work = partial(_complete, shelf=shelf, make=make, record=record)
        for done, _ in enumerate(pool.map(work, missing, chunksize=1) if missing else (), start=1):
            if done % 20 == 0 or done == len(missing):
                progress(f"{title}: read {done} of {len(missing)} cases")
    return [shelf / name for name in names]


def read_record(path: Path) -> dict[str, Any]:
    """A record that `filled` wrote. Raises UnusableData."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise TypeError("no table")
    except (ValueError, TypeError) as error:
        raise damaged(path, error) from error
    return content


def damaged(path: Path, error: Exception) -> UnusableData:
    """What to raise over a record without what belongs into it."""
    return UnusableData(f"{path}: no record of a case ({error}); delete its folder to have it made again")


def _complete(name: str, *, shelf: Path, make: Make, record: str) -> None:
    # Made beside its place and moved there whole: another process may be making the same case.
    folder, part = shelf / name, shelf / f".{name}.{os.getpid()}"
    part.mkdir(parents=True, exist_ok=True)
    (part / record).write_text(json.dumps(make(name, part)))
    if not (folder / record).exists():
        shutil.rmtree(folder, ignore_errors=True)  # without its record, a case is not whole
    try:
        part.rename(folder)
    except OSError:
        if not (folder / record).exists():
            raise
        shutil.rmtree(part)  # the other process was faster
