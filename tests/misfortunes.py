"""Studies that take the stand-in model (tests/stand_in.py) down, as a broken image could."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

CRASH, HANG, GREED = "901", "902", "903"  # the numbers of the studies, see write_series
GREED_GIB = 6  # to be had on any machine, and more than the node of the test allows

_HAPPEN = {
    CRASH: lambda: os.kill(os.getpid(), signal.SIGSEGV),
    HANG: lambda: time.sleep(3600),
    GREED: lambda: np.empty(GREED_GIB * 2**30, np.uint8),
}


def befall(study_uid: str) -> None:
    """Do what this study does to a model; nothing, for most."""
    if happens := _HAPPEN.get(study_uid.rpartition(".")[2]):
        happens()
