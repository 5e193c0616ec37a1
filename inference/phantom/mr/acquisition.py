"""From labels to the image of one series: coil, chemical shift, k-space with its noise, ghosts, motion, fold-over."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from inference.phantom.mr.signal import Signals
from inference.phantom.mr.specification import Acquisition, Scan, Stack

FAT_SHIFT_PPM, HZ_PER_PPM_TESLA = 3.5, 42.58
EDGE_LOSS = 0.65  # of the signal at the edge of what is acquired of k-space
CSF_LEVEL = 0.5  # signal to which the noise refers
TILE = (16, 96, 96)


def acquire(
    labels: np.ndarray, signals: Signals, acquisition: Acquisition, scan: Scan, rng: np.random.Generator
) -> np.ndarray:
    """Magnitude image (slices, rows, columns) float32 of labels (slices, parts of a slice, rows, columns).

    The labels may reach beyond the field of view in the phase direction; that folds in.
    """
    stack = scan.sagittal if acquisition.plane == "sagittal" else scan.axial
    phase = 1 if acquisition.phase == "COL" else 2
    water, fat, pulse = (_mean(values, labels) for values in (signals.water, signals.fat, signals.pulse))
    grain = _mean(signals.grain, labels) * _texture(rng, water.shape)
    water *= 1 + grain
    fat *= 1 + grain
    if acquisition.ghost:
        moving = pulse * water
        for step in (1, -1, 2, -2):
            distance = round(step * acquisition.ghost_spacing * stack.shape[phase])
            strength = np.float32(acquisition.ghost / abs(step))
            water += strength * np.roll(moving, distance, phase) * (-1 if step % 2 else 1)
    pixels = FAT_SHIFT_PPM * HZ_PER_PPM_TESLA * scan.field / acquisition.bandwidth
    image = water + _shifted(fat, pixels, 3 - phase)
    image *= sensitivity(image.shape, stack, scan, acquisition)
    image = _folded(image, stack.shape[phase], phase)
    return np.asarray(_through_k_space(image, acquisition, stack, rng))


def sensitivity(shape: tuple[int, ...], stack: Stack, scan: Scan, acquisition: Acquisition) -> np.ndarray:
    """Of a coil behind the patient: falls off to the front, with a ripple along the body; mean about 1."""
    half, ripple = scan.coil
    rows, columns = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape[1:], stack.spacing[1:], strict=True))
    sagittal = acquisition.plane == "sagittal"
    depth = columns[None, :] if sagittal else rows[:, None]
    along = rows[:, None] if sagittal else columns[None, :]
    profile = 1.3 / (1 + np.exp(-(depth + 0.8 * half) / half)) + 0.25
    return np.asarray(profile * (1 + ripple * np.cos(along / 55 + ripple * 20)), np.float32)[None]


def _mean(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of a property over the parts of each slice."""
    total = values[labels[:, 0]]
    for part in range(1, labels.shape[1]):
        total += values[labels[:, part]]
    total *= np.float32(1 / labels.shape[1])
    return np.asarray(total)


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth noise with standard deviation 1."""
    white = rng.standard_normal(TILE, dtype=np.float32)
    tile = gaussian_filter(white, (0.5, 1.1, 1.1), mode="wrap")
    tile = tile / tile.std() + 0.8 * (coarse := gaussian_filter(white[::-1], (0.7, 3, 3), mode="wrap")) / coarse.std()
    tile = (tile / tile.std()).astype(np.float32)
    indices = [np.arange(count) % size for count, size in zip(shape, TILE, strict=True)]
    return np.asarray(tile[np.ix_(*indices)])


def _shifted(image: np.ndarray, pixels: float, axis: int) -> np.ndarray:
    """Moved by a fraction of a pixel, linear in between."""
    whole = int(np.floor(pixels))
    share = np.float32(pixels - whole)
    return np.asarray((1 - share) * np.roll(image, whole, axis) + share * np.roll(image, whole + 1, axis))


def _folded(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    """What lies beyond the field of view in the phase direction appears at its other end."""
    beyond = (image.shape[axis] - size) // 2
    if not beyond:
        return image
    first, inside, last = np.split(image, [beyond, beyond + size], axis)
    inside = inside.copy()
    head, tail = [slice(None)] * 3, [slice(None)] * 3
    head[axis], tail[axis] = slice(0, beyond), slice(size - beyond, size)
    fading = np.linspace(0.1, 0.7, beyond, dtype=np.float32)  # the coil sees less of what is far away
    fading = fading[None, :, None] if axis == 1 else fading[None, None, :]
    inside[tuple(tail)] += fading * first
    inside[tuple(head)] += np.flip(fading, axis) * last
    return inside


def _through_k_space(image: np.ndarray, acquisition: Acquisition, stack: Stack, rng: np.random.Generator) -> np.ndarray:
    """Keep the acquired part of k-space, moved as the patient was when it was measured, with noise."""
    k = fft.fft2(image.astype(np.complex64), axes=(1, 2), workers=1)
    level = np.float32(acquisition.noise * CSF_LEVEL * np.sqrt(image.shape[1] * image.shape[2]))
    noise = rng.standard_normal((2, *image.shape), dtype=np.float32)
    frequencies = [fft.fftfreq(n).astype(np.float32) for n in image.shape[1:]]
    shares = acquisition.acquired if acquisition.phase == "COL" else acquisition.acquired[::-1]
    kept = [np.abs(f) <= share / 2 for f, share in zip(frequencies, shares, strict=True)]
    moved = [s / mm for s, mm in zip(acquisition.shift, stack.spacing[1:], strict=True)]
    k *= _ramp(frequencies, moved)
    k += level * (noise[0] + 1j * noise[1])
    if acquisition.motion is not None:
        axis = 0 if acquisition.phase == "COL" else 1
        share = frequencies[axis] / np.float32(acquisition.acquired[0]) + 0.5
        during = (share >= acquisition.motion.during[0]) & (share < acquisition.motion.during[1])
        jump = [s / mm for s, mm in zip(acquisition.motion.shift, stack.spacing[1:], strict=True)]
        lines = during[:, None] if axis == 0 else during[None, :]
        k *= np.where(lines, _ramp(frequencies, jump), 1)
    k *= _filter(frequencies[0], kept[0])[:, None] * _filter(frequencies[1], kept[1])[None, :]
    return np.asarray(np.abs(fft.ifft2(k, axes=(1, 2), workers=1)), np.float32)


def _filter(frequencies: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """What is kept of k-space along one axis: it fades to the edge, by filters and the decay during the echo train."""
    share = np.abs(frequencies) / np.abs(frequencies[kept]).max()
    return np.where(kept, 1 - EDGE_LOSS * share**2, 0).astype(np.float32)


def _ramp(frequencies: list[np.ndarray], pixels: list[float]) -> np.ndarray:
    """(rows, columns) complex64: what moves an image by fractions of pixels, (down, across)."""
    down, across = (
        np.exp(-2j * np.pi * f * np.float32(by)).astype(np.complex64) for f, by in zip(frequencies, pixels, strict=True)
    )
    return np.asarray(down[:, None] * across[None, :])
