"""The geometry of the series that a model learned from: what `preprocess.input_limits` compares headers with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def geometry(spacing: Sequence[tuple[float, float, float]], coverage: Sequence[float]) -> dict[str, list[float]]:
    """The ranges of the manifest, mm, from spacing (slice, row, column) and length along the body of each series."""
    steps = np.array(spacing)
    return {
        "slice_spacing_mm": _span(steps[:, 0]),
        "pixel_spacing_mm": _span(steps[:, 1:]),
        "coverage_mm": _span(np.array(coverage)),
    }


def _span(values: np.ndarray) -> list[float]:
    return [round(float(values.min()) - 0.005, 2), round(float(values.max()) + 0.005, 2)]
