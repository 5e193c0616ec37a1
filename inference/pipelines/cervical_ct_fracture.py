"""Fractures of the cervical spine on CT: which vertebra, which slices, and whether there is any.

Read `_analyse`: orient, score every slice and the case (paper 003), outline and name the vertebrae (paper 001), score
each of them, and, only for a positive case, show where.

Rules: where vertebrae are named, the probability of the case is made of the most suspicious vertebra and the answer of
paper 003; otherwise it is the latter alone, and the result says so. The case is positive if its calibrated
probability reaches the threshold. A negative case has no findings, whatever single slices or vertebrae say. A
positive case has at least one: if nothing reaches its own threshold, the most suspicious place is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from inference import cervical_ct, fracture_regions, novelty, vertebrae, weights
from inference.calibrated import indeterminate
from inference.cervical_ct import NAME, LevelNet
from inference.datasets.labelled import CERVICAL
from inference.findings import Analysis, Code, Mask, ModelIdentity
from inference.fracture_regions import Answer, Region, Shown
from inference.nets.cervical_fracture import FractureNets, Scores, features
from inference.nets.unet import VertebraUNet
from inference.novelty import Novelty
from inference.pipeline import UnknownPipeline, identity_of, manifests
from inference.preprocess import content, input_limits, orientation
from inference.preprocess.crop import case_crop
from inference.preprocess.orientation import Oriented
from inference.vertebrae import CODES, Vertebrae
from inference.volume import Volume

FRACTURE = Code(scheme="SCT", value="72704001", meaning="Fracture")
CERVICAL_SPINE = Code(scheme="SCT", value="122494005", meaning="Cervical spine")
NO_MODEL = "vertebrae are not named: no model for that is configured"
ENOUGH = 0.25  # of a region inside a vertebra that gives it its level: regions reach beyond the bone
SLICES_ALONE = "the probability of the case is that of the slices alone"


@dataclass(frozen=True, kw_only=True)
class _Model:
    """Everything that does not depend on the volume. Manifests and operating points are by table name."""

    identity: ModelIdentity
    manifests: Mapping[str, Mapping[str, Any]]
    points: Mapping[str, Mapping[str, float]]
    nets: FractureNets
    gate: Novelty
    #: Outlines vertebrae; None where the table pins no model for that.
    unet: VertebraUNet | None
    #: Judges each vertebra; None where the table pins no model for that.
    levels: LevelNet | None
    regions: fracture_regions.Settings


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """Calibrated and raw probabilities; `spread` is the standard deviation over the mirrored views."""

    case: float
    slices: np.ndarray
    raw_slices: np.ndarray
    case_spread: float
    slice_spread: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """Everything that the networks said about one volume, in the orientation of `axial`."""

    axial: Oriented
    probabilities: Probabilities
    found: Vertebrae
    levels: Mapping[str, Answer]
    #: Of the whole case, the threshold that it has to reach, and the zone in which cases cannot be told apart.
    case: float
    threshold: float
    zone: Sequence[float]


def load(table: Mapping[str, Any], config_dir: Path, device: str) -> Callable[[Volume, Mapping[str, Volume]], Analysis]:
    """Load the networks that the table pins; the result analyses one volume at a time."""
    read = manifests(table, config_dir)
    folder = {part: config_dir / table[part]["directory"] for part in read}
    points, regions = _output(table.get("output", {}), read)
    unet = levels = None
    if "vertebrae" in read:
        unet = cervical_ct.vertebra_net(folder["vertebrae"], read["vertebrae"], device)
    if "levels" in read:
        _require_same_models(read)
        levels = cervical_ct.level_net(folder["levels"], read["levels"], device)
    model = _Model(
        identity=identity_of(read),
        manifests=read,
        points=points,
        nets=cervical_ct.fracture_nets(folder["model"], read["model"], device),
        gate=cervical_ct.gate(folder["model"], read["model"], device),
        unet=unet,
        levels=levels,
        regions=regions,
    )
    return lambda volume, _: _analyse(model, volume)


def _require_same_models(read: Mapping[str, Mapping[str, Any]]) -> None:
    """The answers for vertebrae were calibrated behind two other models: with others they mean something else."""
    if "vertebrae" not in read:
        raise UnknownPipeline(f"{NAME}: [levels] needs the outlines of [vertebrae], which is missing")
    for part, digest in read["levels"]["behind"].items():
        if read[part]["sha256"] != digest:
            raise weights.UntrustedWeights(
                f"{NAME}: [levels] was calibrated behind weights {digest} of [{part}], not {read[part]['sha256']}; "
                "run dicomnode train cervical-ct-levels again"
            )


def _output(
    output: Mapping[str, Any], read: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Mapping[str, float]], fracture_regions.Settings]:
    """The operating point, of each model that has it, and the region settings that the `[output]` table names."""
    chosen = output.get("operating_point")
    points = {}
    for part in [part for part in read if read[part]["operating_points"]]:
        there = {point["name"]: point for point in read[part]["operating_points"]}
        if chosen not in there:
            raise UnknownPipeline(f"{NAME}: [output] operating_point {chosen!r}: [{part}] has {', '.join(there)}")
        points[part] = there[chosen]
    try:
        return points, fracture_regions.Settings(**output.get("regions", {}))
    except TypeError as error:  # its text names the missing or unknown key
        raise UnknownPipeline(f"{NAME}: [output.regions]: {error}") from error


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
    manifest = model.manifests["model"]
    reason = input_limits.refuse(volume, manifest["input"])
    axial = orientation.axial(volume)
    measured = {} if reason else content.measure(axial.array, volume.spacing)
    reason = reason or content.refuse(measured)
    crop = None if reason else case_crop(axial.array)
    if crop is None:
        return _not_applicable(model, volume, reason or "no bone was found in this series")
    hu = crop.cut(torch.from_numpy(axial.array), manifest["input"]["size"])
    prepared = time.perf_counter()
    views = [features(model.nets.slices, hu, flip=flip) for flip in (False, True)]
    distance, limit = model.gate.distance(novelty.case_features(views[0])), manifest["novelty"]["threshold"]
    if reason := novelty.refuse(distance, limit):
        return _not_applicable(model, volume, reason)
    scores = model.nets.score_features(views)
    sliced = time.perf_counter()
    answers = _answers(model, volume, axial, scores)
    scored = time.perf_counter()
    shown: list[tuple[Shown, Answer]] = []
    heat = None
    if answers.case >= answers.threshold:
        scene = fracture_regions.Scene(axial.array, hu, crop, volume.spacing[1], volume.voxel_mm3)
        shown = _shown_levels(model, scene, answers) if answers.levels else _shown_slices(model, scene, answers)
        heat = np.flip(scene.heat, axial.flipped)
    timings = {
        "preprocess": prepared - start,
        "slices": sliced - prepared,
        "vertebrae": scored - sliced,
        "explain": time.perf_counter() - scored,
    }
    remarks = (
        *volume.quality,
        *input_limits.outside(volume, manifest["input"]),
        *content.complaints(measured, manifest["content"]),
        *novelty.complaints(distance, limit),
        *answers.found.notes,
        *(() if answers.levels or model.levels is None else (SLICES_ALONE,)),
        *indeterminate(answers.case, answers.zone),
    )
    return replace(_analysis(model, volume, answers, shown, remarks, timings), heat_map=heat)


def _answers(model: _Model, volume: Volume, axial: Oriented, scores: Scores) -> _Answers:
    """Slices and case, then vertebrae, then both together."""
    fitted = model.manifests["model"]["calibration"]
    probabilities = calibrate(scores, fitted)
    alone = _Answers(
        axial=axial,
        probabilities=probabilities,
        found=Vertebrae(named={}, notes=(NO_MODEL,)),
        levels={},
        case=probabilities.case,
        threshold=model.points["model"]["threshold"],
        zone=fitted["indeterminate"],
    )
    if model.unet is None:
        return alone
    found = vertebrae.locate(model.unet, axial.array, volume.spacing, model.manifests["vertebrae"]["input"]["mm"])
    named = replace(alone, found=found)
    if model.levels is None or not found.named:
        return named
    fitted = model.manifests["levels"]["calibration"]
    raw = cervical_ct.level_answers(model.levels, axial.array, found, volume.spacing, scores.slices.numpy())
    logits = {level: cervical_ct.vertebra_logits(fitted["vertebra"], one) for level, one in raw.items()}
    highest = [float(both.mean()) for both in logits.values()]
    return replace(
        named,
        levels={level: _level_answer(raw[level], both) for level, both in logits.items()},
        case=float(expit(cervical_ct.case_logit(fitted["case"], float(scores.case.mean()), highest))),
        threshold=model.points["levels"]["threshold"],
        zone=fitted["indeterminate"],
    )


def _level_answer(raw: np.ndarray, logits: np.ndarray) -> Answer:
    """Of (views, 2) answers and (views,) calibrated logits; raw is what the vertebra's own network says."""
    return Answer(float(expit(logits.mean())), float(expit(raw[:, 0].mean())), float(expit(logits).std()))


