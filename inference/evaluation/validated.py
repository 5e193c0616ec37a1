"""How many cases the gate lets pass without a remark: by their voxels, and by the features of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inference.preprocess import content


def shares(
    measured: Sequence[Mapping[str, float]],
    distances: Sequence[float],
    manifest: Mapping[str, Any],
    quantities: content.Quantities = content.QUANTITIES,
) -> dict[str, float]:
    """The two shares, by the limits of a manifest; `measured` and `distances` of the same cases."""
    limit = manifest["novelty"]["threshold"]
    quiet = [not content.complaints(case, manifest["content"], quantities) for case in measured]
    return {"content": float(np.mean(quiet)), "features": float(np.mean(np.array(distances) <= limit))}


def line(found: Mapping[str, float]) -> str:
    """The shares in words."""
    return (
        f"Within the validated range: {found['content']:.0%} of the cases by content, {found['features']:.0%} by "
        "features."
    )
