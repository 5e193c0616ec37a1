"""How well vertebrae are outlined and named: overlap, distance of surfaces, identification rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from inference import vertebrae
from inference.datasets.isotropic import Outlined
from inference.evaluation.bootstrap import interval
from inference.nets.unet import VertebraUNet
from inference.training.fracture_slices import area_under_curve
from inference.vertebrae import NECK_CT, Anatomy

IDENTIFIED_MM = 20.0  # between the centres, as in VerSe (Sekuboyina et al. 2021)
#: Of the volume of the smallest whole vertebra of its kind: less is not in view. Slivers at the end of a scan are not.
IN_VIEW = 0.5


@dataclass(frozen=True, kw_only=True)
class ScoredVertebra:
    """One vertebra, or disc, that is in view, and what was found under its name."""

    level: str
    #: Whether anything has its name.
    named: bool
    #: Whether what has its name is at its place, and nearer to it than to any other.
    identified: bool
    #: 0 where it is not named.
    dice: float
    #: mm; NaN where it is not named: mean distance of the surfaces, and 95th percentile.
    assd: float
    hd95: float
    #: The network's answer and the truth about a fractured region inside it; NaN and None where there is none.
    fracture_score: float
    fractured: bool | None


class Truth(Outlined, Protocol):
    """A labelled volume, and which of its levels are fractured, if that is known."""

    @property
    def levels(self) -> Mapping[str, bool] | None: ...


def score(net: VertebraUNet, case: Truth, mm: float, anatomy: Anatomy = NECK_CT) -> list[ScoredVertebra]:
    """Locate the vertebrae of a labelled volume and compare. Raises UnusableData for one without a map."""
    found = vertebrae.locate(net, np.asarray(case.hu, np.float32), case.spacing, mm, anatomy).named
    truth, step, levels = np.asarray(case.vertebrae), np.array(case.spacing), anatomy.view.levels
    boxes = ndimage.find_objects(truth, len(levels))
    count = np.bincount(truth.ravel(), minlength=len(levels) + 1) * step.prod() / 1000
    centres = {
        level: (ndimage.center_of_mass(truth[box] == n + 1) + np.array([side.start for side in box])) * step
        for n, (level, box) in enumerate(zip(levels, boxes, strict=True))
        if count[n + 1] >= IN_VIEW * anatomy.volumes(level)[0]
    }
    scored = []
    for level in centres:
        if level in anatomy.reported:
            mask = np.asarray(truth == levels.index(level) + 1)
            one = found.get(level)
            scored.append(
                ScoredVertebra(
                    level=level,
                    named=one is not None,
                    fracture_score=float("nan") if one is None else one.fractured,
                    fractured=None if case.levels is None else case.levels[level],
                    **_overlap(level, one, mask, centres, step),
                )
            )
    return scored


def measure(scored: Sequence[Sequence[ScoredVertebra]], anatomy: Anatomy = NECK_CT) -> dict[str, Any]:
    """Means over the vertebrae in view, with intervals over cases; a vertebra without a name counts as Dice 0."""
    everything = [one for case in scored for one in case]
    numbers: dict[str, Any] = {"cases": len(scored), "vertebrae": len(everything)}
    for name, value in (("dice", "dice"), ("identification_rate", "identified"), ("named", "named")):
        numbers |= _mean(name, scored, value)
    wrong = [one.named and not one.identified for one in everything]
    numbers["wrongly_named"] = int(sum(wrong))
    # None where nothing is named: there is nothing to measure.
    for name in ("assd", "hd95"):
        distances = [getattr(one, name) for one in everything if one.named]
        numbers[f"{name}_mm"] = float(np.mean(distances)) if distances else None
    judged = [one for one in everything if one.named and one.fractured is not None]
    truth = np.array([bool(one.fractured) for one in judged])
    both = 0 < truth.sum() < len(truth)
    scores = np.array([one.fracture_score for one in judged])
    numbers["fracture_region_auc"] = area_under_curve(scores, truth) if both else None
    numbers["levels"] = {
        level: _mean("dice", [[one for one in case if one.level == level] for case in scored], "dice")
        | {
            "vertebrae": sum(one.level == level for one in everything),
            "identification_rate": float(np.mean([one.identified for one in everything if one.level == level])),
        }
        for level in anatomy.reported
        if any(one.level == level for one in everything)
    }
    return numbers


def unusual(scored: Sequence[Sequence[ScoredVertebra]], is_unusual: Sequence[bool]) -> dict[str, int]:
    """How names go wrong in spines with six or four lumbar vertebrae."""
    some = [case for case, one in zip(scored, is_unusual, strict=True) if one]
    everything = [one for case in some for one in case]
    return {
        "cases": len(some),
        "vertebrae": len(everything),
        "named": sum(one.named for one in everything),
        "wrongly_named": sum(one.named and not one.identified for one in everything),
    }


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as a Markdown table."""
    low, high = metrics["identification_rate_ci95"]
    assd, hd95, auc = (
        "not measured" if metrics[key] is None else f"{metrics[key]:.2f}{unit}"
        for key, unit in (("assd_mm", " mm"), ("hd95_mm", " mm"), ("fracture_region_auc", ""))
    )
    discs = any("/" in level for level in metrics["levels"])
    what = "vertebrae and discs" if discs else "vertebrae"
    # Nobody marks fractured regions in MR, where discs are.
    regions = "" if discs else f" Fractured region inside a vertebra against its label: ROC AUC {auc}."
    ends = [level for level in metrics["levels"] if "/" not in level]
    odd = metrics.get("unusual", {"cases": 0})
    return [
        f"{metrics['cases']} cases, {metrics['vertebrae']} {what} in view. Identified (under their name, "
        f"within {IDENTIFIED_MM:.0f} mm): {metrics['identification_rate']:.3f} ({low:.3f} to {high:.3f}); wrongly "
        f"named: {metrics['wrongly_named']}; the rest was left without a name. Surfaces: mean distance {assd}, 95th "
        f"percentile {hd95}.{regions} Intervals: 95 %, bootstrap over cases.",
        *([_unusual_line(odd)] if odd["cases"] else []),
        "",
        f"| {'level' if discs else 'vertebra'} | in view | Dice | identified |",
        "|---|---|---|---|",
        *(_row(level, row) for level, row in metrics["levels"].items()),
        _row(f"{ends[0]} to {ends[-1]}", metrics),
    ]


