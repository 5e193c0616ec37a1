"""From ideal HU to a CT image: streaks from metal, motion, rings, blur, correlated and shoulder noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from inference.phantom.anatomy import Points
from inference.phantom.specification import LEVELS, Motion, PhantomSpec, Scan

NOISE_GRAIN_MM = 0.45  # bone kernels give fine grain
STREAK_MM = 9.0
METAL_HU = 2500
RING_MM = 5.0  # between rings


def artefacts(hu: np.ndarray, spec: PhantomSpec, points: Points, rng: np.random.Generator) -> np.ndarray:
    """Streaks from fillings and implants, double contours from motion, and rings."""
    if spec.neck.filling:
        third = spec.vertebrae[LEVELS.index("C3")].centre
        at = (third[0] + 24, third[1] - spec.neck.jaw_gap - 22, third[2] + 13)
        hu = streaks(hu, points, at, rng)
    if spec.implant is not None:
        hu = _implant_streaks(hu, spec.scan, points, rng)
    if spec.scan.motion is not None:
        hu = _doubled(hu, spec.scan.motion)
    if spec.scan.rings_hu:
        x, y, _ = points
        centre = (float(x.mean()), float(y.mean()))
        radius = np.hypot(x[0] - centre[0], y[0] - centre[1])
        hu = hu + np.float32(spec.scan.rings_hu) * np.cos(2 * np.pi * radius / RING_MM) * np.exp(-radius / 40)
    return hu


def acquire(hu: np.ndarray, scan: Scan, shoulder: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur in the plane and add noise; `shoulder` (slices,) is 0..1, how much shoulder each slice crosses."""
    for axis, spacing in ((1, scan.spacing[1]), (2, scan.spacing[2])):
        hu = gaussian_filter1d(hu, scan.blur_mm / spacing, axis, truncate=2.5)
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    for axis, spacing in ((1, scan.spacing[1]), (2, scan.spacing[2])):
        grain = gaussian_filter1d(grain, NOISE_GRAIN_MM / spacing, axis, truncate=2.5)
    level = scan.noise_hu * (1 + scan.shoulder_noise * shoulder)
    hu += grain * (level / grain.std()).astype(np.float32)[:, None, None]
    for index in np.nonzero(shoulder > 0.05)[0]:  # photon starvation: horizontal streaks
        rows = rng.standard_normal(hu.shape[1:], dtype=np.float32)
        rows = gaussian_filter1d(rows, STREAK_MM / scan.spacing[2], 1, truncate=2.5)
        hu[index] += rows * np.float32(0.8 * level[index] * shoulder[index] / rows.std())
    return hu


def streaks(hu: np.ndarray, points: Points, at: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Add streaks that radiate from metal at the world point `at`, in the slices near it."""
    x, y, z = points
    for index in np.nonzero(np.abs(z.ravel() - at[2]) < 5)[0]:
        hu[index] += _radiating(x[0] - at[0], y[0] - at[1], rng)
    return hu


def _implant_streaks(hu: np.ndarray, scan: Scan, points: Points, rng: np.random.Generator) -> np.ndarray:
    """Streaks around the middle of the metal in every slice that holds some, and shadows along its widest line."""
    x, y, _ = points
    for index in np.nonzero((hu > METAL_HU).any((1, 2)))[0]:
        rows, columns = np.nonzero(hu[index] > METAL_HU)
        row, column = rows.mean(), columns.mean()
        dx, dy = x[0] - x.ravel()[0] - column * scan.spacing[2], y[0] - y.ravel()[0] - row * scan.spacing[1]
        shadow = -250 * np.exp(-((dy / 3.0) ** 2) - np.abs(dx) / 35)
        kept = hu[index] > METAL_HU
        hu[index] += np.where(kept, 0, 0.8 * _radiating(dx, dy, rng) + shadow.astype(np.float32))
    return hu


def _radiating(dx: np.ndarray, dy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = np.arctan2(dy, dx)
    waves = sum(np.cos(k * angle + rng.uniform(0, 6.3)) for k in rng.integers(4, 26, size=6))
    return np.asarray(waves * 70 * np.exp(-np.hypot(dx, dy) / 45), np.float32)


def _doubled(hu: np.ndarray, motion: Motion) -> np.ndarray:
    """In the slices of the motion, the mean of two positions."""
    moved = slice(motion.slices[0], motion.slices[1] + 1)
    hu[moved] = (hu[moved] + np.roll(hu[moved], motion.offset, (1, 2))) / 2
    return hu
