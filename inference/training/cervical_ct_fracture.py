"""Trains the cervical fracture model of paper 003 on phantoms, from rendering to model card.

Read `train`: slices, then cases, then temperature and thresholds on validation phantoms, then one look at
the test phantoms.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import weights
from inference.evaluation import fracture as evaluation
from inference.nets.cervical_fracture import FractureNets
from inference.nets.resnet import ResNet
from inference.phantom.specification import GENERATOR_VERSION, SEEDS
from inference.training import calibration, fracture_cases, fracture_slices
from inference.training.fracture_cases import SequenceSettings
from inference.training.fracture_slices import SliceSettings
from inference.training.model_card import write_card
from inference.training.phantom_cases import Case, prepare

TASK = "cervical-ct-fracture"
VERSION = "0.1.0"
SLICE_STAGE = "slice-stage.safetensors"  # the finished slice network, in full precision

Progress = Callable[[str], None]


def train(config_dir: Path, out: Path, *, cache: Path, progress: Progress) -> Path:
    """Train both stages and write weights, manifest and model card into `out`; return `out`."""
    out.mkdir(parents=True, exist_ok=True)
    settings = tomllib.loads((config_dir / "training" / f"{TASK}.toml").read_text())
    start = time.monotonic()
    cases = {name: _cases(settings["data"], name, cache, progress) for name in ("slices", "sequence", "val", "test")}
    nets = _train_nets(cases, settings, out, progress)
    validation = [evaluation.score(nets, case) for case in cases["val"]]
    fitted, points = _calibrate(validation)
    progress("scoring the test phantoms")
    tested = [evaluation.score(nets, case) for case in cases["test"]]
    metrics = evaluation.measure(tested, fitted, points)
    metrics["grad_cam"] = evaluation.pointing_game(nets, cases["test"], progress)
    manifest = _manifest(nets, settings, (fitted, points, metrics), _references(cases["test"], tested, fitted))
    manifest["training"]["seconds"] = round(time.monotonic() - start)
    manifest["sha256"] = weights.save(out / manifest["file"], {"slices": nets.slices, "sequence": nets.sequence})
    content = (json.dumps(manifest, indent=2) + "\n").encode()
    (out / weights.MANIFEST).write_bytes(content)
    write_card(manifest, out)
    progress(f'set manifest_sha256 = "{hashlib.sha256(content).hexdigest()}" in config/pipelines/{TASK}.toml')
    return out


def _cases(data: Mapping[str, Any], name: str, cache: Path, progress: Progress) -> list[Case]:
    """The phantoms of one part; the two training stages use different seeds."""
    first, second = data["slice_cases"], data["sequence_cases"]
    seeds = {
        "slices": SEEDS["train"][:first],
        "sequence": SEEDS["train"][first : first + second],
        "val": SEEDS["val"][: data["validation_cases"]],
        "test": SEEDS["test"][: data["test_cases"]],
    }[name]
    return prepare(seeds, profile=data["profile"], size=data["size"], cache=cache, progress=progress)


def _train_nets(
    cases: Mapping[str, Sequence[Case]], settings: Mapping[str, Any], out: Path, progress: Progress
) -> FractureNets:
    slices = _slice_net(cases, settings, out / SLICE_STAGE, progress)
    _round_to_half(slices)
    features = []
    for flip in (False, True):
        features += [fracture_cases.extract(slices, case, flip=flip) for case in cases["sequence"]]
        progress(f"features of {len(features)} cases")
    held_out = [fracture_cases.extract(slices, case) for case in cases["val"]]
    sequence = fracture_cases.train(features, held_out, SequenceSettings(**settings["sequence"]), progress=progress)
    _round_to_half(sequence)
    return FractureNets(slices, sequence)


def _slice_net(
    cases: Mapping[str, Sequence[Case]], settings: Mapping[str, Any], checkpoint: Path, progress: Progress
) -> ResNet:
    """The trained slice network, from the checkpoint of an earlier run with the same settings if there is one."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    stage = {"generator_version": GENERATOR_VERSION, "data": settings["data"], "slices": settings["slices"]}
    made_with = {"made_with": json.dumps(stage, sort_keys=True)}
    if checkpoint.exists():
        with safe_open(checkpoint, framework="pt") as content:
            earlier = content.metadata()
        if earlier == made_with:
            progress(f"slice network from {checkpoint}")
            net = ResNet(width=settings["slices"]["width"])
            net.load_state_dict(load_file(checkpoint), strict=True)
            return net.to(memory_format=torch.channels_last).eval()
    net = fracture_slices.train(cases["slices"], cases["val"], SliceSettings(**settings["slices"]), progress=progress)
    part = checkpoint.with_suffix(".part")  # renamed when complete: an interrupted write must not look finished
    tensors = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(tensors, part, metadata=made_with)
    part.replace(checkpoint)
    return net


