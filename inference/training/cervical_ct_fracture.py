"""Trains the cervical fracture model of paper 003, from labelled cases to model card.

Read `train`: slices, then cases, then temperature and thresholds on validation cases, then one look at the
test cases.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from inference import novelty
from inference.datasets.store import Case
from inference.evaluation import fracture as evaluation
from inference.evaluation.binary import expected_calibration_error
from inference.nets.cervical_fracture import FractureNets
from inference.preprocess import content
from inference.training import calibration, fracture_cases, fracture_slices, input_range, loop, parts
from inference.training.fracture_cases import FeatureCase, SequenceSettings
from inference.training.fracture_slices import SliceSettings
from inference.training.job import Job, licence, round_to_half

TASK = "cervical-ct-fracture"
#: Parts of the data, and their shares when one data set is divided.
PARTS = {"slices": 0.45, "sequence": 0.3, "validation": 0.1, "test": 0.15}
VERSION = "0.3.1"


def train(job: Job) -> Path:
    """Train both stages and write weights, manifest, curves and model card; return their folder."""
    start = time.monotonic()
    cases = job.cases(PARTS)
    parts.require_both_classes(cases)
    trained = train_nets(cases, job)
    nets, size = trained.nets, job.settings["slices"]["size"]
    validation = [evaluation.score(nets, case, size) for case in cases["validation"]]
    fitted, points = _calibrate(validation)
    gate = novelty.fit(torch.stack([novelty.case_features(case.features) for case in trained.features]))
    limit = novelty.threshold([gate.distance(novelty.case_features(case.features)) for case in validation])
    job.progress("scoring the test cases")
    tested = [evaluation.score(nets, case, size) for case in cases["test"]]
    metrics = evaluation.measure(tested, fitted, points)
    metrics["grad_cam"] = evaluation.pointing_game(nets, cases["test"], size, job.progress)
    limits = {
        "content": content.ranges([case.content for case in validation]),
        "novelty": {"threshold": limit, "percentile": novelty.PERCENTILE, "far": novelty.FAR},
    }
    metrics["within_range"] = evaluation.within_range(tested, gate, limits)
    manifest = {
        **_manifest(job.settings, cases, synthetic=job.data is None),
        "licence": licence(cases),
        "calibration": {**fitted, "fitted_on": f"{len(cases['validation'])} validation cases", "dtype": "float32"},
        "operating_points": points,
        **limits,
        "metrics": metrics,
        "references": _references(cases["test"], tested, fitted),
    }
    networks = {"slices": nets.slices, "sequence": nets.sequence, "novelty": gate}
    measured = evaluation.metric_lines(metrics)
    return job.write(manifest, networks, trained.curves, measured=measured, seconds=time.monotonic() - start)


@dataclass(frozen=True)
class Trained:
    """Both networks, and the features of the cases from which the second one learned."""

    nets: FractureNets
    features: Sequence[FeatureCase]
    curves: Mapping[str, loop.History]


def train_nets(cases: Mapping[str, Sequence[Case]], job: Job) -> Trained:
    """Both networks from the parts `slices`, `sequence` and `validation`."""
    settings = SliceSettings(**job.settings["slices"])
    slices, curve = fracture_slices.train(
        cases["slices"], cases["validation"], settings, folder=job.out, device=job.device, progress=job.progress
    )
    round_to_half(slices)
    views = []
    for flip in (False, True):
        views.append([fracture_cases.extract(slices, case, settings.size, flip=flip) for case in cases["sequence"]])
        job.progress(f"features of {len(views[-1])} cases{', mirrored' if flip else ''}")
    held_out = [fracture_cases.extract(slices, case, settings.size) for case in cases["validation"]]
    sequence, case_curve = fracture_cases.train(
        [*views[0], *views[1]],
        held_out,
        SequenceSettings(**job.settings["sequence"]),
        folder=job.out,
        progress=job.progress,
    )
    round_to_half(sequence)
    nets = FractureNets(slices, sequence.to(job.device))
    return Trained(nets, views[0], {"slices": curve, "sequence": case_curve})


def _calibrate(validation: Sequence[evaluation.ScoredCase]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Temperatures, indeterminate zone and operating points; the slice threshold is the one with the best F1."""
    cases = np.array([case.case for case in validation])
    truth = np.array([case.fractured for case in validation])
    slices = np.concatenate([case.slices[case.clear] for case in validation])
    labels = np.concatenate([case.labels[case.clear] for case in validation])
    fitted: dict[str, Any] = {
        "case_temperature": calibration.fit_temperature(cases, truth),
        "slice_temperature": calibration.fit_temperature(slices, labels),
    }
    fitted["ece_before"] = expected_calibration_error(cases, truth)
    fitted["ece_after"] = expected_calibration_error(cases / fitted["case_temperature"], truth)
    slice_threshold = calibration.best_f1(expit(slices / fitted["slice_temperature"]), labels)
    probabilities = expit(cases / fitted["case_temperature"])
    fitted["indeterminate"] = calibration.indeterminate(probabilities, truth)
    points = calibration.operating_points(probabilities, truth)
    return fitted, [
        {
            "name": point.name,
            "threshold": point.threshold,
            "slice_threshold": slice_threshold,
            "validation_sensitivity": point.sensitivity,
            "validation_specificity": point.specificity,
        }
        for point in points
    ]


