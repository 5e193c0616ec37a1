"""Trains the vertebra model of paper 001, from labelled cases to model card."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.datasets import isotropic
from inference.datasets.store import Case
from inference.evaluation import vertebrae as evaluation
from inference.preprocess.sagittal import LEVELS
from inference.training import vertebra_segmentation
from inference.training.job import Job, licence, round_to_half
from inference.training.vertebra_segmentation import SegmentationSettings

TASK = "cervical-ct-vertebrae"
#: Parts of the data, and their shares when one data set is divided.
PARTS = {"train": 0.75, "validation": 0.1, "test": 0.15}
VERSION = "0.1.0"


def train(job: Job) -> Path:
    """Train the network and write weights, manifest, curves and model card; return their folder."""
    start = time.monotonic()
    cases = {part: [case for case in found if case.has_vertebrae] for part, found in job.cases(PARTS).items()}
    settings = SegmentationSettings(**job.settings["unet"])
    files = {part: isotropic.prepare(found, settings.mm, job.progress) for part, found in cases.items()}
    net, history = vertebra_segmentation.train(
        files["train"], files["validation"], settings, folder=job.out, device=job.device, progress=job.progress
    )
    round_to_half(net)
    scored = []
    for number, case in enumerate(cases["test"], start=1):
        scored.append(evaluation.score(net, case, settings.mm))
        if number % 20 == 0:
            job.progress(f"located the vertebrae of {number} of {len(cases['test'])} test cases")
    metrics = evaluation.measure(scored)
    manifest = {
        **_manifest(settings),
        "licence": licence(cases),
        "metrics": metrics,
        "references": _references(cases["test"], scored),
    }
    seconds = time.monotonic() - start
    return job.write(
        manifest, {"unet": net}, {"unet": history}, measured=evaluation.metric_lines(metrics), seconds=seconds
    )


def _references(cases: Sequence[Case], scored: Sequence[Sequence[evaluation.ScoredVertebra]]) -> list[dict[str, Any]]:
    """The first test case with its answers: what a smoke test repeats."""
    dice = {one.level: round(one.dice, 4) for one in scored[0]}
    return [{"case": cases[0].name, "dice": dice}]


def _manifest(settings: SegmentationSettings) -> Mapping[str, Any]:
    arguments = {"levels": len(LEVELS), "width": settings.width, "repeats": list(settings.repeats)}
    return {
        "id": TASK,
        "version": VERSION,
        "task": "Outlines and names of the vertebrae C1 to T1 on CT of the neck",
        "algorithm": "U-Net with an Inception-ResNet-v2 encoder on sagittal slices; names checked by anatomy",
        "networks": {"unet": {"architecture": "inception-resnet-v2-unet", "arguments": arguments}},
        "input": {
            "modality": "CT",
            "body_part": "CSPINE",
            "plane": "axial",
            "size": settings.size,
            "mm": settings.mm,
        },
        "output": {"levels": list(LEVELS), "unit": "label map"},
        "calibration": {},
        "operating_points": [],
        "uncertainty": "mean probability of the voxels of a vertebra; no name where the anatomy contradicts",
        "limitations": [
            "Never saw a patient: metrics are about phantoms and say nothing about clinical performance.",
            "Without C1, C2 or T1 in view nothing is named. Numbers of vertebrae other than seven are not recognised.",
            "Outlines are made on voxels of 1.5 mm.",
        ],
    }
