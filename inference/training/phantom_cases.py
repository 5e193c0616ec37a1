"""Phantom cases on disk: rendered once, cropped as the pipeline crops, read back as memory maps."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from inference.phantom.cervical_ct import render, sample_spec
from inference.phantom.specification import GENERATOR_VERSION
from inference.preprocess.crop import case_crop

logger = logging.getLogger(__name__)

POSITIVE_MM2 = 2.0  # a slice with at least this area of fracture is positive; with less, but some, ambiguous


@dataclass(frozen=True, kw_only=True)
class Case:
    """One phantom, cropped: what training and evaluation read."""

    seed: int
    fractured: bool
    #: Fracture area of each slice in mm2.
    area: np.ndarray
    #: int16 HU (slices, size, size).
    hu_file: Path
    #: Fracture mask, bits packed along the columns: (slices, size, size / 8) uint8.
    mask_file: Path

    # The files are opened at each use: a memory map that stays holds a file descriptor, and hundreds of cases
    # with two each pass the usual limit of 1024.
    @property
    def hu(self) -> np.ndarray:
        """int16 HU (slices, size, size), a read-only memory map."""
        return np.asanyarray(np.load(self.hu_file, mmap_mode="r"))

    @property
    def labels(self) -> np.ndarray:
        """(slices,) bool: does the slice show a fracture?"""
        return np.asarray(self.area >= POSITIVE_MM2)

    @property
    def clear(self) -> np.ndarray:
        """(slices,) bool: False where so little fracture is in the slice that neither label is fair."""
        return np.asarray(self.labels | (self.area == 0))

    @property
    def mask(self) -> np.ndarray:
        """(slices, size, size) bool."""
        packed = np.load(self.mask_file)
        return np.unpackbits(packed, axis=2, count=self.hu.shape[2]).astype(bool)

    def slice_mask(self, index: int) -> np.ndarray:
        """(size, size) bool: the mask of one slice."""
        packed = np.load(self.mask_file, mmap_mode="r")[index]
        return np.unpackbits(packed, axis=1, count=self.hu.shape[2]).astype(bool)


def prepare(
    seeds: Iterable[int], *, profile: str, size: int, cache: Path, progress: Callable[[str], None] = logger.info
) -> list[Case]:
    """Render the phantoms that the cache lacks, on two processes, and open all of them."""
    folder = cache / f"cervical-ct-v{GENERATOR_VERSION}-{profile}-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(seeds)
    missing = [seed for seed in wanted if not _truth_file(folder, seed).exists()]
    # Spawned, not forked: torch has threads by now, and a fork of a threaded process can hang.
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        work = partial(_write, folder=folder, profile=profile, size=size)
        for done, _ in enumerate(pool.map(work, missing, chunksize=1) if missing else (), start=1):
            if done % 20 == 0 or done == len(missing):
                progress(f"rendered {done} of {len(missing)} phantoms")
    return [_read(folder, seed) for seed in wanted]


def _write(seed: int, *, folder: Path, profile: str, size: int) -> None:
    torch.set_num_threads(1)
    phantom = render(sample_spec(seed, profile))
    crop = case_crop(phantom.volume, size)
    if crop is None:
        raise ValueError(f"phantom {seed} shows no bone")
    hu = crop.cut(torch.from_numpy(phantom.volume)).round().short().numpy()
    mask = crop.cut(torch.from_numpy((phantom.fractures > 0).astype(np.float32))).numpy() > 0.5
    row, column = phantom.spec.scan.spacing[1:]
    area = (phantom.fractures > 0).sum((1, 2)) * row * column
    np.save(folder / f"{seed}-hu.npy", hu)
    np.save(folder / f"{seed}-mask.npy", np.packbits(mask, axis=2))
    # Written last: a case without it is incomplete and rendered again.
    truth = {"seed": seed, "fractured": bool(phantom.spec.acute), "area_mm2": [round(float(a), 2) for a in area]}
    _truth_file(folder, seed).write_text(json.dumps(truth))


def _truth_file(folder: Path, seed: int) -> Path:
    return folder / f"{seed}.json"


def _read(folder: Path, seed: int) -> Case:
    truth = json.loads(_truth_file(folder, seed).read_text())
    return Case(
        seed=seed,
        fractured=truth["fractured"],
        area=np.array(truth["area_mm2"]),
        hu_file=folder / f"{seed}-hu.npy",
        mask_file=folder / f"{seed}-mask.npy",
    )