def _shown_levels(model: _Model, scene: fracture_regions.Scene, answers: _Answers) -> list[tuple[Shown, Answer]]:
    """One finding per suspicious vertebra, most probable first, never none."""
    ranked = sorted(answers.levels, key=lambda level: -answers.levels[level].probability)
    threshold = model.points["levels"]["level_threshold"]
    chosen = [level for level in ranked if answers.levels[level].probability >= threshold] or ranked[:1]
    slices = answers.probabilities.slices
    outlines = {level: answers.found.named[level] for level in chosen}
    # Slices above the slice threshold, and in each of these vertebrae at least the most suspicious one.
    looked_at = {int(n) for n in np.nonzero(slices >= model.points["model"]["slice_threshold"])[0]}
    for outline in outlines.values():
        first, last = outline.box[0].start, outline.box[0].stop
        looked_at.add(first + int(slices[first:last].argmax()))
    hot = fracture_regions.suspicious_places(model.nets.slices, scene, np.array(sorted(looked_at)), model.regions)
    found = []
    for number, level in enumerate(chosen[: model.regions.max_findings], start=1):
        region = fracture_regions.in_vertebra(hot, outlines[level].box, outlines[level].inside, slices)
        shown = Shown(region, answers.axial, number, FRACTURE, CODES[level], level)
        found.append((shown, answers.levels[level]))
    return found


