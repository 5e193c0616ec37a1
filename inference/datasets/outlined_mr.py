"""Sagittal T2 series with outlined vertebrae and discs, turned as the network that names them sees a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from inference import spine_levels
from inference.datasets.labelled_mr import VERTEBRAE
from inference.datasets.mr_store import StoredSeries, Study


@dataclass(frozen=True)
class OutlinedMR:
    """One series; as `Outlined`: from feet to head, front to back, the patient's right to left."""

    name: str
    series: StoredSeries

    @property
    def folder(self) -> Path:
        """For what is made from the series."""
        return self.series.folder / f"upright-{self.series.number}"

    @property
    def hu(self) -> np.ndarray:
        """int16, thousandths of the range of the series."""
        return spine_levels.upright(spine_levels.thousandths(self.series.values))

    @property
    def vertebrae(self) -> np.ndarray:
        """uint8: 0 none, otherwise the position in `spine_levels.LEVELS` plus one."""
        return spine_levels.upright(spine_levels.labels(self.series.structures))

    @property
    def has_sixth(self) -> bool:
        """Whether there is a sixth lumbar vertebra, which has no name among the levels."""
        return VERTEBRAE["L6"] in self._there

    @property
    def is_unusual(self) -> bool:
        """Whether there are six lumbar vertebrae, or four: counting from the sacrum gives other names."""
        return self.has_sixth or (VERTEBRAE["S1"] in self._there and VERTEBRAE["L5"] not in self._there)

    @cached_property
    def _there(self) -> set[int]:
        return set(np.unique(self.series.structures).tolist())

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm, in the order of the arrays."""
        slices, rows, columns = self.series.spacing
        return rows, columns, slices

    @property
    def has_fractures(self) -> bool:
        """Nobody outlines them in MR."""
        return False

    @property
    def fractures(self) -> np.ndarray:
        """Raises ValueError: there are none."""
        raise ValueError(f"{self.name} has no map of fractures")

    @property
    def levels(self) -> None:
        """It is not known which vertebrae are fractured."""
        return


def outlined(studies: Sequence[Study]) -> list[OutlinedMR]:
    """Every sagittal T2 series of which somebody has outlined the vertebrae."""
    return [
        OutlinedMR(study.name, series)
        for study in studies
        for series in study.series
        if series.has_structures and (series.sequence, series.plane) == ("T2", "sagittal")
    ]
