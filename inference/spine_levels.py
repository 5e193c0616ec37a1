"""Vertebrae and discs on sagittal T2 MR: which series a network sees, how, and what has to be true of its names.

As in CT, a volume runs from feet to head, front to back, and from the patient's right to left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inference import engine, weights
from inference.datasets.labelled_mr import DISC, VERTEBRAE
from inference.nets.unet import VertebraUNet
from inference.preprocess.sagittal import View
from inference.preprocess.windows import Window
from inference.vertebrae import Anatomy

NAME = "spine-mr-levels"
#: Of the values of a series: what is black, and what is white.
PERCENTILES = (1.0, 99.0)
WHITE = 1000
#: Brighter values are all the same.
BRIGHTEST = 1500
#: A sagittal image of the neck or of the back shows some of these. C1 has no body, and is hard to see on T2.
_CHAIN = (
    *(f"C{n}" for n in range(2, 8)),
    *(f"T{n}" for n in range(1, 13)),
    *(f"L{n}" for n in range(1, 6)),
    "S1",
)
_DISCS = tuple(f"{upper}/{lower}" for upper, lower in zip(_CHAIN[:-1], _CHAIN[1:], strict=True))
#: S1 stands for the whole sacrum.
LEVELS = (*_CHAIN, *_DISCS)
VIEW = View(levels=LEVELS, window=Window(WHITE / 2, WHITE), outside=0.0, gain=0.25, offset=80.0, noise=60.0)
#: The outermost slices cut vertebrae, so that small ones count; the sacrum reaches far down.
ANATOMY = Anatomy(
    view=VIEW,
    landmarks=("C2", "S1"),
    distance={"C": (7.0, 32.0), "T": (10.0, 45.0), "L": (18.0, 60.0), "L5": (15.0, 130.0)},
    volume={"C": (1.0, 60.0), "T": (1.5, 120.0), "L": (4.0, 200.0), "S": (3.0, 500.0), "/": (0.2, 50.0)},
    reported=LEVELS,
)


def labels(structures: np.ndarray) -> np.ndarray:
    """A map of structures as in LabelledMR to positions in LEVELS plus one, uint8; what has no place there is 0."""
    table = np.zeros(256, np.uint8)
    for number, level in enumerate(LEVELS, start=1):
        upper, _, lower = level.partition("/")
        table[VERTEBRAE[upper] + (DISC if lower else 0)] = number
    return np.asarray(table[structures])


def upright(values: np.ndarray) -> np.ndarray:
    """Sagittal (right to left, head to feet, front to back) to (feet to head, front to back, right to left)."""
    return np.ascontiguousarray(values.transpose(1, 2, 0)[::-1])


def sagittal(values: np.ndarray) -> np.ndarray:
    """The way back from `upright`."""
    return np.ascontiguousarray(values[::-1].transpose(2, 0, 1))


def thousandths(values: np.ndarray) -> np.ndarray:
    """Values of a series in any unit to int16: 0 at its 1st, 1000 at its 99th percentile, not above 1500."""
    low, high = np.percentile(values, PERCENTILES)
    share = (values - low) / max(float(high - low), np.finfo(np.float32).tiny)
    return np.asarray(np.clip(WHITE * share, 0, BRIGHTEST).round().astype(np.int16))


def level_net(folder: Path, manifest: dict[str, Any], device: str) -> VertebraUNet:
    """The U-Net of a manifest, filled with its verified weights."""
    net = VertebraUNet(**manifest["networks"]["unet"]["arguments"])
    weights.fill(net, weights.load_tensors(folder, manifest), part="unet")
    return net.to(engine.choose_device(device)).eval()
