"""What T1 and fat-suppressed T2 say about boxes that a detector drew on sagittal T2.

Paper 000 tells oedema, haemorrhage and mixed lesions apart by T1 and T2 (its Table 2), and leaves as future work to
compare T2 with fat-suppressed T2 at the same place, to take back false findings. Here both are logistic regressions
on how a box differs from the cord next to it in each sequence. That is for lesions of the cord: of a disc, such
differences say little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

COMPANIONS = ("T1", "STIR")
#: Of each sequence, by "T1 rim" and the like: the middle of the box, what lies around it, and how uneven both are.
#: And by how much the first two differ from the cord, up or down: a lesion is a little brighter, fluid far more.
MEASURES = ("centre", "rim", "spread", "|centre|", "|rim|")

STEP_MM = 0.5  # between samples
#: Cord to compare with is looked for this far above and below the box, over this length, and this far to each side:
#: boxes are not exact, lesions fade out, and the cord bends.
GAP_MM, LENGTH_MM, ASIDE_MM = 3.0, 8.0, 3.0
SMALLEST_MM = 1.0  # half a side of a box; smaller ones have no samples to speak of
NARROWEST_MM = 3.0  # of the piece of cord to compare with; it is half as wide as the box where that is wider
#: Squared radii of ellipses, 1 touches the edges of the box: its corners are not the lesion's.
CENTRE, RIM, INSIDE = 0.25, (0.36, 0.9), 0.6
RIDGE = 0.01
#: Smaller differences are none; how uneven a mixed lesion is at least.
ALIKE, UNEVEN = 0.1, 0.25


class Grid(NamedTuple):
    """The voxels of a series and where they are."""

    #: (slices, rows, columns), of any scale but with 0 for no signal.
    array: np.ndarray
    #: (4, 4): (slice, row, column) of a voxel's centre to LPS mm.
    affine: np.ndarray


def set_of(names: Iterable[str]) -> str:
    """How a manifest names a set of companions, such as "STIR+T1"."""
    return "+".join(sorted(set(names) & set(COMPANIONS)))


def contrasts(series: Mapping[str, Grid], boxes: np.ndarray) -> dict[str, np.ndarray]:
    """Differences (n,) from the cord next to boxes (n, 5): slice, left, top, right, bottom in pixels of "T2".

    Relative, -2 to 2, so that the scale of a series does not matter. NaN where a companion is absent or does not
    cover the place, and where there is nothing to compare with. The sagittal images may lie in any way.
    """
    found = {f"{name} {measure}": np.full(len(boxes), np.nan) for name in ("T2", *COMPANIONS) for measure in MEASURES}
    for number, box in enumerate(np.asarray(boxes, float)):
        for key, value in _contrasts(series, box).items():
            found[key][number] = value
    return found


def as_described(label: str, measured: Mapping[str, float]) -> bool | None:
    """Whether T2 and T1 show of a lesion what paper 000's table 2 says of its class; None where either is unknown.

    Oedema: T2 high, T1 low or alike. Haemorrhage: T2 high at the rim, and T1 high there or low in the centre. Mixed:
    T2 uneven.
    """
    if not all(np.isfinite(measured[f"{name} {measure}"]) for name in ("T1", "T2") for measure in MEASURES):
        return None
    high = {name: measured[name] > ALIKE for name in ("T2 centre", "T2 rim", "T1 centre", "T1 rim")}
    if label == "oedema":
        return high["T2 centre"] and not high["T1 centre"]
    if label == "haemorrhage":
        return high["T2 rim"] and (high["T1 rim"] or measured["T1 centre"] < -ALIKE)
    return measured["T2 spread"] > UNEVEN


def fit(features: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Plain numbers for a manifest: logistic regressions of labels (n,) str, one for each set of sequences.

    A feature named after no companion, as those of T2 and what the detector said, is in all of them. Sets for which
    a class has no box are left out. Raises ValueError where none is left.
    """
    models = []
    for count in range(len(COMPANIONS) + 1):
        for present in combinations(COMPANIONS, count):
            names = [name for name in features if name.split()[0] not in set(COMPANIONS) - set(present)]
            values = np.stack([features[name] for name in names], 1)
            known = np.isfinite(values).all(1)
            if set(classes) <= set(labels[known].tolist()):
                bias, weights = _regression(values[known], labels[known, None] == np.array(classes))
                models.append({"features": names, "bias": bias.tolist(), "weights": weights.tolist()})
    if not models:
        raise ValueError(f"there is no box of each of {', '.join(classes)} with signals to compare")
    return {"classes": list(classes), "models": models}


