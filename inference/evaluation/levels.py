"""How good the fracture probabilities of single vertebrae are, behind the outlines that a network found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference import cervical_ct, pipeline, vertebrae
from inference.cervical_ct import NAME, LevelAnswer
from inference.datasets.labelled import CERVICAL, UnusableData
from inference.datasets.store import Case
from inference.evaluation import binary
from inference.evaluation.bootstrap import interval
from inference.nets.cervical_fracture import FractureNets
from inference.nets.unet import VertebraUNet
from inference.nets.vertebra_fracture import VertebraFracture
from inference.training.fracture_slices import area_under_curve


@dataclass(frozen=True, kw_only=True)
class ScoredLevels:
    """One case: the logit of paper 003, the answers for its vertebrae, and the truth."""

    case: float
    answers: Mapping[str, LevelAnswer]
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


def score(first: Before, net: VertebraFracture, size: int, case: Case) -> ScoredLevels:
    """Run all three models over a labelled case. Raises UnusableData for one without labels of its levels."""
    if case.levels is None:
        raise UnusableData(f"{case.name} ({case.source}) does not say which vertebrae are fractured")
    volume = np.asarray(case.hu, np.float32)
    found = vertebrae.locate(first.unet, volume, case.spacing, first.mm)
    return ScoredLevels(
        case=float(first.fracture.score(case.hu_at(slice(None), first.fracture_size)).case.mean()),
        answers=cervical_ct.level_answers(net, volume, found, case.spacing, size),
        levels=case.levels,
        fractured=bool(case.fractured),
    )


def pairs(scored: Sequence[ScoredLevels], level: str | None = None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits and labels of the named vertebrae (of one level), one array per case that has any."""
    chosen = [
        [(answer.logit, case.levels[name]) for name, answer in case.answers.items() if level in (None, name)]
        for case in scored
    ]
    kept = [np.array(one, float) for one in chosen if one]
    return [one[:, 0] for one in kept], [one[:, 1] > 0 for one in kept]


def measure(
    scored: Sequence[ScoredLevels], fitted: Mapping[str, Any], points: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Ranking per level and per case, calibration, and what the operating points give."""
    named = [case for case in scored if case.answers]
    logits, labels = pairs(scored)
    calibrated = [one / fitted["level_temperature"] for one in logits]
    truth = [np.array([case.fractured]) for case in named]
    overall = [np.array([cervical_ct.stacked(fitted["stacking"], case.case, case.answers)]) for case in named]
    return {
        "cases": len(scored),
        "named_cases": len(named),
        "fractured_cases": int(sum(case.fractured for case in scored)),
        "vertebrae": int(sum(map(len, labels))),
        "fractured_vertebrae": int(sum(one.sum() for one in labels)),
        "vertebra": binary.ranking(calibrated, labels)
        | binary.calibration(calibrated, labels)
        | binary.at(calibrated, labels, points[0]["level_threshold"]),
        "levels": {level: _level(*pairs(scored, level)) for level in CERVICAL},
        "case": {
            "sequence network alone": binary.ranking([np.array([case.case]) for case in named], truth),
            "highest vertebra alone": binary.ranking(
                [np.array([max(answer.logit for answer in case.answers.values())]) for case in named], truth
            ),
            "both": binary.ranking(overall, truth) | binary.calibration(overall, truth),
            "operating_points": {point["name"]: binary.at(overall, truth, point["threshold"]) for point in points},
        },
    }


def _level(logits: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, Any]:
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
        f"| vertebrae | {binary.with_interval(vertebra, 'auc')} | {vertebra['average_precision']:.3f} |",
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
        f"{case['both']['ece']:.3f}, Brier {case['both']['brier']:.3f}.",
    ]
