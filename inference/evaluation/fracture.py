"""How good the cervical fracture model is on phantoms it never saw: per slice, per case, and where it looks.

Tables 2 and 3 of paper 003 in kind, with ROC areas instead of the paper's balanced accuracy under that name,
and the paper's "any slice" rule as the baseline. All intervals are patient-clustered bootstraps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch.nn.functional import interpolate

from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case
from inference.evaluation import validated
from inference.evaluation.binary import (
    at,
    calibration,
    determinate,
    point_line,
    ranking,
    with_interval,
    zone_line,
)
from inference.explain import grad_cam
from inference.nets.cervical_fracture import FractureNets, features, images
from inference.novelty import Novelty, case_features
from inference.preprocess import content

POINTING_TOLERANCE = 15  # pixels of the crop, as in the pointing game of Zhang et al. 2016
POINTING_SLICES = 4  # per case: the slices with the largest fracture area


@dataclass(frozen=True, kw_only=True)
class ScoredCase:
    """Logits of one case, mean of both views, and its labels."""

    case: float
    #: (slices,) from the sequence network.
    slices: np.ndarray
    #: (slices,) from the slice network alone.
    alone: np.ndarray
    #: (slices, features), as acquired.
    features: torch.Tensor
    #: What `content.measure` says of it.
    content: Mapping[str, float]
    fractured: bool
    labels: np.ndarray
    clear: np.ndarray


def score(nets: FractureNets, case: Case, size: int) -> ScoredCase:
    """Run both networks over one case, cropped and resized to `size` pixels.

    Raises UnusableData where the data set does not say whether there is a fracture.
    """
    if case.fractured is None:
        raise UnusableData(f"{case.name} ({case.source}) does not say whether there is a fracture")
    hu = case.hu_at(slice(None), size)
    views = [features(nets.slices, hu, flip=flip) for flip in (False, True)]
    with torch.inference_mode():
        alone = torch.stack([nets.slices.fc(view)[:, 0] for view in views]).mean(0)
    scores = nets.score_features(views)
    return ScoredCase(
        case=float(scores.case.mean()),
        slices=scores.slices.mean(0).numpy(),
        alone=alone.cpu().numpy(),
        features=views[0].cpu(),
        content=content.measure(np.asarray(case.hu), case.spacing),
        fractured=case.fractured,
        labels=case.labels,
        clear=case.clear,
    )


def measure(
    scored: Sequence[ScoredCase], fitted: Mapping[str, Any], points: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All numbers of the result table; ambiguous slices (a trace of fracture) are left out."""
    labels = [case.labels[case.clear] for case in scored]
    truth = [np.array([case.fractured]) for case in scored]
    slices = [case.slices[case.clear] / fitted["slice_temperature"] for case in scored]
    cases = [np.array([case.case]) / fitted["case_temperature"] for case in scored]
    return {
        "cases": len(scored),
        "fractured_cases": int(np.concatenate(truth).sum()),
        "slices": int(sum(map(len, labels))),
        "fractured_slices": int(np.concatenate(labels).sum()),
        "image": {
            "slice network alone": ranking([case.alone[case.clear] for case in scored], labels),
            "with sequence network": ranking(slices, labels) | at(slices, labels, points[0]["slice_threshold"]),
        },
        "case": {
            "any slice": ranking([np.array([case.alone.max()]) for case in scored], truth),
            "sequence network": ranking(cases, truth)
            | calibration(cases, truth)
            | determinate(cases, truth, fitted["indeterminate"]),
            "operating_points": {point["name"]: at(cases, truth, point["threshold"]) for point in points},
        },
    }


def within_range(scored: Sequence[ScoredCase], gate: Novelty, manifest: Mapping[str, Any]) -> dict[str, float]:
    """The share of cases that the gate lets pass without a remark: by their content, and by their features."""
    distances = [gate.distance(case_features(case.features)) for case in scored]
    return validated.shares([case.content for case in scored], distances, manifest)


def pointing_game(
    nets: FractureNets, cases: Sequence[Case], size: int, progress: Callable[[str], None]
) -> dict[str, float | int | str]:
    """How often the maximum of Grad-CAM lies on the fracture, against a random point on bone."""
    hits, chance, share = [], [], []
    for case in (case for case in cases if case.labels.any()):
        chosen = np.argsort(-case.labels.astype(int) * case.fractures.sum((1, 2)))[:POINTING_SLICES]
        hu = case.hu_at(list(chosen), size)
        maps = grad_cam(nets.slices, nets.slices.layer4, images(hu))
        maps = interpolate(maps[:, None], size=hu.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        for one, mask, image in zip(
            maps.numpy(), case.fractures_at(list(chosen), size).numpy() > 0.5, hu.numpy(), strict=True
        ):
            if not mask.any():
                continue
            near = binary_dilation(mask, iterations=POINTING_TOLERANCE)
            hits.append(float(near[np.unravel_index(one.argmax(), one.shape)]))
            chance.append(float(near[image > 200].mean()))
            share.append(float(one[near].sum() / max(one.sum(), 1e-9)))
    progress(f"pointing game on {len(hits)} slices")
    return {
        "slices": len(hits),
        "tolerance_pixels": POINTING_TOLERANCE,
        "hit_rate": float(np.mean(hits)),
        "random_point_on_bone": float(np.mean(chance)),
        "energy_near_fracture": float(np.mean(share)),
    }


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What `measure` and `pointing_game` found, as Markdown tables."""
    image, case = metrics["image"], metrics["case"]
    lines = [
        f"{metrics['cases']} phantoms ({metrics['fractured_cases']} fractured), {metrics['slices']} slices "
        f"({metrics['fractured_slices']} fractured). Intervals: 95 %, bootstrap over phantoms.",
        "",
        "| what | ROC AUC | average precision |",
        "|---|---|---|",
        *(
            f"| slices, {name} | {with_interval(row, 'auc')} | {row['average_precision']:.3f} |"
            for name, row in image.items()
        ),
        *(
            f"| cases, {name} | {with_interval(case[name], 'auc')} | {case[name]['average_precision']:.3f} |"
            for name in ("any slice", "sequence network")
        ),
        "",
        "| operating point | threshold | sensitivity | specificity |",
        "|---|---|---|---|",
        point_line("slices, best F1", image["with sequence network"]),
        *(point_line(f"cases, {name}", row) for name, row in case["operating_points"].items()),
        "",
        f"Case calibration: ECE {case['sequence network']['ece']:.3f}, Brier {case['sequence network']['brier']:.3f}. "
        + zone_line(case["sequence network"]),
    ]
    cam, within = metrics["grad_cam"], metrics["within_range"]
    return [
        *lines,
        "",
        validated.line(within),
        "",
        f"Grad-CAM, pointing game on {cam['slices']} fractured slices (within {cam['tolerance_pixels']} pixels of the "
        f"fracture): {cam['hit_rate']:.2f}; a random point on bone: {cam['random_point_on_bone']:.2f}.",
    ]
