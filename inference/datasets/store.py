"""Labelled cases on disk, ready for training: each read or rendered once, then memory-mapped by every task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.datasets import open_dataset, shelf
from inference.datasets.labelled import LabelledCT, UnusableData
from inference.preprocess.crop import Crop, case_crop

logger = logging.getLogger(__name__)

POSITIVE_MM2 = 2.0  # a slice with at least this area of fracture is positive; with less, but some, ambiguous
_RECORD = "case.json"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One labelled CT on disk. Arrays are opened at each use: hundreds of open maps pass the usual file limit."""

    folder: Path
    name: str
    patient: str
    spacing: tuple[float, float, float]
    #: The case-consistent square of paper 003, in full resolution.
    crop: Crop
    #: Fractured or not; None where the data set does not say.
    fractured: bool | None
    levels: Mapping[str, bool] | None
    #: Fracture area of each slice inside the crop, mm2; None where the data set does not say.
    area: np.ndarray | None
    source: str
    licence: str

    @property
    def hu(self) -> np.ndarray:
        """int16 (slices, rows, columns), read-only."""
        return np.asanyarray(np.load(self.folder / "hu.npy", mmap_mode="r"))

    @property
    def vertebrae(self) -> np.ndarray:
        """uint8 (slices, rows, columns), read-only. Raises UnusableData where there is none."""
        return self._map("vertebrae")

    @property
    def fractures(self) -> np.ndarray:
        """bool (slices, rows, columns), read-only. Raises UnusableData where there is none."""
        return self._map("fractures")

    @property
    def has_vertebrae(self) -> bool:
        return (self.folder / "vertebrae.npy").exists()

    @property
    def has_fractures(self) -> bool:
        return (self.folder / "fractures.npy").exists()

    def _map(self, kind: str) -> np.ndarray:
        path = self.folder / f"{kind}.npy"
        if not path.exists():
            raise UnusableData(f"{self.name} ({self.source}) has no map of {kind}: this task cannot use it")
        return np.asanyarray(np.load(path, mmap_mode="r"))

    @property
    def labels(self) -> np.ndarray:
        """(slices,) bool: does the slice show a fracture? Nothing is known to where `area` is None."""
        return np.asarray(self._areas() >= POSITIVE_MM2)

    @property
    def clear(self) -> np.ndarray:
        """(slices,) bool: False where so little fracture is in the slice that neither label is fair, or unknown."""
        areas = self._areas()
        return np.asarray((areas >= POSITIVE_MM2) | (areas == 0))

    def hu_at(self, slices: slice | Sequence[int], size: int) -> torch.Tensor:
        """HU of some slices in the crop, resized: (n, size, size) float32."""
        # A copy: torch warns about memory that must not be written.
        return self.crop.cut(torch.from_numpy(np.array(self.hu[slices])), size)

    def fractures_at(self, slices: slice | Sequence[int], size: int) -> torch.Tensor:
        """How much of each pixel of the resized crop is fracture, 0..1: (n, size, size) float32."""
        shown = self.crop.cut(torch.from_numpy(self.fractures[slices].astype(np.float32)), size)
        return shown.clamp_(min=0)  # the crop is black, not zero, outside the image

    def _areas(self) -> np.ndarray:
        if self.area is not None:
            return self.area
        count = len(self.hu)
        return np.zeros(count) if self.fractured is False else np.full(count, np.nan)


def prepare(
    text: str, *, cache: Path, progress: Callable[[str], None] = logger.info, names: Sequence[str] | None = None
) -> list[Case]:
    """Open the cases of a data set (all, or some by name), after reading on every core those that the cache lacks.

    Raises UnusableData, naming the case, when one cannot be read.
    """
    wanted = list(open_dataset(text).names if names is None else names)
    kind = text.partition(":")[0]
    folders = shelf.filled(
        cache / kind, wanted, partial(_make, text=text), record=_RECORD, title=text, progress=progress
    )
    return [_read(folder) for folder in folders]


def _make(name: str, folder: Path, *, text: str) -> dict[str, Any]:
    case = open_dataset(text).load(name)
    crop = case_crop(case.hu)
    if crop is None:
        raise UnusableData(f"{name} ({case.source}) shows no bone: is it a CT of the spine, in HU?")
    np.save(folder / "hu.npy", case.hu)
    for kind, array in (("vertebrae", case.vertebrae), ("fractures", case.fractures)):
        if array is not None:
            np.save(folder / f"{kind}.npy", array)
    return _record(case, crop)


def _record(case: LabelledCT, crop: Crop) -> dict[str, Any]:
    area = None
    if case.fractures is not None:
        inside = crop.inside(case.fractures)
        area = [round(float(a), 2) for a in inside.sum((1, 2)) * case.spacing[1] * case.spacing[2]]
    return {
        "name": case.name,
        "patient": case.patient,
        "spacing": case.spacing,
        "crop": {"top": crop.top, "left": crop.left, "side": crop.side, "image": crop.image},
        "fractured": case.fractured,
        "levels": None if case.levels is None else dict(case.levels),
        "area": area,
        "source": case.source,
        "licence": case.licence,
    }


def _read(folder: Path) -> Case:
    path = folder / _RECORD
    record = shelf.read_record(path)
    try:
        crop = Crop(**{**record["crop"], "image": tuple(record["crop"]["image"])})
        area = None if record["area"] is None else np.array(record["area"])
        return Case(folder=folder, **{**record, "spacing": tuple(record["spacing"]), "crop": crop, "area": area})
    except (ValueError, KeyError, TypeError) as error:
        raise shelf.damaged(path, error) from error
