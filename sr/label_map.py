"""The segments as one label map (PS3.3 A.51, LABELMAP): small for many structures, known to few archives yet."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from inference.findings import Analysis
from inference.volume import Volume
from sr import frames, segmentation
from sr.run import Kind, Run


def write(volume: Volume, analysis: Analysis, run: Run) -> Dataset | None:
    """Return a LABELMAP Segmentation, or None when there is nothing to segment.

    Segment numbers, names and tracking identifiers are those of the binary one.
    """
    segments = segmentation.masks(analysis)
    if not segments or frames.obstacle(volume):
        return None
    pixels = labels([mask.array for mask in segments])
    return segmentation.encode(volume, analysis, run, kind=Kind.LABELMAP, pixels=pixels)


def labels(arrays: list[np.ndarray]) -> np.ndarray:
    """Return (slices, rows, columns) segment numbers, 0 outside of all.

    A voxel has one label: where segments overlap it belongs to the first, so a finding lies over its vertebra.
    """
    kind = np.uint8 if len(arrays) < 256 else np.uint16
    result = np.zeros(arrays[0].shape, kind)
    for number in range(len(arrays), 0, -1):
        result[arrays[number - 1]] = number
    return result
