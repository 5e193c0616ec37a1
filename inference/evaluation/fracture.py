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

from inference.evaluation.bootstrap import interval
from inference.explain import grad_cam
from inference.nets.cervical_fracture import FractureNets, features, images
from inference.training.fracture_slices import area_under_curve
from inference.training.phantom_cases import Case

CALIBRATION_BINS = 15
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
    fractured: bool
    labels: np.ndarray
    clear: np.ndarray


def score(nets: FractureNets, case: Case) -> ScoredCase:
    """Run both networks over one case."""
    hu = torch.from_numpy(np.array(case.hu))
    views = [features(nets.slices, hu, flip=flip) for flip in (False, True)]
    with torch.inference_mode():
        alone = torch.stack([nets.slices.fc(view)[:, 0] for view in views]).mean(0)
    scores = nets.score_features(views)
    return ScoredCase(
        case=float(scores.case.mean()),
        slices=scores.slices.mean(0).numpy(),
        alone=alone.cpu().numpy(),
        fractured=case.fractured,
        labels=case.labels,
        clear=case.clear,
    )


def measure(
    scored: Sequence[ScoredCase], calibration: Mapping[str, float], points: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All numbers of the result table; ambiguous slices (a trace of fracture) are left out."""
    labels = [case.labels[case.clear] for case in scored]
    truth = [np.array([case.fractured]) for case in scored]
    slices = [case.slices[case.clear] / calibration["slice_temperature"] for case in scored]
    cases = [np.array([case.case]) / calibration["case_temperature"] for case in scored]
    return {
        "cases": len(scored),
        "fractured_cases": int(np.concatenate(truth).sum()),
        "slices": int(sum(map(len, labels))),
        "fractured_slices": int(np.concatenate(labels).sum()),
        "image": {
            "slice network alone": _ranking([case.alone[case.clear] for case in scored], labels),
            "with sequence network": _ranking(slices, labels) | _at(slices, labels, points[0]["slice_threshold"]),
        },
        "case": {
            "any slice": _ranking([np.array([case.alone.max()]) for case in scored], truth),
            "sequence network": _ranking(cases, truth) | _calibration(cases, truth),
            "operating_points": {point["name"]: _at(cases, truth, point["threshold"]) for point in points},
        },
    }


def pointing_game(
    nets: FractureNets, cases: Sequence[Case], progress: Callable[[str], None]
) -> dict[str, float | int | str]:
    """How often the maximum of Grad-CAM lies on the fracture, against a random point on bone."""
    hits, chance, share = [], [], []
    for case in (case for case in cases if case.fractured):
        chosen = np.argsort(-case.area)[:POINTING_SLICES]
        hu = torch.from_numpy(np.array(case.hu[chosen]))
        maps = grad_cam(nets.slices, nets.slices.layer4, images(hu))
        maps = interpolate(maps[:, None], size=hu.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        for one, mask, image in zip(maps.numpy(), case.mask[chosen], hu.numpy(), strict=True):
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


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between confidence and frequency over bins with the same number of cases."""
    probability = 1 / (1 + np.exp(-logits))
    order = np.argsort(probability)
    parts = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    gaps = [len(part) * abs(probability[part].mean() - labels[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def _ranking(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, Any]:
    from torchmetrics.functional.classification import binary_average_precision

    everything, truth = np.concatenate(scores), np.concatenate(labels)
    # In double precision: in single, the sigmoid of different high logits is the same 1.
    probability = torch.from_numpy(everything).double().sigmoid()
    return {
        "auc": area_under_curve(everything, truth),
        "auc_ci95": interval(area_under_curve, scores, labels),
        "average_precision": float(binary_average_precision(probability, torch.from_numpy(truth).int())),
    }


def _at(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], threshold: float) -> dict[str, Any]:
    """Sensitivity and specificity of calibrated logits at a probability."""
    cut = float(np.log(threshold / (1 - threshold)))
    everything = np.concatenate(scores), np.concatenate(labels)
    return {
        "threshold": threshold,
        "sensitivity": _sensitivity(cut)(*everything),
        "sensitivity_ci95": interval(_sensitivity(cut), scores, labels),
        "specificity": _specificity(cut)(*everything),
        "specificity_ci95": interval(_specificity(cut), scores, labels),
    }


def _sensitivity(cut: float) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda scores, labels: float(np.mean(scores[labels] >= cut)) if labels.any() else float("nan")


def _specificity(cut: float) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda scores, labels: float(np.mean(scores[~labels] < cut)) if not labels.all() else float("nan")


def _calibration(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, float]:
    logits, truth = np.concatenate(scores), np.concatenate(labels)
    brier = float(np.mean((1 / (1 + np.exp(-logits)) - truth) ** 2))
    return {"ece": expected_calibration_error(logits, truth), "brier": brier}
