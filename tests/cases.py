"""Cases on disk without rendering: a block of bone in every slice, with a dark gap through it where it is broken."""

import json
from pathlib import Path

import numpy as np

from inference.datasets.phantom import open_dataset
from inference.datasets.store import Case, prepare
from inference.preprocess.crop import case_crop

AMBIGUOUS_MM2 = 1.0  # less than what counts as positive
SPACING = (1.0, 0.7, 0.7)  # mm


def write_case(
    cache: Path, number: int, *, fractured: bool, slices: int = 16, size: int = 64, patient: str | None = None
) -> Case:
    """Write the phantom of a seed where `prepare` looks for it; the slice above the gap shows a trace of it."""
    text = f"phantom:standard@{number}+1"
    (name,) = open_dataset(text.partition(":")[2]).names
    folder = cache / "phantom" / name
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    hu = rng.normal(40, 20, (slices, size, size))
    low, high = size // 4, size * 3 // 4
    hu[:, low:high, low:high] += 700
    gap, area = np.zeros(hu.shape, bool), np.zeros(slices)
    if fractured:
        first, row = slices // 4 + int(rng.integers(2)), size // 2 + int(rng.integers(-4, 4))
        gap[first : first + 3, row : row + 5, low:high] = True
        hu[gap] = -200
        area = gap.sum((1, 2)) * SPACING[1] * SPACING[2]
        area[first + 3] = AMBIGUOUS_MM2
    crop = case_crop(hu)
    assert crop is not None
    np.save(folder / "hu.npy", hu.round().astype(np.int16))
    np.save(folder / "fractures.npy", gap)
    square = {"top": crop.top, "left": crop.left, "side": crop.side, "image": crop.image}
    record = {"name": name, "patient": patient or name, "spacing": SPACING, "crop": square, "fractured": fractured}
    record |= {"levels": None, "area": area.tolist(), "source": "tests", "licence": "Apache-2.0"}
    (folder / "case.json").write_text(json.dumps(record))
    (case,) = prepare(text, cache=cache, progress=silent)
    return case


def silent(text: str) -> None:
    """Take progress and keep it to itself."""