def probabilities(fitted: Mapping[str, Any], features: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, classes), by the model with the most of the features that are known of a box; NaN where none will do."""
    found = np.full((len(next(iter(features.values()))), len(fitted["classes"])), np.nan)
    for model in sorted(fitted["models"], key=lambda one: len(one["features"])):
        values = np.stack([features[name] for name in model["features"]], 1)
        known = np.isfinite(values).all(1)
        found[known] = softmax(values[known] @ np.array(model["weights"]) + model["bias"], axis=1)
    return found


def _contrasts(series: Mapping[str, Grid], box: np.ndarray) -> dict[str, float]:
    points, down, across = _points(series["T2"].affine, box)
    half_height, half_width = -down[0] - GAP_MM - LENGTH_MM, -across[0] - ASIDE_MM
    to_mm = series["T2"].affine
    sampled = {name: _sample(grid, np.linalg.inv(grid.affine) @ to_mm, points) for name, grid in series.items()}
    cord = _most_even(sampled["T2"], abs(down) >= half_height + GAP_MM, max(half_width, NARROWEST_MM))
    if cord is None:
        return {}
    radius = (down[:, None] / half_height) ** 2 + (across[None] / half_width) ** 2
    around = (radius >= RIM[0]) & (radius <= RIM[1])
    found: dict[str, float] = {}
    for name, values in sampled.items():
        reference, inside = values[cord], values[radius <= INSIDE]
        level = np.median(reference)
        if not level > 0:  # also where a companion does not cover it
            continue
        uneven = level + np.sqrt(max(inside.var() - reference.var(), 0))
        signals = np.array([np.median(values[radius <= CENTRE]), np.median(values[around]), uneven])
        centre, rim, spread = 2 * (signals - level) / (signals + level)
        measured = (centre, rim, spread, abs(centre), abs(rim))
        found |= {f"{name} {measure}": float(value) for measure, value in zip(MEASURES, measured, strict=True)}
    return found


def _points(affine: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels (3, k, m) of T2 in and around a box, and how far from its middle they are along (k,) and across (m,)."""
    slice_, left, top, right, bottom = box
    # Pixels are counted from their corner, voxels from their centre.
    middle = np.array([top + bottom, left + right]) / 2 - 0.5
    mm = np.linalg.norm(affine[:3, 1:3], axis=0)
    half = np.maximum(np.array([bottom - top, right - left]) * mm / 2, SMALLEST_MM)
    along = int(abs(affine[2, 2]) > abs(affine[2, 1]))
    down = _steps(half[along] + GAP_MM + LENGTH_MM)
    across = _steps(half[1 - along] + ASIDE_MM)
    shape = (len(down), len(across))
    offset = [np.broadcast_to(one, shape) for one in (down[:, None], across[None])]
    inplane = [middle[n] + offset[n if along == 0 else 1 - n] / mm[n] for n in range(2)]
    return np.stack([np.full(shape, slice_), *inplane]), down, across


def _steps(reach: float) -> np.ndarray:
    """From -reach to reach, about STEP_MM apart."""
    return np.linspace(-reach, reach, 2 * max(round(reach / STEP_MM), 1) + 1)


def _sample(grid: Grid, voxel_of: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values at voxels of another grid, NaN outside the outermost voxels."""
    at = np.einsum("ij,jkm->ikm", voxel_of[:3, :3], points) + voxel_of[:3, 3, None, None]
    last = np.array(grid.array.shape)[:, None, None] - 0.5
    values = map_coordinates(grid.array, at, output=float, order=1, mode="nearest")
    return np.where(((at >= -0.5) & (at <= last)).all(0), values, np.nan)


def _most_even(values: np.ndarray, beyond: np.ndarray, width_mm: float) -> tuple[slice, slice] | None:
    """Rows and columns of the most even window above or below a box: there cord fills it, and nothing else."""
    width = min(round(width_mm / STEP_MM) + 1, values.shape[1])
    best, found = np.inf, None
    ends = np.flatnonzero(np.diff(beyond))
    for rows in (slice(0, int(ends[0]) + 1), slice(int(ends[1]) + 1, len(values))):
        deviation = sliding_window_view(values[rows], width, axis=1).std((0, 2))
        first = int(np.argmin(np.where(np.isnan(deviation), np.inf, deviation)))
        if deviation[first] < best:
            best, found = deviation[first], (rows, slice(first, first + width))
    return found


def _regression(x: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bias (classes,) and weights (k, classes) of x (n, k) for truth (n, classes), lightly regularised."""
    mean, scale = x.mean(0), x.std(0) + 1e-9
    z = (x - mean) / scale
    shape = (1 + z.shape[1], truth.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        bias, weights = flat[: shape[1]], flat[shape[1] :].reshape(-1, shape[1])
        logits = z @ weights + bias
        wrong = (softmax(logits, axis=1) - truth) / len(z)
        # Separable boxes would drive the weights, and so every answer, to certainty.
        value = -log_softmax(logits, axis=1)[truth].mean() + RIDGE * np.square(weights).sum()
        return value, np.concatenate([wrong.sum(0), (z.T @ wrong + 2 * RIDGE * weights).ravel()])

    flat = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B").x
    weights = flat[shape[1] :].reshape(-1, shape[1]) / scale[:, None]
    return flat[: shape[1]] - mean @ weights, weights