def _round_to_half(net: torch.nn.Module) -> None:
    """What follows is fitted to the weights as they are stored, not as they were trained."""
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def _calibrate(validation: Sequence[evaluation.ScoredCase]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Temperatures and operating points; the slice threshold is the one with the best F1."""
    cases = np.array([case.case for case in validation])
    truth = np.array([case.fractured for case in validation])
    slices = np.concatenate([case.slices[case.clear] for case in validation])
    labels = np.concatenate([case.labels[case.clear] for case in validation])
    fitted = {
        "case_temperature": calibration.fit_temperature(cases, truth),
        "slice_temperature": calibration.fit_temperature(slices, labels),
    }
    fitted["ece_before"] = evaluation.expected_calibration_error(cases, truth)
    fitted["ece_after"] = evaluation.expected_calibration_error(cases / fitted["case_temperature"], truth)
    slice_threshold = calibration.best_f1(_sigmoid(slices / fitted["slice_temperature"]), labels)
    points = calibration.operating_points(_sigmoid(cases / fitted["case_temperature"]), truth)
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
    cases: Sequence[Case], scored: Sequence[evaluation.ScoredCase], fitted: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The first fractured and the first intact test phantom with their answers: what a smoke test repeats."""
    chosen = [next(i for i, case in enumerate(cases) if case.fractured is wanted) for wanted in (True, False)]
    return [
        {
            "seed": cases[i].seed,
            "fractured": cases[i].fractured,
            "case_probability": float(_sigmoid(np.array(scored[i].case / fitted["case_temperature"]))),
        }
        for i in chosen
    ]


def _manifest(
    nets: FractureNets,
    settings: Mapping[str, Any],
    results: tuple[Mapping[str, float], Sequence[Mapping[str, Any]], Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    fitted, points, metrics = results
    data, sequence = settings["data"], settings["sequence"]
    arguments = {"features": 32 * settings["slices"]["width"], "units": sequence["units"]}
    count = sum(p.numel() for net in (nets.slices, nets.sequence) for p in net.parameters())
    return {
        "schema": weights.SCHEMA,
        "id": TASK,
        "version": VERSION,
        "task": "Fracture of the cervical spine on axial CT: per slice and per case",
        "manufacturer": "dicomnode-spine",
        "algorithm": "Otsu crop, three windows, ResNet-50 topology per slice, bidirectional LSTM (arXiv 2010.13336)",
        "licence": "Apache-2.0",
        "notice": "Research use only. Trained on synthetic phantoms, not validated on patients.",
        "trained_on": _trained_on(data),
        "intended_use": "Software tests, demonstrations and research on the processing chain.",
        "out_of_scope": "Any decision about a patient.",
        "file": "weights.safetensors",
        "sha256": "",
        "dtype": "float16",
        "parameters": count,
        "networks": {
            "slices": {"architecture": "resnet50", "arguments": {"width": settings["slices"]["width"]}},
            "sequence": {"architecture": "slice-sequence", "arguments": arguments},
        },
        "input": _input(data["size"]),
        "output": {"code": "SCT 72704001 Fracture", "site": "SCT 122494005 Cervical spine", "unit": "probability"},
        "calibration": {**fitted, "fitted_on": f"{data['validation_cases']} validation phantoms", "dtype": "float32"},
        "operating_points": list(points),
        "uncertainty": "standard deviation over the image and its mirror image",
        "training": {
            "command": f"dicomnode train {TASK}",
            "settings": settings,
            "generator_version": GENERATOR_VERSION,
            "torch": torch.__version__,
            "machine": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        },
        "metrics": metrics,
        "references": list(references),
        "limitations": _LIMITATIONS,
    }


def _input(size: int) -> dict[str, Any]:
    """What the phantoms look like: the range in which anything is known about the model."""
    return {
        "modality": "CT",
        "body_part": "CSPINE",
        "plane": "axial",
        "size": size,
        "windows": "soft tissue (80; 300), standard bone (500; 1800), gross bone (400; 650): centre; width in HU",
        "crop": "Otsu on the gross-bone window, median box of the slices, 5 % margin",
        "min_slices": 20,
        "slice_spacing_mm": [1.0, 1.5],
        "pixel_spacing_mm": [0.6, 0.8],
        "coverage_mm": [110, 210],
        "max_tilt_degrees": 20,
    }


def _trained_on(data: Mapping[str, Any]) -> str:
    count = data["slice_cases"] + data["sequence_cases"]
    return (
        f"{count} synthetic cervical CT phantoms (generator version {GENERATOR_VERSION}, profile {data['profile']}, "
        f"seeds 0 to {count - 1}); no patient data."
    )


_LIMITATIONS = [
    "Never saw a patient: metrics are about phantoms and say nothing about clinical performance.",
    "Phantoms have few mimics: no degenerative disease, implants, collars, children, or post-operative spines.",
    "Regions come from a coarse Grad-CAM map and show a neighbourhood, not the outline of a fracture.",
    "Does not name the vertebral level.",
]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))
