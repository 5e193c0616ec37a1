"""How good the fracture probabilities of single vertebrae are, behind the outlines that a network found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference import cervical_ct, pipeline, vertebrae
from inference.cervical_ct import NAME, LevelNet
from inference.datasets.labelled import CERVICAL, UnusableData
from inference.datasets.store import Case
from inference.evaluation import binary
from inference.evaluation.bootstrap import interval
from inference.nets.cervical_fracture import FractureNets
from inference.nets.unet import VertebraUNet
from inference.training.fracture_slices import area_under_curve


@dataclass(frozen=True, kw_only=True)
class ScoredLevels:
    """One case: the logit of paper 003, the answers for its vertebrae, and the truth."""

    case: float
    #: As `cervical_ct.level_answers` gives them.
    answers: Mapping[str, np.ndarray]
    levels: Mapping[str, bool]
    fractured: bool


@dataclass(frozen=True)
class Before:
    """The two models that answer before single vertebrae are looked at, and what their images are."""

    fracture: FractureNets
    fracture_size: int
    unet: VertebraUNet
    mm: float
    #: SHA-256 of their weights, by their tables in the pipeline configuration.
    digests: Mapping[str, str]


def before(config_dir: Path, device: str) -> Before:
    """The two models as the pipeline pins them. Raises UntrustedWeights."""
    folder, manifest = pipeline.pinned(NAME, config_dir, "model")
    outlines, of_outlines = pipeline.pinned(NAME, config_dir, "vertebrae")
    return Before(
        fracture=cervical_ct.fracture_nets(folder, manifest, device),
        fracture_size=manifest["input"]["size"],
        unet=cervical_ct.vertebra_net(outlines, of_outlines, device),
        mm=of_outlines["input"]["mm"],
        digests={"model": manifest["sha256"], "vertebrae": of_outlines["sha256"]},
    )


def score(first: Before, levels: LevelNet, case: Case) -> ScoredLevels:
    """Run all three models over a labelled case. Raises UnusableData for one without labels of its levels."""
    if case.levels is None:
        raise UnusableData(f"{case.name} ({case.source}) does not say which vertebrae are fractured")
    volume = np.asarray(case.hu, np.float32)
    found = vertebrae.locate(first.unet, volume, case.spacing, first.mm)
    scores = first.fracture.score(case.hu_at(slice(None), first.fracture_size))
    return ScoredLevels(
        case=float(scores.case.mean()),
        answers=cervical_ct.level_answers(levels, volume, found, case.spacing, scores.slices.numpy()),
        levels=case.levels,
        fractured=bool(case.fractured),
    )


def pairs(scored: Sequence[ScoredLevels], level: str | None = None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Answers (k, 2), mean of both views, and labels (k,) of the named vertebrae (of one level), of cases with any."""
    chosen = [{name: one for name, one in case.answers.items() if level in (None, name)} for case in scored]
    answers = [np.stack([one.mean(0) for one in case.values()]) for case in chosen if case]
    labels = [np.array([case.levels[name] for name in one]) for case, one in zip(scored, chosen, strict=True) if one]
    return answers, labels


def measure(
    scored: Sequence[ScoredLevels], fitted: Mapping[str, Any], points: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Ranking per level and per case, calibration, and what the operating points give."""
    named = [case for case in scored if case.answers]
    answers, labels = pairs(scored)
    calibrated = [cervical_ct.vertebra_logits(fitted["vertebra"], one) for one in answers]
    truth = [np.array([case.fractured]) for case in named]
    overall = [
        np.array([cervical_ct.case_logit(fitted["case"], case.case, logits)])
        for case, logits in zip(named, calibrated, strict=True)
    ]
    return {
        "cases": len(scored),
        "named_cases": len(named),
        "fractured_cases": int(sum(case.fractured for case in scored)),
        "vertebrae": int(sum(map(len, labels))),
        "fractured_vertebrae": int(sum(one.sum() for one in labels)),
        "vertebra_parts": {
            "own network alone": binary.ranking([one[:, 0] for one in answers], labels),
            "slices alone": binary.ranking([one[:, 1] for one in answers], labels),
        },
        "vertebra": binary.ranking(calibrated, labels)
        | binary.calibration(calibrated, labels)
        | binary.at(calibrated, labels, points[0]["level_threshold"]),
        "levels": {level: _level(fitted, *pairs(scored, level)) for level in CERVICAL},
        "case": {
            "sequence network alone": binary.ranking([np.array([case.case]) for case in named], truth),
            "highest vertebra alone": binary.ranking([one.max(keepdims=True) for one in calibrated], truth),
            "both": binary.ranking(overall, truth)
            | binary.calibration(overall, truth)
            | binary.determinate(overall, truth, fitted["indeterminate"]),
            "operating_points": {point["name"]: binary.at(overall, truth, point["threshold"]) for point in points},
        },
    }


def _level(fitted: Mapping[str, Any], answers: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, Any]:
    logits = [cervical_ct.vertebra_logits(fitted["vertebra"], one) for one in answers]
    fractured = int(sum(one.sum() for one in labels))
    numbers: dict[str, Any] = {"vertebrae": len(labels), "fractured": fractured}
    if 0 < fractured < len(labels):
        low, high = interval(area_under_curve, logits, labels)
        numbers |= {"auc": area_under_curve(np.concatenate(logits), np.concatenate(labels)), "auc_ci95": [low, high]}
    return numbers


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as Markdown tables."""
    vertebra, case = metrics["vertebra"], metrics["case"]
    return [
        f"{metrics['cases']} cases ({metrics['fractured_cases']} fractured), vertebrae named in "
        f"{metrics['named_cases']}; {metrics['vertebrae']} vertebrae ({metrics['fractured_vertebrae']} fractured). "
        "Intervals: 95 %, bootstrap over cases.",
        "",
        "| what | ROC AUC | average precision |",
        "|---|---|---|",
        *(
            f"| vertebrae, {name} | {binary.with_interval(row, 'auc')} | {row['average_precision']:.3f} |"
            for name, row in {**metrics["vertebra_parts"], "both": vertebra}.items()
        ),
        *(
            f"| cases, {name} | {binary.with_interval(case[name], 'auc')} | {case[name]['average_precision']:.3f} |"
            for name in ("sequence network alone", "highest vertebra alone", "both")
        ),
        "",
        "| level | vertebrae | fractured | ROC AUC |",
        "|---|---|---|---|",
        *(
            f"| {level} | {row['vertebrae']} | {row['fractured']} | "
            f"{binary.with_interval(row, 'auc') if 'auc' in row else 'one class only'} |"
            for level, row in metrics["levels"].items()
        ),
        "",
        "| operating point | threshold | sensitivity | specificity |",
        "|---|---|---|---|",
        binary.point_line("vertebrae", vertebra),
        *(binary.point_line(f"cases, {name}", row) for name, row in case["operating_points"].items()),
        "",
        f"Calibration: vertebrae ECE {vertebra['ece']:.3f}, Brier {vertebra['brier']:.3f}; cases ECE "
        f"{case['both']['ece']:.3f}, Brier {case['both']['brier']:.3f}. {binary.zone_line(case['both'])}",
    ]
