"""What the affine matrix of a voxel grid says."""

from __future__ import annotations

import numpy as np


def spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """Between voxel centres in mm, (slice, row, column), of a (4, 4) matrix that takes these to mm.

    Along the axes: for a sheared grid more than the distance of its planes.
    """
    step, row, column = np.linalg.norm(affine[:3, :3], axis=0)
    return float(step), float(row), float(column)
