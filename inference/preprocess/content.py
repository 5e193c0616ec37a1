"""What the voxels say about a volume, whatever its header says: Hounsfield units, a neck, metal, noise, movement.

`measure` describes a volume in numbers, `refuse` names what no CT of a patient shows, `complaints` what the
validation cases did not show. The ranges come from those cases (`ranges`) and stand in the model's manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import binary_erosion, median_filter, uniform_filter

AIR_HU, BODY_HU, BONE_HU, METAL_HU = -800, -300, 250, 2500  # air lies below the first, the others from there on
SOFT_HU = (-200, 200)
LOWEST_HU, HIGHEST_HU = -1024, 3071  # of 12 bits: what lies beyond is padding or metal

Quantities = Mapping[str, tuple[str, str]]
#: What is measured: its name and unit in a sentence.
QUANTITIES: Quantities = {
    "air_percent": ("air", "% of the image"),
    "soft_tissue_percent": ("soft tissue", "% of the body"),
    "bone_percent": ("bone", "% of the body"),
    "metal_percent": ("metal", "% of the body"),
    "tissue_hu": ("the most common tissue", "HU"),
    "body_cm2": ("cross-section of the body", "cm2"),
    "bone_cm2": ("cross-section of the bones", "cm2"),
    "noise_hu": ("noise", "HU"),
    "contrast_to_noise": ("contrast of bone over noise", ""),
    "sharpness_hu_per_mm": ("sharpness of the bone edges", "HU/mm"),
    "largest_change": ("largest change between neighbouring slices (movement)", "times that of the slices around"),
    "smallest_change": ("smallest change between neighbouring slices", "times the usual"),
}
MARGIN = 0.25  # of the distance between the lowest and the highest validation case, beyond each of them

GRID_MM = 0.6  # finer pixels are skipped: shares and changes do not depend on them
SAMPLED = 48  # slices for what has to be looked at pixel by pixel
PATCH_MM = 5.0  # of the noise measurement
MIN_PIXELS = 50  # of a kind in one slice, for a percentile of them
AROUND = 11  # slice changes that make up "the slices around"

# No CT of a patient lies outside these, whatever a model was trained with.
MIN_AIR_PERCENT = 0.1  # even the smallest field of view shows the airway
TISSUE_HU = (-150, 150)  # fat to muscle with contrast medium
BONE_PERCENT = (0.5, 40)


def measure(hu: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Every quantity of QUANTITIES, for a volume (slices, rows, columns) and its spacing in mm in that order.

    NaN where nothing can be measured, such as noise without soft tissue.
    """
    _, row, column = spacing
    rows, columns = (max(int(GRID_MM / mm), 1) for mm in (row, column))
    coarse = np.clip(hu[:, ::rows, ::columns], LOWEST_HU, HIGHEST_HU)
    noise, sharpness = _noise_and_sharpness(hu, (row, column))
    shares = _shares(coarse, row * rows * column * columns / 100)
    contrast = shares.pop("contrast_hu")
    largest, smallest = changes(np.clip(coarse, SOFT_HU[0], 800))
    return {
        **shares,
        "noise_hu": noise,
        "contrast_to_noise": contrast / max(noise, 1.0),
        "sharpness_hu_per_mm": sharpness,
        "largest_change": largest,
        "smallest_change": smallest,
    }


def refuse(measured: Mapping[str, float]) -> str:
    """Why these voxels are no CT of a patient in Hounsfield units; empty if they may be."""
    if not measured["air_percent"] >= MIN_AIR_PERCENT:
        return f"no air was found in this series, no voxels below {AIR_HU} HU: it is not in Hounsfield units"
    if not TISSUE_HU[0] <= measured["tissue_hu"] <= TISSUE_HU[1]:
        found = f"the most common tissue has {measured['tissue_hu']:.0f} HU"
        return f"{found}, in a patient {TISSUE_HU[0]} to {TISSUE_HU[1]}: no patient, or not in Hounsfield units"
    if not BONE_PERCENT[0] <= measured["bone_percent"] <= BONE_PERCENT[1]:
        found = f"{measured['bone_percent']:.1f} % of the body is as dense as bone"
        return f"{found}, in a patient {BONE_PERCENT[0]} to {BONE_PERCENT[1]} %: no patient, or not in Hounsfield units"
    return ""


def ranges(measured: Sequence[Mapping[str, float]], quantities: Quantities = QUANTITIES) -> dict[str, list[float]]:
    """The range of every quantity in which a model is validated, [low, high], from the validation cases.

    A little wider than what they show, because the next case of the same kind may lie a little beyond.
    """
    found = {}
    for name in quantities:
        values = [case[name] for case in measured if not math.isnan(case[name])]
        low, high = min(values), max(values)
        margin = MARGIN * (high - low)
        found[name] = [float(f"{max(low - margin, min(low, 0.0)):.4g}"), float(f"{high + margin:.4g}")]
    return found


