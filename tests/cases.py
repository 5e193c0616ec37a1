"""Training cases without rendering: a block of bone in every slice, with a dark gap through it where it is broken."""

import json
from pathlib import Path

import numpy as np

from inference.phantom.specification import GENERATOR_VERSION
from inference.training.phantom_cases import Case

AMBIGUOUS_MM2 = 1.0  # less than what counts as positive


def case_folder(cache: Path, *, profile: str = "standard", size: int = 64) -> Path:
    """Return where `phantom_cases.prepare` looks for its files."""
    folder = cache / f"cervical-ct-v{GENERATOR_VERSION}-{profile}-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_case(folder: Path, seed: int, *, fractured: bool, slices: int = 16, size: int = 64) -> Case:
    """Write one case in the format of the cache; the slice above the gap shows a trace of it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    hu = rng.normal(40, 20, (slices, size, size))
    low, high = size // 4, size * 3 // 4
    hu[:, low:high, low:high] += 700
    mask = np.zeros(hu.shape, bool)
    area = np.zeros(slices)
    if fractured:
        first, row = slices // 4 + int(rng.integers(2)), size // 2 + int(rng.integers(-4, 4))
        mask[first : first + 3, row : row + 5, low:high] = True
        hu[mask] = -200
        area = mask.sum((1, 2)) * 0.5
        area[first + 3] = AMBIGUOUS_MM2
    hu_file, mask_file = folder / f"{seed}-hu.npy", folder / f"{seed}-mask.npy"
    np.save(hu_file, hu.round().astype(np.int16))
    np.save(mask_file, np.packbits(mask, axis=2))
    truth = {"seed": seed, "fractured": fractured, "area_mm2": area.tolist()}
    (folder / f"{seed}.json").write_text(json.dumps(truth))
    return Case(seed=seed, fractured=fractured, area=area, hu_file=hu_file, mask_file=mask_file)