def _shown_slices(model: _Model, scene: fracture_regions.Scene, answers: _Answers) -> list[tuple[Shown, Answer]]:
    """Where the slice network looks in the suspicious slices, with the vertebra in which that is."""
    scores = answers.probabilities
    suspicious = _suspicious(scores.slices, model.points["model"]["slice_threshold"])
    regions = fracture_regions.find(model.nets.slices, scene, suspicious, scores.slices, model.regions)
    shown = []
    for number, region in enumerate(regions, start=1):
        level = _level_of(region, answers.found)
        site = CERVICAL_SPINE if level is None else CODES[level]
        shown.append((Shown(region, answers.axial, number, FRACTURE, site, level), _slice_answer(scores, region)))
    return shown


def _level_of(region: Region, found: Vertebrae) -> str | None:
    """The cervical vertebra that holds most of a region, if any holds enough of it."""
    inside = {level: region.inside_of(one.box, one.inside) for level, one in found.named.items() if level in CODES}
    best = max(inside, key=lambda level: inside[level], default=None)
    return best if best is not None and inside[best] >= ENOUGH else None


def _slice_answer(scores: Probabilities, region: Region) -> Answer:
    key = region.key_slice
    return Answer(float(scores.slices[key]), float(scores.raw_slices[key]), float(scores.slice_spread[key]))


def _suspicious(slices: np.ndarray, threshold: float) -> np.ndarray:
    """Slices that are shown in a positive case, never none."""
    found = np.nonzero(slices >= threshold)[0]
    return found if len(found) else np.array([int(slices.argmax())])


def _analysis(
    model: _Model,
    volume: Volume,
    answers: _Answers,
    shown: list[tuple[Shown, Answer]],
    remarks: tuple[str, ...],
    timings: Mapping[str, float],
) -> Analysis:
    fractures = [one.mask(volume.array.shape) for one, _ in shown]
    return Analysis(
        pipeline=NAME,
        state="done",
        reason="",
        model=model.identity,
        target=FRACTURE,
        site=CERVICAL_SPINE,
        case_probability=answers.case,
        threshold=answers.threshold,
        slice_probabilities=tuple(float(p) for p in answers.axial.slices_back(answers.probabilities.slices)),
        level_probabilities={level: answer.probability for level, answer in answers.levels.items()},
        findings=tuple(one.finding(volume.voxel_mm3, answer) for one, answer in shown),
        masks=(*fractures, *_outlines(answers, volume, fractures)),
        quality=remarks,
        timings={**timings, "total": sum(timings.values())},
    )


def _outlines(answers: _Answers, volume: Volume, fractures: Sequence[Mask]) -> list[Mask]:
    """The named cervical vertebrae as segments, without what is a segment of its own already.

    Segments that overlap are legal, but viewers mix their colours, and OHIF 3.13 loses some of their slices.
    """
    masks = []
    taken = np.zeros(volume.array.shape, bool)
    for fracture in fractures:
        taken |= fracture.array
    for level in (level for level in CERVICAL if level in answers.found.named):
        one = answers.found.named[level]
        low, high = tuple(side.start for side in one.box), tuple(side.stop for side in one.box)
        box = ((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        array = fracture_regions.in_volume(box, one.inside, answers.axial, volume.array.shape)
        masks.append(Mask(label=level, array=array & ~taken, kind=CODES[level]))
    return masks


def _not_applicable(model: _Model, volume: Volume, reason: str) -> Analysis:
    return Analysis(
        pipeline=NAME,
        state="not_applicable",
        reason=reason,
        model=model.identity,
        target=FRACTURE,
        site=CERVICAL_SPINE,
        case_probability=None,
        threshold=model.points["model"]["threshold"],
        quality=volume.quality,
    )
