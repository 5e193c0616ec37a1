"""Fast phantoms, and what can be wrong with their voxels: arrays are (slices, rows, columns) HU, the lowest first."""

from dataclasses import replace
from functools import cache

import numpy as np
from scipy.ndimage import zoom

from inference.phantom.cervical_ct import METAL_HU, render, sample_spec

AIR_HU, LUNG_HU, TISSUE_HU, RIB_HU, SKULL_HU = -1000, -850, 40, 500, 1100
REGION_NOISE_HU = 15  # of the head and the chest, less than in any neck


@cache
def neck(seed: int) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return an easy neck and its spacing in mm, on half the grid: an eighth of the voxels. Nobody can change it.

    Without metal, movement and rings, so that each of them is something new.
    """
    spec = sample_spec(seed, "easy")
    slices, rows, columns = spec.scan.shape
    step, row, column = spec.scan.spacing
    scan = replace(
        spec.scan,
        shape=(slices // 2, rows // 2, columns // 2),
        spacing=(2 * step, 2 * row, 2 * column),
        motion=None,
        rings_hu=0.0,
    )
    hu = render(replace(spec, scan=scan, implant=None, neck=replace(spec.neck, filling=False))).volume
    hu.flags.writeable = False
    return hu, scan.spacing


def noise(hu: np.ndarray, deviation: float) -> np.ndarray:
    """Return white noise in the shape of a volume, always the same."""
    return np.random.default_rng(0).normal(0, deviation, hu.shape).astype(np.float32)


def with_screws(hu: np.ndarray) -> np.ndarray:
    """Return the volume with a screw in each half of the middle slices."""
    slices, rows, columns = hu.shape
    screwed = hu.copy()
    for column in (columns // 2 - 6, columns // 2 + 4):
        screwed[slices // 3 : slices // 2, rows // 2 - 2 : rows // 2 + 3, column : column + 2] = METAL_HU
    return screwed


def enlarged(hu: np.ndarray) -> np.ndarray:
    """Return the middle 1.7 times as large: bones as wide as those of the lumbar spine."""
    large = zoom(hu.astype(np.float32), (1, 1.7, 1.7), order=1)
    top, left = ((big - small) // 2 for big, small in zip(large.shape[1:], hu.shape[1:], strict=True))
    return large[:, top : top + hu.shape[1], left : left + hu.shape[2]]


def shaken(hu: np.ndarray) -> np.ndarray:
    """Return the mean of positions 4 pixels to either side: movement during the whole scan."""
    return np.mean([np.roll(hu, offset, axis=2) for offset in range(-4, 5)], axis=0, dtype=np.float32)


def jolted(hu: np.ndarray) -> np.ndarray:
    """Return the middle third with every second group of 3 slices 4 pixels aside: jerks between rotations."""
    jerky = hu.copy()
    for first in range(len(hu) // 3, 2 * len(hu) // 3, 6):
        jerky[first : first + 3] = np.roll(hu[first : first + 3], (4, 4), axis=(1, 2))
    return jerky


def mr(hu: np.ndarray) -> np.ndarray:
    """Return what MR would show: no signal in air and little in cortex, most in soft tissue, none negative."""
    tissue = 700 - 2 * np.abs(np.clip(hu, -1000, 1000) - 40.0)
    signal = np.select([hu < -300, hu > 250], [10, 120], tissue)
    return np.abs(signal + noise(hu, 20)).astype(np.float32)


def head(hu: np.ndarray) -> np.ndarray:
    """Return a head on the same grid: scalp, skull and brain as ellipsoids that close towards the top."""
    slices, rows, columns = hu.shape
    image = np.full(hu.shape, AIR_HU, np.float32)
    for index, plane in enumerate(image):
        closing = np.sqrt(1 - 0.8 * (index / slices) ** 2)
        radius = _radius((rows, columns), (0.5, 0.5), (0.45 * closing, 0.38 * closing))
        plane[radius < 1] = TISSUE_HU
        plane[(radius > 0.89) & (radius < 0.96)] = SKULL_HU
    return image + noise(hu, REGION_NOISE_HU)


def chest(hu: np.ndarray) -> np.ndarray:
    """Return a chest on the same grid: two lungs in soft tissue inside a ring of ribs."""
    image = np.full(hu.shape, AIR_HU, np.float32)
    grid = hu.shape[1:]
    image[:, _radius(grid, (0.5, 0.5), (0.45, 0.49)) < 1] = TISSUE_HU
    for side in (0.28, 0.72):
        image[:, _radius(grid, (0.5, side), (0.3, 0.17)) < 1] = LUNG_HU
    for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False):
        rib = (0.5 + 0.42 * np.sin(angle), 0.5 + 0.46 * np.cos(angle))
        image[:, _radius(grid, rib, (0.02, 0.02)) < 1] = RIB_HU
    return image + noise(hu, REGION_NOISE_HU)


def _radius(grid: tuple[int, ...], centre: tuple[float, float], half_axes: tuple[float, float]) -> np.ndarray:
    """Return how far each pixel lies from the centre, 1 on the ellipse; lengths are shares of the image."""
    y, x = np.meshgrid(*(np.arange(count) / count for count in grid), indexing="ij")
    return np.hypot((y - centre[0]) / half_axes[0], (x - centre[1]) / half_axes[1])
