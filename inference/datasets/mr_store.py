"""Labelled MR studies on disk, ready for training: each read or rendered once, then memory-mapped by every task."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inference import geometry
from inference.datasets import open_mr_dataset, shelf
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox, LabelledMR, MRSeries, Plane, Weighting

logger = logging.getLogger(__name__)

_RECORD = "study.json"
#: Their names say everything about them, so that two ranges of seeds share a shelf.
_PHANTOMS = "phantom_mr"


@dataclass(frozen=True, kw_only=True)
class StoredSeries:
    """As MRSeries. Arrays are opened at each use: hundreds of open maps pass the usual file limit."""

    folder: Path
    number: int
    sequence: Weighting
    plane: Plane
    #: (slices, rows, columns).
    shape: tuple[int, int, int]
    affine: np.ndarray
    boxes: tuple[ImageBox, ...] | None
    has_structures: bool

    @property
    def values(self) -> np.ndarray:
        """(slices, rows, columns) int16 or float32, read-only."""
        return np.asanyarray(np.load(self.folder / f"values-{self.number}.npy", mmap_mode="r"))

    @property
    def structures(self) -> np.ndarray:
        """uint8 (slices, rows, columns), read-only. Raises UnusableData where there is none."""
        if not self.has_structures:
            raise UnusableData(f"{self.folder.name}: no outlines in its {self.plane} {self.sequence} series")
        return np.asanyarray(np.load(self.folder / f"structures-{self.number}.npy", mmap_mode="r"))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm, (slice, row, column)."""
        return geometry.spacing(self.affine)


@dataclass(frozen=True, kw_only=True)
class Study:
    """One labelled MR study on disk; as LabelledMR."""

    folder: Path
    name: str
    patient: str
    region: Literal["cervical", "lumbar"]
    series: tuple[StoredSeries, ...]
    measurements: Mapping[str, Mapping[str, float]]
    exclusions: tuple[str, ...]
    source: str
    licence: str


def prepare_mr(text: str, *, cache: Path, progress: Callable[[str], None] = logger.info) -> list[Study]:
    """Open the studies of a data set, after reading on every core those that the cache lacks.

    Raises UnusableData, naming the study, when one cannot be read.
    """
    names = list(open_mr_dataset(text).names)
    folders = shelf.filled(
        _shelf(text, cache), names, partial(_make, text=text), record=_RECORD, title=text, progress=progress
    )
    return [_read(folder) for folder in folders]


def write_study(study: LabelledMR, folder: Path) -> dict[str, Any]:
    """Write the arrays of a study; its record as plain values for JSON."""
    for number, series in enumerate(study.series):
        np.save(folder / f"values-{number}.npy", _compact(series.values))
        if series.structures is not None:
            np.save(folder / f"structures-{number}.npy", series.structures)
    return {
        "name": study.name,
        "patient": study.patient,
        "region": study.region,
        "series": [_series(one) for one in study.series],
        "measurements": {level: dict(values) for level, values in study.measurements.items()},
        "exclusions": list(study.exclusions),
        "source": study.source,
        "licence": study.licence,
    }


def _make(name: str, folder: Path, *, text: str) -> dict[str, Any]:
    return write_study(open_mr_dataset(text).load(name), folder)


def _shelf(text: str, cache: Path) -> Path:
    """Two readers of one set of images have studies of the same names, and other boxes."""
    kind, _, place = text.partition(":")
    if kind == _PHANTOMS:
        return cache / kind
    return cache / f"{kind}-{hashlib.sha256(str(Path(place).resolve()).encode()).hexdigest()[:12]}"


def _compact(values: np.ndarray) -> np.ndarray:
    """Whole numbers, as scanners store them, in half the space; everything else as it is."""
    limits = np.iinfo(np.int16)
    whole = limits.min <= values.min() and values.max() <= limits.max and np.array_equal(values, values.round())
    return values.astype(np.int16 if whole else np.float32)


def _series(series: MRSeries) -> dict[str, Any]:
    return {
        "sequence": series.sequence,
        "plane": series.plane,
        "shape": series.values.shape,
        "affine": series.affine.tolist(),
        "boxes": None if series.boxes is None else [asdict(box) for box in series.boxes],
        "has_structures": series.structures is not None,
    }


def _read(folder: Path) -> Study:
    path = folder / _RECORD
    record = shelf.read_record(path)
    try:
        series = tuple(_stored(folder, number, one) for number, one in enumerate(record["series"]))
        return Study(folder=folder, **{**record, "series": series, "exclusions": tuple(record["exclusions"])})
    except (ValueError, KeyError, TypeError) as error:
        raise shelf.damaged(path, error) from error


def _stored(folder: Path, number: int, record: Mapping[str, Any]) -> StoredSeries:
    boxes = None if record["boxes"] is None else tuple(ImageBox(**box) for box in record["boxes"])
    changed = {"shape": tuple(record["shape"]), "affine": np.array(record["affine"]), "boxes": boxes}
    return StoredSeries(folder=folder, number=number, **{**record, **changed})
