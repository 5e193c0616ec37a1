"""Trains the model for single cervical vertebrae, and fits how the three models together answer for a case.

Read `train`: the network begins as the pinned slice network of paper 003 and learns from the outlines of the data
set; everything after it (calibration, the case,
thresholds, the test) runs behind the outlines that the pinned vertebra model finds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from inference.cervical_ct import LevelNet, case_logit, vertebra_logits
from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case
from inference.evaluation import levels as evaluation
from inference.evaluation.binary import expected_calibration_error
from inference.evaluation.levels import ScoredLevels
from inference.training import calibration, vertebra_fractures
from inference.training.job import Job, licence, round_to_half
from inference.training.vertebra_fractures import LevelSettings

TASK = "cervical-ct-levels"
#: Parts of the data, and their shares when one data set is divided.
PARTS = {"train": 0.75, "validation": 0.1, "test": 0.15}
VERSION = "0.1.0"


def train(job: Job) -> Path:
    """Train the network and write weights, manifest, curves and model card; return their folder."""
    start = time.monotonic()
    cases = job.cases(PARTS)
    settings = LevelSettings(**job.settings["levels"])
    first = evaluation.before(job.config_dir, str(job.device))
    net = vertebra_fractures.begin(settings, first.fracture.slices)
    history = vertebra_fractures.train(
        net, cases["train"], cases["validation"], settings, folder=job.out, progress=job.progress
    )
    round_to_half(net)

    def score(part: str) -> list[ScoredLevels]:
        scored = []
        for number, case in enumerate(cases[part], start=1):
            scored.append(evaluation.score(first, LevelNet(net, settings.size), case))
            if number % 20 == 0:
                job.progress(f"scored {number} of {len(cases[part])} {part} cases")
        return scored

    fitted, points = _calibrate(score("validation"))
    tested = score("test")
    metrics = evaluation.measure(tested, fitted, points)
    manifest = {
        **_manifest(settings),
        "licence": licence(cases),
        "behind": dict(first.digests),
        "calibration": {**fitted, "fitted_on": f"{len(cases['validation'])} validation cases", "dtype": "float32"},
        "operating_points": points,
        "metrics": metrics,
        "references": [_reference(cases["test"], tested, fitted)],
    }
    seconds = time.monotonic() - start
    measured = evaluation.metric_lines(metrics)
    return job.write(manifest, {"levels": net}, {"levels": history}, measured=measured, seconds=seconds)


def _calibrate(scored: Sequence[ScoredLevels]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Regressions of the vertebrae and of the case, the indeterminate zone of the case, and thresholds of both."""
    named = [case for case in scored if case.answers]
    if not named:
        raise UnusableData("the vertebra model names the vertebrae of no validation case: retrain it on this data set")
    answers, labels = (np.concatenate(part) for part in evaluation.pairs(named))
    bias, (network, slices) = calibration.fit_logistic(answers, labels)
    vertebra = {"bias": bias, "network": float(network), "slices": float(slices)}
    logits = vertebra_logits(vertebra, answers)
    each = [vertebra_logits(vertebra, part) for part in evaluation.pairs(named)[0]]
    truth = np.array([case.fractured for case in named])
    inputs = np.array([[one.case, max(own)] for one, own in zip(named, each, strict=True)])
    bias, (sequence, highest) = calibration.fit_logistic(inputs, truth)
    case = {"bias": bias, "sequence": float(sequence), "vertebra": float(highest)}
    overall = expit([case_logit(case, one.case, own) for one, own in zip(named, each, strict=True)])
    fitted = {
        "vertebra": vertebra,
        "case": case,
        "indeterminate": calibration.indeterminate(overall, truth),
        "vertebra_ece": expected_calibration_error(logits, labels),
    }
    of_levels = calibration.operating_points(expit(logits), labels)
    of_cases = calibration.operating_points(overall, truth)
    return fitted, [
        {
            "name": case.name,
            "threshold": case.threshold,
            "level_threshold": level.threshold,
            "validation_sensitivity": case.sensitivity,
            "validation_specificity": case.specificity,
        }
        for case, level in zip(of_cases, of_levels, strict=True)
    ]


def _reference(cases: Sequence[Case], tested: Sequence[ScoredLevels], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """The first test case whose vertebrae are named, with the answers: what a smoke test repeats."""
    at = next(n for n, case in enumerate(tested) if case.answers)
    logits = {level: vertebra_logits(fitted["vertebra"], one) for level, one in tested[at].answers.items()}
    answers = {level: float(expit(both.mean())) for level, both in logits.items()}
    return {"case": cases[at].name, "probabilities": answers}


def _manifest(settings: LevelSettings) -> Mapping[str, Any]:
    arguments = {"width": settings.width, "units": settings.units}
    return {
        "id": TASK,
        "version": VERSION,
        "task": "Fracture of each cervical vertebra on axial CT, and of the case",
        "algorithm": "15 slices of each vertebra with their neighbours and its outline, ResNet-50 topology, "
        "bidirectional LSTM; with the slices through its core by logistic regression; the case by another one, on the "
        "most suspicious vertebra and the sequence model",
        "networks": {"levels": {"architecture": "vertebra-fracture", "arguments": arguments}},
        "input": {
            "modality": "CT",
            "body_part": "CSPINE",
            "plane": "axial",
            "size": settings.size,
        },
        "output": {"code": "SCT 72704001 Fracture", "site": "C1 to C7", "unit": "probability"},
        "uncertainty": "standard deviation over the image and its mirror image",
        "limitations": [
            "Never saw a patient: metrics are about phantoms and say nothing about clinical performance.",
            "Answers only for vertebrae that the vertebra model could name.",
            "T1 and below are not examined.",
        ],
    }
