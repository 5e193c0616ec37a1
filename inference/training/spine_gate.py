"""Fits what a detector on MR may see: the limits on voxels and features of sagittal T2 series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from inference import geometry, novelty
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import EXCLUSIONS
from inference.datasets.mr_store import Study
from inference.datasets.spine_images import read_series, with_companions
from inference.novelty import Novelty
from inference.phantom.mr.examination import TIMES
from inference.phantom.mr.signal import FIELDS
from inference.preprocess import content, mr_content
from inference.spine_mr import Look
from inference.training import input_range

#: Fewer have no covariance.
FEWEST = 2


def included(studies: Sequence[Study]) -> list[Study]:
    """Those of patients whom papers 000 and 004 would have taken: the gate calls nothing else validated."""
    return [study for study in studies if not study.exclusions]


def require(part: str, studies: Sequence[Study]) -> None:
    """Raises UnusableData for a part with too few series for the gate: found out after hours otherwise."""
    count = sum(len(read_series(study)) for study in included(studies))
    if count < FEWEST:
        raise UnusableData(
            f"the part {part} has {count} sagittal T2 series of patients without {', '.join(EXCLUSIONS)}, at least "
            f"{FEWEST} are needed: add studies"
        )


def fit(unseen: Sequence[Look], validation: Sequence[Look]) -> tuple[Novelty, dict[str, Any]]:
    """The gate and its part of the manifest, from series of which the detector learned nothing.

    Its threshold comes from series that were not used to fit it.
    """
    gate = novelty.fit(torch.stack([one.features for one in unseen]))
    limits = {
        "content": content.ranges([one.content for one in (*unseen, *validation)], mr_content.QUANTITIES),
        "novelty": {
            "features": len(gate.centre),
            "fitted_on": f"{len(unseen)} series",
            "threshold": novelty.threshold([gate.distance(one.features) for one in validation]),
            "percentile": novelty.PERCENTILE,
            "far": novelty.FAR,
        },
    }
    return gate, limits


def companions(studies: Sequence[Study]) -> dict[str, dict[str, list[float]]]:
    """By contrast, the ranges of the voxels of the series that T2 is compared with."""
    found: dict[str, list[dict[str, float]]] = {}
    for study in included(studies):
        for _, grids in with_companions(study):
            for name in set(grids) - {"T2"}:
                measured = mr_content.measure(grids[name].array, geometry.spacing(grids[name].affine))
                found.setdefault(name, []).append(measured)
    return {name: content.ranges(some, mr_content.QUANTITIES) for name, some in sorted(found.items())}


def header_limits(studies: Sequence[Study], *, synthetic: bool) -> dict[str, Any]:
    """The part of `input` that `preprocess.input_limits` compares headers with."""
    series = [one for study in studies for one in read_series(study)]
    limits: dict[str, Any] = {
        "min_slices": 5,  # a localizer has fewer
        **input_range.geometry([one.spacing for one in series], [one.spacing[1] * one.shape[1] for one in series]),
        "max_tilt_degrees": 20,
    }
    if synthetic:  # the headers of phantoms say so; a data set without its headers cannot tell
        thickest, (_, echo, _) = limits["slice_spacing_mm"], TIMES["T2"]
        limits |= {
            "slice_thickness_mm": [round(0.9 * thickest[0] - 0.005, 2), thickest[1]],
            "field_tesla": list(FIELDS),
            "echo_time_ms": list(echo),
        }
    return limits
