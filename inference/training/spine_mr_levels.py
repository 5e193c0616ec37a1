"""Trains the network that names vertebrae and discs on sagittal T2 MR, from outlined studies to model card."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference import spine_levels
from inference.datasets import isotropic
from inference.datasets.labelled import UnusableData
from inference.datasets.outlined_mr import OutlinedMR, outlined
from inference.evaluation import vertebrae as evaluation
from inference.spine_levels import ANATOMY, LEVELS, VIEW
from inference.training import vertebra_segmentation
from inference.training.job import PHANTOMS_ONLY, Job, licence, round_to_half
from inference.training.vertebra_segmentation import SegmentationSettings

#: Parts of the data, and their shares when one data set is divided.
PARTS = {"train": 0.75, "validation": 0.1, "test": 0.15}
VERSION = "0.1.0"


def train(job: Job) -> Path:
    """Train the network and write weights, manifest, curves and model card; return their folder."""
    start = time.monotonic()
    studies = job.studies(PARTS)
    found = {part: outlined(some) for part, some in studies.items()}
    # A sixth lumbar vertebra has no label, and would be learnt as background. It stays in the test.
    cases = {part: [one for one in some if part == "test" or not one.has_sixth] for part, some in found.items()}
    for part, some in cases.items():
        if not some:
            raise UnusableData(f"the part {part} has no sagittal T2 series with outlined vertebrae: add studies")
    settings = SegmentationSettings(**job.settings["unet"])
    files = {part: isotropic.prepare(cases[part], settings.mm, job.progress) for part in ("train", "validation")}
    net, history = vertebra_segmentation.train(
        files["train"],
        files["validation"],
        settings,
        view=VIEW,
        folder=job.out,
        device=job.device,
        progress=job.progress,
    )
    round_to_half(net)
    scored = []
    for number, case in enumerate(cases["test"], start=1):
        scored.append(evaluation.score(net, case, settings.mm, ANATOMY))
        if number % 20 == 0:
            job.progress(f"named the levels of {number} of {len(cases['test'])} test series")
    metrics = evaluation.measure(scored, ANATOMY) | {
        "unusual": evaluation.unusual(scored, [one.is_unusual for one in cases["test"]])
    }
    manifest = {
        **_manifest(settings, synthetic=job.data is None),
        "licence": licence(studies),
        "metrics": metrics,
        "references": [_reference(cases["test"], scored)],
    }
    seconds = time.monotonic() - start
    return job.write(
        manifest, {"unet": net}, {"unet": history}, measured=evaluation.metric_lines(metrics), seconds=seconds
    )


def _reference(cases: Sequence[OutlinedMR], scored: Sequence[Sequence[evaluation.ScoredVertebra]]) -> dict[str, Any]:
    """The first test series with its answers: what a smoke test repeats."""
    return {"case": cases[0].name, "dice": {one.level: round(one.dice, 4) for one in scored[0]}}


def _manifest(settings: SegmentationSettings, *, synthetic: bool) -> Mapping[str, Any]:
    arguments = {"levels": len(VIEW.outputs), "width": settings.width, "repeats": list(settings.repeats)}
    return {
        "id": spine_levels.NAME,
        "version": VERSION,
        "task": "Outlines and names of vertebrae and discs, C2 to the sacrum, on sagittal T2 MR of the neck or back",
        "algorithm": "U-Net with an Inception-ResNet-v2 encoder on sagittal slices; names by counting discs",
        "networks": {"unet": {"architecture": "inception-resnet-v2-unet", "arguments": arguments}},
        "input": {
            "modality": "MR",
            "body_part": "SPINE",
            "plane": "sagittal",
            "sequence": "T2",
            "size": settings.size,
            "mm": settings.mm,
        },
        "output": {"levels": list(LEVELS), "unit": "label map"},
        "calibration": {},
        "operating_points": [],
        "uncertainty": "mean probability of the voxels of a level; no name where the anatomy contradicts",
        "limitations": [
            *([PHANTOMS_ONLY] if synthetic else []),
            "Counts from C2 or from the sacrum: without either in view nothing is named.",
            "With six or four lumbar vertebrae, names that are counted from the sacrum are one off.",
            f"Outlines are made on voxels of {settings.mm} mm; slices are 3 to 5 mm apart.",
        ],
    }