def complaints(
    measured: Mapping[str, float], validated: Mapping[str, Sequence[float]], quantities: Quantities = QUANTITIES
) -> list[str]:
    """One sentence for every quantity outside its validated range."""
    sentences = []
    for name, (low, high) in validated.items():
        what, unit = quantities[name]
        value = measured[name]
        if not low <= value <= high:  # never true of NaN
            found = "cannot be measured" if math.isnan(value) else f"{_short(value)} {unit}".rstrip()
            limits = f"validated {_short(low)} to {_short(high)} {unit}".rstrip()
            sentences.append(f"outside the validated range: {what} {found}, {limits}")
    return sentences


def _short(value: float) -> str:
    """Three digits, without an exponent for large numbers."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _shares(coarse: np.ndarray, pixel_cm2: float) -> dict[str, float]:
    """What the volume is made of, from one histogram per slice."""
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    counts = np.stack(
        [np.bincount((np.rint(p) - LOWEST_HU).astype(np.intp).ravel(), minlength=len(hu)) for p in coarse]
    )
    total = counts.sum(0)
    body, bone = hu >= BODY_HU, hu >= BONE_HU
    soft, metal = (hu >= SOFT_HU[0]) & (hu <= SOFT_HU[1]), hu >= METAL_HU
    common = hu[np.convolve(total * body, np.ones(11), mode="same").argmax()]
    tissue = _median(total, hu, np.abs(hu - common) <= 100)
    of_body = 100 / max(float(total[body].sum()), 1.0)
    return {
        "air_percent": 100 * float(total[hu < AIR_HU].sum() / total.sum()),
        "soft_tissue_percent": of_body * float(total[soft].sum()),
        "bone_percent": of_body * float(total[bone].sum()),
        "metal_percent": round(of_body * float(total[metal].sum()), 3),  # less is noise, or the tip of a tooth
        "tissue_hu": tissue,
        "body_cm2": float(np.median(counts[:, body].sum(1))) * pixel_cm2,
        "bone_cm2": float(np.median(counts[:, bone].sum(1))) * pixel_cm2,
        "contrast_hu": _median(total, hu, bone & ~metal) - tissue,
    }


def _median(counts: np.ndarray, values: np.ndarray, chosen: np.ndarray) -> float:
    """The median of the chosen values, each of which occurs `counts` times; NaN if none does."""
    below = np.cumsum(counts * chosen)
    return float(values[np.searchsorted(below, below[-1] / 2)]) if below[-1] else math.nan


def _noise_and_sharpness(hu: np.ndarray, pixel: tuple[float, float]) -> tuple[float, float]:
    """Noise in HU, the noisiest tenth of the slices left out, and slope of the bone edges in HU/mm, their median."""
    noises, edges = [], []
    for plane in hu[:: math.ceil(len(hu) / SAMPLED)]:
        image = np.clip(plane, LOWEST_HU, HIGHEST_HU).astype(np.float64)
        noises.append(_noise(image, pixel))
        edges.append(_steepness(image, pixel))
    noise = [value for value in noises if not math.isnan(value)]
    steep = [value for value in edges if not math.isnan(value)]
    return float(np.percentile(noise, 90)) if noise else math.nan, float(np.median(steep)) if steep else math.nan


def _noise(image: np.ndarray, pixel: tuple[float, float]) -> float:
    """Standard deviation in patches of soft tissue, as Christianson et al. 2015 (AJR 205:W93) measure it.

    They take the most frequent value of all patches; the lower quartile is as deaf to edges and needs no bins.
    """
    size = [max(round(PATCH_MM / mm), 3) for mm in pixel]
    mean = uniform_filter(image, size)
    deviation = np.sqrt(np.maximum(uniform_filter(image**2, size) - mean**2, 0))
    whole = uniform_filter((image >= BODY_HU).astype(np.float64), size) > 0.999  # no air in the patch
    found = deviation[whole & (mean >= SOFT_HU[0]) & (mean <= SOFT_HU[1])]
    return float(np.percentile(found, 25)) if len(found) >= MIN_PIXELS else math.nan


def _steepness(image: np.ndarray, pixel: tuple[float, float]) -> float:
    """Upper quartile of the slope on the outlines of bones, along rows or along columns, whichever is less.

    A smooth kernel flattens both, movement the one that it goes along.
    """
    bone = image >= BONE_HU
    outline = bone & ~binary_erosion(bone)
    if np.count_nonzero(outline) < MIN_PIXELS:
        return math.nan
    return min(float(np.percentile(np.abs(slope[outline]), 75)) for slope in np.gradient(image, *pixel))


def changes(tissue: np.ndarray) -> tuple[float, float]:
    """The largest and the smallest mean change between neighbouring slices, each over what is usual.

    A jump stands out from the changes around it; a slice that is there twice changes by nothing.
    """
    found = np.array([np.abs(b - a).mean(dtype=np.float64) for a, b in zip(tissue[:-1], tissue[1:], strict=True)])
    around = median_filter(found, AROUND, mode="nearest")
    usual = float(np.median(found))
    if usual == 0:
        return math.nan, 0.0  # most slices repeat their neighbour: nothing is usual
    return float((found / np.maximum(around, 1e-3 * usual)).max()), float(found.min() / usual)
