"""The signal of tissues in a spin-echo or inversion-recovery sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inference.phantom.mr.specification import Acquisition
from inference.phantom.mr.tissue import FAT_PD, FAT_T1, FAT_T2, Tissue

FIELDS = (1.5, 3.0)


class Signals(NamedTuple):
    """By label, float32: what water and fat give (signed for inversion recovery), its texture and its pulsation."""

    water: np.ndarray
    fat: np.ndarray
    grain: np.ndarray
    pulse: np.ndarray


def signals(tissues: Sequence[Tissue], acquisition: Acquisition, field: float) -> Signals:
    """Signals of labels 0, 1, ...; `field` is 1.5 or 3 tesla."""
    at = FIELDS.index(field)
    fat = FAT_PD * echo(acquisition, FAT_T1[at], FAT_T2[at])
    rows = [
        (t.pd * (1 - t.fat) * echo(acquisition, t.t1[at], t.t2[at]), t.fat * fat, t.grain, t.pulse) for t in tissues
    ]
    return Signals(*np.array(rows, np.float32).T)


def echo(acquisition: Acquisition, t1: float, t2: float) -> float:
    """Magnetisation at the echo, before proton density; times in ms.

    Spin echo: (1 - exp(-TR/T1)) exp(-TE/T2). Inversion recovery: (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2).
    """
    recovered = 1 - math.exp(-acquisition.tr / t1)
    if acquisition.ti is not None:
        recovered = 1 - 2 * math.exp(-acquisition.ti / t1) + math.exp(-acquisition.tr / t1)
    return recovered * math.exp(-acquisition.te / t2)


def null_time(t1: float, tr: float) -> float:
    """Inversion time at which a tissue gives no signal, ms."""
    return t1 * math.log(2 / (1 + math.exp(-tr / t1)))
