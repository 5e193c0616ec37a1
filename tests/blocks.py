"""Labelled necks of eight blocks of bone, without rendering, and a network that outlines them by their height."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from inference.datasets.labelled import CERVICAL
from inference.datasets.phantom import open_dataset
from inference.datasets.store import Case, prepare
from inference.nets.unet import Maps
from inference.preprocess.crop import case_crop
from inference.preprocess.sagittal import LEVELS
from tests.cases import silent

#: mm: the upper edge of C1, the distance of the levels, the height of a block; feet at 0.
TOP, STEP, HEIGHT = 132.0, 15.0, 12.0
EXTENT = (140.0, 60.0, 60.0)
SPACING = (2.0, 1.0, 1.0)
BONE, DENSE = 600, 1300


def labels(spacing: Sequence[float] = SPACING) -> np.ndarray:
    """The map of vertebrae, uint8."""
    shape = [round(mm / step) for mm, step in zip(EXTENT, spacing, strict=True)]
    z, y, x = np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    found = np.zeros(shape, np.uint8)
    for number in range(len(LEVELS)):
        bottom = TOP - STEP * (number + 1)
        block = (z >= bottom) & (z < bottom + HEIGHT) & (abs(y - 25) < 11) & (abs(x - 28) < 11)
        found[block] = number + 1
    return found


def write_neck(cache: Path, number: int, *, broken: Sequence[str] = ()) -> Case:
    """Write the phantom of a seed where `prepare` looks for it; broken levels have a dark slab through the middle."""
    text = f"phantom:standard@{number}+1"
    (name,) = open_dataset(text.partition(":")[2]).names
    folder = cache / "phantom" / name
    folder.mkdir(parents=True, exist_ok=True)
    vertebrae = labels()
    hu = np.random.default_rng(number).normal(40, 20, vertebrae.shape)
    hu[vertebrae > 0] = BONE
    gap = np.zeros(hu.shape, bool)
    for level in broken:
        gap |= (vertebrae == LEVELS.index(level) + 1) & (np.arange(hu.shape[1]) // 3 == 8)[:, None]
    hu[gap] = -100
    crop = case_crop(hu)
    assert crop is not None
    area = gap.sum((1, 2)) * SPACING[1] * SPACING[2]
    for kind, array in (("hu", hu.round().astype(np.int16)), ("vertebrae", vertebrae), ("fractures", gap)):
        np.save(folder / f"{kind}.npy", array)
    record = {
        "name": name,
        "patient": name,
        "spacing": SPACING,
        "crop": {"top": crop.top, "left": crop.left, "side": crop.side, "image": crop.image},
        "fractured": bool(broken),
        "levels": {level: level in broken for level in CERVICAL},
        "area": area.tolist(),
        "source": "tests",
        "licence": "Apache-2.0",
    }
    (folder / "case.json").write_text(json.dumps(record))
    (case,) = prepare(text, cache=cache, progress=silent)
    return case


class Painter(torch.nn.Module):
    """Calls bone by its height, on voxels of `mm`, as `labels` does. Dense bone is broken."""

    def __init__(self, mm: float = 1.5) -> None:
        super().__init__()
        self.mm = mm
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> Maps:
        hu = images[:, 1] * 1400 - 200
        z = (torch.arange(hu.shape[1]) + 0.5)[:, None] * self.mm
        level = torch.where(hu > 300, ((TOP - z) / STEP).floor(), torch.tensor(-1.0))
        logits = torch.stack([torch.where(level == n, 8.0, -8.0) for n in range(-1, len(LEVELS))], 1)
        return Maps(logits, torch.where(hu > 1000, 8.0, -8.0), logits.amax((2, 3))[:, 1:])