def _unusual_line(odd: Mapping[str, int]) -> str:
    return (
        f"Of them {odd['cases']} with six or four lumbar vertebrae: of {odd['vertebrae']} {odd['named']} are named, "
        f"{odd['wrongly_named']} wrongly."
    )


def _row(name: str, row: Mapping[str, Any]) -> str:
    low, high = row["dice_ci95"]
    shown = f"{row['dice']:.3f} ({low:.3f} to {high:.3f})"
    return f"| {name} | {row['vertebrae']} | {shown} | {row['identification_rate']:.3f} |"


def _mean(name: str, scored: Sequence[Sequence[ScoredVertebra]], value: str) -> dict[str, Any]:
    values = [np.array([float(getattr(one, value)) for one in case]) for case in scored if case]
    low, high = interval(lambda chosen, _: float(chosen.mean()), values, values)
    return {name: float(np.concatenate(values).mean()), f"{name}_ci95": [low, high]}


def _overlap(
    level: str,
    found: vertebrae.Vertebra | None,
    truth: np.ndarray,
    centres: Mapping[str, np.ndarray],
    step: np.ndarray,
) -> dict[str, Any]:
    if found is None:
        return {"identified": False, "dice": 0.0, "assd": float("nan"), "hd95": float("nan")}
    answer = np.zeros(truth.shape, bool)
    answer[found.box] = found.inside
    centre = np.array(ndimage.center_of_mass(answer)) * step
    nearest = min(centres, key=lambda other: float(np.linalg.norm(centres[other] - centre)))
    distances = _surface_distances(answer, truth, step)
    return {
        "identified": nearest == level and float(np.linalg.norm(centres[level] - centre)) <= IDENTIFIED_MM,
        "dice": 2 * float((answer & truth).sum()) / float(answer.sum() + truth.sum()),
        "assd": float(distances.mean()),
        "hd95": float(np.percentile(distances, 95)),
    }


def _surface_distances(a: np.ndarray, b: np.ndarray, step: np.ndarray) -> np.ndarray:
    """mm from every surface voxel of either to the other surface."""
    (box,) = ndimage.find_objects((a | b).astype(np.uint8))
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (a, b)]
    far = [ndimage.distance_transform_edt(~surface, sampling=step) for surface in surfaces]
    return np.concatenate([far[1][surfaces[0]], far[0][surfaces[1]]])
