"""Labelled MR studies without rendering, written where `prepare_mr` looks for phantoms: blocks on a dark ground."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.datasets import mr_store
from inference.datasets.labelled_mr import DISC, VERTEBRAE, ImageBox, LabelledMR, MRSeries
from inference.datasets.mr_series import DIRECTIONS
from inference.datasets.phantom_mr import open_dataset

SHAPE, SPACING = (5, 72, 64), (4.0, 2.0, 2.0)
MARKED = (2, 3)  # the slices with boxes
#: What is drawn, in this order from study to study.
LABELS = {"cervical": ("oedema", "haemorrhage", "mixed", "herniation"), "lumbar": ("disc", "herniation", "slip")}
#: From head to feet in the column of blocks.
COLUMN = {"cervical": ("C2", "C3", "C4", "C5", "C6", "C7"), "lumbar": ("L2", "L3", "L4", "L5", "S1")}
TOP, STEP, HEIGHT = 4, 11, 8  # rows of the first block, between blocks, of a block; a disc fills the rest


def study(region: str, number: int, *, labels: Sequence[str] | None = None, missing: Sequence[str] = ()) -> LabelledMR:
    """Return a study whose marked slices have a box of each label, four at most; without some of its vertebrae."""
    rng = np.random.default_rng(number)
    (name,) = open_dataset(f"{region}:standard@{number}+1").names
    values = rng.normal(100, 8, SHAPE)
    structures = _column(region, missing)
    values[structures > 0] = 300 + 4.0 * structures[structures > 0]
    kinds = labels if labels is not None else [LABELS[region][(number + n) % len(LABELS[region])] for n in range(2)]
    boxes = []
    for index in MARKED:
        for n, label in enumerate(kinds):
            top, left = 10 + 30 * (n % 2) + int(rng.integers(6)), 26 + 18 * (n // 2) + int(rng.integers(4))
            height, width = (8 + int(rng.integers(8)) for _ in range(2))
            values[index, top : top + height, left : left + width] = 500 + 150 * LABELS[region].index(label)
            boxes.append(
                ImageBox(slice=index, left=left, top=top, right=left + width, bottom=top + height, label=label)
            )
    return LabelledMR(
        name=name,
        patient=name,
        region=region,
        series=(
            _series("T1", values / 2, None, None),
            _series("T2", values, tuple(boxes), structures),
        ),
        measurements={"L4/L5": {"slip_mm": 1.5}},
        source="tests",
        licence="Apache-2.0",
    )


def write(cache: Path, one: LabelledMR) -> Path:
    """Write a study into the cache; return its folder."""
    folder = cache / "phantom_mr" / one.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(mr_store.write_study(one, folder)))
    return folder


def _column(region: str, missing: Sequence[str]) -> np.ndarray:
    structures = np.zeros(SHAPE, np.uint8)
    for n, level in enumerate(COLUMN[region]):
        top = TOP + STEP * n
        value = 0 if level in missing else VERTEBRAE[level]
        structures[1:4, top : top + HEIGHT, 8:24] = value
        if value and n < len(COLUMN[region]) - 1:
            structures[1:4, top + HEIGHT : top + STEP, 8:24] = DISC + value
    return structures


def _series(sequence: str, values: np.ndarray, boxes: tuple[ImageBox, ...] | None, structures: object) -> MRSeries:
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS["sagittal"].T * SPACING
    return MRSeries(
        sequence=sequence,
        plane="sagittal",
        values=values.round().astype(np.float32),
        affine=affine,
        boxes=boxes,
        structures=structures,
    )
