"""One labelled CT series, whatever data set it comes from: what training and evaluation read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

#: From head to toe; the value in a vertebra map is the position here plus one, as in VerSe and RSNA 2022.
LEVELS = tuple(f"C{n}" for n in range(1, 8)) + tuple(f"T{n}" for n in range(1, 13))
CERVICAL = LEVELS[:7]


class UnusableData(ValueError):
    """A data set or one case of it cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class LabelledCT:
    """An axial CT volume and what is known about it; None where the data set does not say.

    All arrays are (slices, rows, columns): feet to head, front to back, the patient's right to left.
    """

    #: Unique in its data set, and fit for a file name.
    name: str
    #: Cases of one patient never part over folds.
    patient: str
    #: int16, HU.
    hu: np.ndarray
    #: mm, (slice, row, column).
    spacing: tuple[float, float, float]
    #: uint8: 0 none, otherwise the position in LEVELS plus one.
    vertebrae: np.ndarray | None
    #: bool: voxels of acute fractures, or of the boxes drawn around them.
    fractures: np.ndarray | None
    #: Fractured or not for each of C1..C7.
    levels: Mapping[str, bool] | None
    #: Whether any vertebra is fractured.
    fractured: bool | None
    #: What the data are and who may use them, for model cards.
    source: str
    licence: str


class DataSet(Protocol):
    """Cases by name; nothing is read before it is asked for."""

    @property
    def names(self) -> Sequence[str]:
        """Every usable case, in a fixed order."""

    def load(self, name: str) -> LabelledCT:
        """Read one case. Raises UnusableData."""
