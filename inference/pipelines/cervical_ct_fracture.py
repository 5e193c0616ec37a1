"""Fractures of the cervical spine on CT, after paper 003 (Salehinejad et al. 2021).

Read `_analyse`: orient, crop, score every slice and the case, and, only for a positive case, show where.

Rules: the case is positive if its calibrated probability reaches the threshold. A negative case has no
findings, whatever single slices say. A positive case has at least one: if no slice reaches the slice
threshold, the most suspicious slice is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import engine, fracture_regions, weights
from inference.findings import Analysis, Code, ModelIdentity
from inference.nets.cervical_fracture import FractureNets, Scores
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.pipeline import UnknownPipeline
from inference.preprocess import input_limits
from inference.preprocess.axial import Axial, orient
from inference.preprocess.crop import case_crop
from inference.volume import Volume

NAME = "cervical-ct-fracture"
FRACTURE = Code(scheme="SCT", value="72704001", meaning="Fracture")
CERVICAL_SPINE = Code(scheme="SCT", value="122494005", meaning="Cervical spine")


@dataclass(frozen=True, kw_only=True)
class _Model:
    """Everything that does not depend on the volume."""

    identity: ModelIdentity
    nets: FractureNets
    manifest: Mapping[str, Any]
    threshold: float
    slice_threshold: float
    regions: fracture_regions.Settings


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """Calibrated and raw probabilities; `spread` is the standard deviation over the mirrored views."""

    case: float
    slices: np.ndarray
    raw_slices: np.ndarray
    case_spread: float
    slice_spread: np.ndarray


def load(table: Mapping[str, Any], model_dir: Path, device: str) -> Callable[[Volume], Analysis]:
    """Load the networks that the table pins; the result analyses one volume at a time."""
    manifest = weights.read_manifest(model_dir, sha256=table["model"]["manifest_sha256"])
    point, regions = _output(table.get("output", {}), manifest)
    model = _Model(
        identity=weights.identity(manifest),
        nets=load_nets(model_dir, manifest, device),
        manifest=manifest,
        threshold=point["threshold"],
        slice_threshold=point["slice_threshold"],
        regions=regions,
    )
    return lambda volume: _analyse(model, volume)


def _output(
    output: Mapping[str, Any], manifest: Mapping[str, Any]
) -> tuple[Mapping[str, Any], fracture_regions.Settings]:
    """The operating point and the region settings that the `[output]` table names."""
    points = {point["name"]: point for point in manifest["operating_points"]}
    chosen = output.get("operating_point")
    if chosen not in points:
        raise UnknownPipeline(f"{NAME}: [output] operating_point {chosen!r}: the model has {', '.join(points)}")
    try:
        return points[chosen], fracture_regions.Settings(**output.get("regions", {}))
    except TypeError as error:  # its text names the missing or unknown key
        raise UnknownPipeline(f"{NAME}: [output.regions]: {error}") from error


def load_nets(model_dir: Path, manifest: Mapping[str, Any], device: str) -> FractureNets:
    """Build both networks from the manifest and fill them with its verified weights."""
    tensors = weights.load_tensors(model_dir, manifest)
    target = engine.choose_device(device)
    slices = ResNet(**manifest["networks"]["slices"]["arguments"])
    sequence = SliceSequence(**manifest["networks"]["sequence"]["arguments"])
    weights.fill(slices, tensors, part="slices")
    weights.fill(sequence, tensors, part="sequence")
    return FractureNets(
        slices.to(target, memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
        sequence.to(target).eval(),
    )


def calibrate(scores: Scores, calibration: Mapping[str, float]) -> Probabilities:
    """Logits of both views to probabilities: the mean logit, divided by the temperature."""
    case = scores.case / calibration["case_temperature"]
    slices = scores.slices / calibration["slice_temperature"]
    return Probabilities(
        case=float(torch.sigmoid(case.mean())),
        slices=torch.sigmoid(slices.mean(0)).numpy(),
        raw_slices=torch.sigmoid(scores.slices.mean(0)).numpy(),
        case_spread=float(torch.sigmoid(case).std(correction=0)),
        slice_spread=torch.sigmoid(slices).std(0, correction=0).numpy(),
    )


def _analyse(model: _Model, volume: Volume) -> Analysis:
    start = time.perf_counter()
    reason = input_limits.refuse(volume, model.manifest["input"])
    axial = orient(volume)
    crop = None if reason else case_crop(axial.array, model.manifest["input"]["size"])
    if crop is None:
        return _not_applicable(model, volume, reason or "no bone was found in this series")
    hu = crop.cut(torch.from_numpy(axial.array))
    prepared = time.perf_counter()
    probabilities = calibrate(model.nets.score(hu), model.manifest["calibration"])
    scored = time.perf_counter()
    regions: tuple[fracture_regions.Region, ...] = ()
    if probabilities.case >= model.threshold:
        suspicious = _suspicious(probabilities.slices, model.slice_threshold)
        scene = fracture_regions.Scene(axial.array, hu, crop, volume.spacing[1], volume.voxel_mm3)
        regions = fracture_regions.find(model.nets.slices, scene, suspicious, probabilities.slices, model.regions)
    explained = time.perf_counter()
    return _analysis(
        model,
        volume,
        (axial, probabilities, regions),
        {"preprocess": prepared - start, "networks": scored - prepared, "explain": explained - scored},
    )


def _suspicious(slices: np.ndarray, threshold: float) -> np.ndarray:
    """Slices that are shown in a positive case, never none."""
    found = np.nonzero(slices >= threshold)[0]
    return found if len(found) else np.array([int(slices.argmax())])


def _analysis(
    model: _Model,
    volume: Volume,
    parts: tuple[Axial, Probabilities, tuple[fracture_regions.Region, ...]],
    timings: Mapping[str, float],
) -> Analysis:
    axial, probabilities, regions = parts
    findings, masks = [], []
    for number, region in enumerate(regions, start=1):
        shown = fracture_regions.Shown(region, axial, number, FRACTURE, CERVICAL_SPINE)
        findings.append(shown.finding(volume.voxel_mm3, probabilities))
        masks.append(shown.mask(volume.array.shape))
    return Analysis(
        pipeline=NAME,
        state="done",
        reason="",
        model=model.identity,
        target=FRACTURE,
        site=CERVICAL_SPINE,
        case_probability=probabilities.case,
        threshold=model.threshold,
        slice_probabilities=tuple(float(p) for p in axial.slices_back(probabilities.slices)),
        findings=tuple(findings),
        masks=tuple(masks),
        quality=volume.quality + input_limits.outside(volume, model.manifest["input"]),
        timings={**timings, "total": sum(timings.values())},
    )


def _not_applicable(model: _Model, volume: Volume, reason: str) -> Analysis:
    return Analysis(
        pipeline=NAME,
        state="not_applicable",
        reason=reason,
        model=model.identity,
        target=FRACTURE,
        site=CERVICAL_SPINE,
        case_probability=None,
        threshold=model.threshold,
        quality=volume.quality,
    )
