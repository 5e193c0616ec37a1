"""From ideal HU to a CT image: blur, correlated noise, shoulder noise, dental streaks."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from inference.phantom.anatomy import Points
from inference.phantom.specification import Scan

NOISE_GRAIN_MM = 0.45  # bone kernels give fine grain
STREAK_MM = 9.0


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


def fillings(hu: np.ndarray, points: Points, at: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Add streaks that radiate from a metal filling at the world point `at`, in the slices near it."""
    x, y, z = points
    for index in np.nonzero(np.abs(z.ravel() - at[2]) < 5)[0]:
        dx, dy = x[0] - at[0], y[0] - at[1]
        angle = np.arctan2(dy, dx)
        waves = sum(np.cos(k * angle + rng.uniform(0, 6.3)) for k in rng.integers(4, 26, size=6))
        hu[index] += (waves * 70 * np.exp(-np.hypot(dx, dy) / 45)).astype(np.float32)
    return hu