def _references(
    cases: Sequence[Case], scored: Sequence[evaluation.ScoredCase], fitted: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The first fractured and the first intact test phantom with their answers: what a smoke test repeats."""
    chosen = [next(i for i, case in enumerate(cases) if case.fractured is wanted) for wanted in (True, False)]
    return [
        {
            "case": cases[i].name,
            "fractured": cases[i].fractured,
            "case_probability": float(expit(np.array(scored[i].case / fitted["case_temperature"]))),
        }
        for i in chosen
    ]


def _manifest(settings: Mapping[str, Any], cases: Mapping[str, Sequence[Case]], *, synthetic: bool) -> dict[str, Any]:
    width = settings["slices"]["width"]
    arguments = {"features": 32 * width, "units": settings["sequence"]["units"]}
    return {
        "id": TASK,
        "version": VERSION,
        "task": "Fracture of the cervical spine on axial CT: per slice and per case",
        "algorithm": "Otsu crop, three windows, ResNet-50 topology per slice, bidirectional LSTM (arXiv 2010.13336)",
        "networks": {
            "slices": {"architecture": "resnet50", "arguments": {"width": width}},
            "sequence": {"architecture": "slice-sequence", "arguments": arguments},
        },
        "input": _input([*cases["slices"], *cases["sequence"]], settings["slices"]["size"], synthetic=synthetic),
        "output": {"code": "SCT 72704001 Fracture", "site": "SCT 122494005 Cervical spine", "unit": "probability"},
        "uncertainty": "standard deviation over the image and its mirror image",
        "limitations": _LIMITATIONS,
    }


def _input(cases: Sequence[Case], size: int, *, synthetic: bool) -> dict[str, Any]:
    """What the training cases look like: the range in which anything is known about the model."""
    limits = {
        "modality": "CT",
        "body_part": "CSPINE",
        "plane": "axial",
        "size": size,
        "windows": "soft tissue (80; 300), standard bone (500; 1800), gross bone (400; 650): centre; width in HU",
        "crop": "Otsu on the gross-bone window, median box of the slices, 5 % margin",
        "min_slices": 20,
        **input_range.geometry([case.spacing for case in cases], [case.spacing[0] * len(case.hu) for case in cases]),
        "max_tilt_degrees": 20,
    }
    if synthetic:  # the headers of phantoms say so; a data set without its headers cannot tell
        limits |= {"slice_thickness_mm": limits["slice_spacing_mm"], "kernel": "sharp", "min_age_years": 18}
    return limits


_LIMITATIONS = [
    "Never saw a patient: metrics are about phantoms and say nothing about clinical performance.",
    "Phantoms show worn joints, implants, collars and variants only as simple shapes.",
    "Regions come from a coarse Grad-CAM map and show a neighbourhood, not the outline of a fracture.",
    "Does not name the vertebral level: the vertebra model beside it does.",
]
