"""Labelled cases on cubic voxels, kept on disk beside the case they were made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np

from inference.datasets.labelled import UnusableData
from inference.preprocess.isotropic import resample, resample_labels

FRACTURED_SHARE = 0.2  # of a voxel: fissures are thinner than the voxels here


class Outlined(Protocol):
    """A labelled volume, feet to head, front to back, the patient's right to left: a `Case`, or an MR series."""

    @property
    def folder(self) -> Path: ...

    @property
    def hu(self) -> np.ndarray: ...

    @property
    def spacing(self) -> tuple[float, float, float]: ...

    @property
    def vertebrae(self) -> np.ndarray: ...

    @property
    def has_fractures(self) -> bool: ...

    @property
    def fractures(self) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Isotropic:
    """Arrays (slices, rows, columns): feet to head, front to back, the patient's right to left."""

    #: int16; of MR, thousandths of its range.
    hu: np.ndarray
    #: uint8: the position in the levels of a `View` plus one, or more for other vertebrae.
    vertebrae: np.ndarray
    #: bool; None where the data set does not say.
    fractures: np.ndarray | None


def prepare(cases: Sequence[Outlined], mm: float, progress: Callable[[str], None]) -> list[Path]:
    """The file of each case, for `read`; missing ones are made on every core. Raises UnusableData."""
    if not cases:
        raise UnusableData("no case has a map of vertebrae: this task needs one in each")
    missing = [case for case in cases if not _path(case, mm).exists()]
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(partial(_write, mm=mm), missing) if missing else (), start=1):
            if done % 50 == 0 or done == len(missing):
                progress(f"resampled {done} of {len(missing)} cases to {mm} mm")
    return [_path(case, mm) for case in cases]


def read(path: Path) -> Isotropic:
    """One prepared case."""
    with np.load(path) as arrays:
        return Isotropic(hu=arrays["hu"], vertebrae=arrays["vertebrae"], fractures=arrays.get("fractures"))


def _path(case: Outlined, mm: float) -> Path:
    return case.folder / f"isotropic-{mm}.npz"


def _write(case: Outlined, *, mm: float) -> None:
    arrays = {
        "hu": resample(case.hu, case.spacing, mm).round().astype(np.int16),
        "vertebrae": resample_labels(case.vertebrae, case.spacing, mm),
    }
    if case.has_fractures:
        arrays["fractures"] = resample(case.fractures.astype(np.float32), case.spacing, mm) >= FRACTURED_SHARE
    path = _path(case, mm)
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")  # another process may be writing the same
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    part.replace(path)
