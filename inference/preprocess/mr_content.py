"""What the voxels say about a sagittal T2 series, whatever its header says: a spine, its contrast, noise, movement.

As `content` for CT, whose `ranges` and `complaints` take QUANTITIES. Values of MR have no unit: all are shares of the
brightest tissue, and twice the values are the same image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.ndimage import uniform_filter

from inference.preprocess.content import MIN_PIXELS, PATCH_MM, SAMPLED, Quantities, changes

#: What is measured: its name and unit in a sentence.
QUANTITIES: Quantities = {
    "structure_percent": ("structure", "% of the variance"),
    "noise_percent": ("noise", "% of the brightest tissue"),
    "edges": ("contrast of the edges over all else (sharpness)", ""),
    "unevenness": ("unevenness of the background (ghosts)", "times its mean"),
    "void_percent": ("signal voids", "% of the image"),
    "middle_void_percent": ("signal voids around the spine", "% of the middle of the image"),
    "fluid": ("fluid in the canal", "times as bright as the usual tissue"),
    "fat": ("fat behind the spine", "times as bright as the fluid"),
    "clipped_percent": ("voxels with the highest value", "%"),
    "largest_change": ("largest change between neighbouring slices (movement)", "times that of the slices around"),
    "smallest_change": ("smallest change between neighbouring slices", "times the usual"),
    "alternation": ("change between neighbouring slices (movement)", "times that between every second one"),
}

BRIGHT = 98  # percentile that stands for the brightest tissue: fluid and fat
VOID = 0.03  # of the brightest tissue: air, cortex, metal, fast blood
TISSUE = 0.15  # of the brightest tissue; muscle and more
DARKEST = 20  # percent of the patches that are background: air in front of the neck or behind the back
MIN_STRUCTURE_PERCENT = 40  # smooth patches explain 75 % and more of the variance of a spine, 2 to 11 % of noise


def measure(values: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Every quantity of QUANTITIES, for a series (slices, rows, columns) and its spacing in mm in that order.

    Slices run from right to left, rows from head to feet, columns from front to back. NaN where nothing can be
    measured, which is everything in an image without a bright tissue.
    """
    bright = float(np.percentile(values, BRIGHT))
    if bright <= 0:
        return dict.fromkeys(QUANTITIES, math.nan)
    image = values[:: math.ceil(len(values) / SAMPLED)].astype(np.float32) / np.float32(bright)
    size = (1, *(max(round(PATCH_MM / mm), 3) for mm in spacing[1:]))
    mean = uniform_filter(image, size)
    deviation = np.sqrt(np.maximum(uniform_filter(image**2, size) - mean**2, 0))
    tissue = deviation[mean > TISSUE]
    background = mean[mean <= np.percentile(mean, DARKEST)]
    neighbours = np.minimum(values.astype(np.float32) / np.float32(bright), 1)
    largest, smallest = changes(neighbours)
    return {
        "structure_percent": 100 * float(mean.var() / max(image.var(), 1e-12)),
        "noise_percent": 100 * float(np.percentile(tissue, 10)) if len(tissue) >= MIN_PIXELS else math.nan,
        "edges": _edges(image),
        "unevenness": float(background.std() / (background.mean() + 1e-3)),
        "void_percent": 100 * float((mean < VOID).mean()),
        "middle_void_percent": 100 * float((_middle(mean) < VOID).mean()),
        **_contrast(image),
        "clipped_percent": round(100 * float((image == image.max()).mean()), 2),  # less is the brightest spot
        "largest_change": largest,
        "smallest_change": smallest,
        "alternation": _alternation(neighbours),
    }


def refuse(measured: Mapping[str, float]) -> str:
    """Why these voxels are no image of a patient; empty if they may be."""
    structure = measured["structure_percent"]
    if math.isnan(structure):
        return "nothing is bright in this series: it shows no patient"
    if structure < MIN_STRUCTURE_PERCENT:
        return (
            f"{structure:.0f} % of the variance is structure, in a patient at least {MIN_STRUCTURE_PERCENT} %: this "
            "series shows noise, or one value"
        )
    return ""


def _middle(image: np.ndarray) -> np.ndarray:
    """The middle third of slices and columns: where a sagittal series of the spine has the canal."""
    slices, _, columns = image.shape
    return image[slices // 3 : slices - slices // 3, :, columns // 3 : columns - columns // 3]


def _contrast(image: np.ndarray) -> dict[str, float]:
    """What sets T2 apart from T1, in which fluid is dark, and from STIR, in which fat is."""
    usual, fluid = (max(float(value), VOID) for value in np.percentile(_middle(image), [50, BRIGHT]))
    fat = float(np.percentile(image[:, :, -(image.shape[2] // 3) :], 90))
    return {"fluid": fluid / usual, "fat": fat / fluid}


def _edges(image: np.ndarray) -> float:
    """The steepest hundredth of the slopes over the steepest quarter, along rows or along columns, whichever is less.

    Movement flattens the one that it goes along and fills the rest with ghosts; noise fills the rest, too.
    """
    found = []
    for axis in (1, 2):
        steepest, usual = np.percentile(np.abs(np.diff(image, axis=axis)), [99, 75])
        found.append(float(steepest / usual) if usual > 0 else math.nan)
    return min(found)


def _alternation(image: np.ndarray) -> float:
    """Below 1 where neighbours are alike; above it if the patient moved between the odd and the even slices."""
    near, far = (np.abs(image[step:] - image[:-step]).mean((1, 2)) for step in (1, 2))
    usual = float(np.median(far)) if len(far) else 0.0
    return float(np.median(near)) / usual if usual > 0 else math.nan
