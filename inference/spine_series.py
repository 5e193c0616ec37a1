"""What the two MR pipelines have in common: one sagittal T2 series, judged, searched, named, and answered.

Read `see` and `search`: refuse what the model cannot read, find boxes in every slice, link them to objects, name the
levels.

Rules: the study is positive if its calibrated probability reaches the threshold. A negative one has no findings of the
target; a positive one has at least one, the surest. What is no target, such as a herniated disc beside an injured cord,
is reported from the threshold of its class on. Levels are named only where the anatomy confirms them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import (
    codes,
    disc_looks,
    geometry,
    novelty,
    spine_correction,
    spine_findings,
    spine_levels,
    spine_mr,
    spine_signals,
)
from inference.calibrated import indeterminate, platt
from inference.disc_measures import HERNIATION_MM, meyerding
from inference.findings import Analysis, Code, Finding, Mask, Measurement, ModelIdentity
from inference.linked_boxes import SliceBox
from inference.nets.resnet import ResNet
from inference.nets.unet import VertebraUNet
from inference.novelty import Novelty
from inference.pipeline import UnknownPipeline, identity_of, manifests
from inference.preprocess import content, input_limits, mr_content, orientation
from inference.preprocess.orientation import Oriented
from inference.spine_findings import DiscMeasures, Found
from inference.spine_levels import Outlines
from inference.spine_mr import SUBJECTS, Subject
from inference.spine_signals import COMPANIONS, Grid
from inference.volume import Volume

#: In config/codes.toml, what each class is called.
_KEYS = {
    "oedema": "edema",
    "haemorrhage": "hemorrhage",
    "mixed": "spinal_cord_injury",
    "herniation": "disc_herniation",
    "slip": "spondylolisthesis",
}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """From which on a box of each class counts, and a study, and what the surest box of a study means."""

    boxes: Mapping[str, float]
    study: float
    calibration: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Model:
    """Everything that does not depend on the volume."""

    task: str
    identity: ModelIdentity
    manifest: Mapping[str, Any]
    #: Without companions, and with each set of them: lesions are judged again by T1 and STIR. None where the model
    #: does not.
    alone: Decision
    corrected: Mapping[str, Decision]
    detector: torch.nn.Module
    #: The second look at discs, where the model has one.
    again: ResNet | None
    gate: Novelty
    levels: VertebraUNet
    levels_mm: float
    codes: Mapping[str, Code]

    @property
    def subject(self) -> Subject:
        return SUBJECTS[self.task]

    @property
    def region(self) -> Code:
        return self.codes[f"{self.subject.region}_spine"]


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What was found in a series, slices from right to left, head to feet, front to back."""

    #: "T2", and the companions that it was compared with.
    series: Mapping[str, Grid]
    found: Sequence[Found]
    outlines: Outlines
    #: (slices,) probability of the surest box of a target class.
    slices: np.ndarray
    #: Of the study, calibrated.
    case: float
    decision: Decision
    timings: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The same of a volume, with what a reader must know about it."""

    sagittal: Oriented
    searched: Searched
    remarks: tuple[str, ...]
    timings: Mapping[str, float]


def load(task: str, table: Mapping[str, Any], config_dir: Path, device: str) -> Model:
    """Load the networks that the table pins. Raises UnknownPipeline and UntrustedWeights."""
    read = manifests(table, config_dir)
    if "levels" not in read:
        raise UnknownPipeline(f"{task}: the table [levels] is missing")
    folder = {part: config_dir / table[part]["directory"] for part in read}
    manifest, output = read["model"], table.get("output", {})
    return Model(
        task=task,
        identity=identity_of(read),
        manifest=manifest,
        alone=_decision(task, manifest, output),
        corrected={
            name: _decision(task, answers, output)
            for name, answers in manifest.get("signals", {}).get("sets", {}).items()
        },
        detector=spine_mr.detector_net(folder["model"], manifest, device),
        again=disc_looks.look_net(folder["model"], manifest, device),
        gate=spine_mr.gate(folder["model"], manifest, device),
        levels=spine_levels.level_net(folder["levels"], read["levels"], device),
        levels_mm=read["levels"]["input"]["mm"],
        codes=codes.read(config_dir),
    )


def _decision(task: str, answers: Mapping[str, Any], output: Mapping[str, Any]) -> Decision:
    return Decision(
        boxes=_point(task, answers["operating_points"], output, "box_point")["thresholds"],
        study=_point(task, answers["case_points"], output, "operating_point")["threshold"],
        calibration=answers["calibration"],
    )


def _point(task: str, points: Sequence[Mapping[str, Any]], output: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    there = {point["name"]: point for point in points}
    if output.get(key) not in there:
        raise UnknownPipeline(f"{task}: [output] {key} {output.get(key)!r}: [model] has {', '.join(there)}")
    return there[output[key]]


def see(model: Model, volume: Volume, companions: Mapping[str, Volume]) -> Seen | str:
    """Everything that is found in a volume, or why the model cannot read it."""
    start = time.perf_counter()
    manifest = model.manifest
    if reason := input_limits.refuse(volume, manifest["input"]):
        return reason
    sagittal = orientation.sagittal(volume)
    look = spine_mr.look(model.detector, sagittal.array, sagittal.spacing, size=manifest["input"]["size"])
    distance, limit = model.gate.distance(look.features), manifest["novelty"]["threshold"]
    if reason := mr_content.refuse(look.content) or novelty.refuse(distance, limit):
        return reason
    judged = time.perf_counter()
    others, notes = _usable(model, companions)
    searched = search(model, {"T2": Grid(sagittal.array, sagittal.affine), **others})
    return Seen(
        sagittal=sagittal,
        searched=searched,
        remarks=(
            *volume.quality,
            *input_limits.outside(volume, manifest["input"]),
            *content.complaints(look.content, manifest["content"], mr_content.QUANTITIES),
            *novelty.complaints(distance, limit),
            *searched.outlines.remarks,
            *notes,
            *_missing(model, companions),
            *indeterminate(searched.case, searched.decision.calibration["indeterminate"]),
        ),
        timings={"gate": judged - start, **searched.timings, "total": time.perf_counter() - start},
    )


def search(model: Model, series: Mapping[str, Grid]) -> Searched:
    """Boxes, linked and named, in a sagittal T2 series, "T2", with its companions where there are any."""
    start = time.perf_counter()
    manifest, subject, values = model.manifest, model.subject, series["T2"].array
    step, row, column = geometry.spacing(series["T2"].affine)
    answers = disc_looks.look_again(
        model.again,
        values,
        (row, column),
        spine_mr.answers(
            model.detector, values, (row, column), size=manifest["input"]["size"], classes=subject.classes
        ),
        subject.classes,
    )
    boxes, decision = spine_findings.slice_boxes(answers, manifest["calibration"]["classes"]), model.alone
    if present := model.corrected.get(spine_signals.set_of(series)):
        boxes, decision = spine_correction.corrected(manifest["signals"], series, boxes), present
    found = spine_findings.objects(model.task, boxes, decision.boxes)
    detected = time.perf_counter()
    outlines = spine_levels.outline(model.levels, values, (step, row, column), model.levels_mm)
    return Searched(
        series=series,
        found=[replace(one, level=_level(one, outlines)) for one in found],
        outlines=outlines,
        slices=_by_slice(boxes, subject.target, len(values)),
        case=platt(spine_findings.probability(found, subject.target), decision.calibration["case"]),
        decision=decision,
        timings={"detect": detected - start, "levels": time.perf_counter() - detected},
    )


def _usable(model: Model, companions: Mapping[str, Volume]) -> tuple[dict[str, Grid], list[str]]:
    """The series that T2 may be compared with, and why not the others: a ruined one would take lesions back."""
    usable, notes = {}, []
    for name, volume in companions.items() if model.corrected else ():
        turned = orientation.sagittal(volume)
        measured = mr_content.measure(turned.array, turned.spacing)
        limits = model.manifest["signals"]["content"].get(name, {})
        objections = [mr_content.refuse(measured), *content.complaints(measured, limits, mr_content.QUANTITIES)]
        if reason := next(filter(None, objections), ""):
            notes.append(f"lesions are not compared with the {name} series: {reason}")
        else:
            usable[name] = Grid(volume.array, volume.affine)
    return usable, notes


def _missing(model: Model, companions: Mapping[str, Volume]) -> list[str]:
    """What could not be compared."""
    missing = [name for name in COMPANIONS if name not in companions] if model.corrected else []
    return [f"no sagittal {' and no '.join(missing)} series: lesions are not compared with it"] if missing else []


def _level(found: Found, outlines: Outlines) -> str | None:
    """The vertebra behind which a lesion lies; a herniated disc has its own name."""
    if found.label in spine_mr.LESIONS:
        return outlines.vertebra_behind(found.key)
    return outlines.disc(found.linked.boxes)


def _doubts(model: Model, seen: Seen) -> Iterator[str]:
    """Where what was measured does, or does not, bear out what was found."""
    for number, one in enumerate(reported(model, seen.searched), start=1):
        name = f"{one.label}-{number}"
        described = spine_correction.as_described(seen.searched.series, one)
        if described is not None:
            said = "as" if described else "NOT as"
            yield f"{name}: T1 and T2 show it {said} table 2 of Shao et al. 2024 describes it"
        measures = _measured(seen.searched, one)
        if measures is None:
            continue
        if one.label == "slip" and not meyerding(measures.slip_percent):
            yield f"{name}: seen in the image, but the outlines measure {measures.slip_percent:.0f} % only"
        if one.label == "herniation" and (doubt := _doubt(measures.herniation_mm)):
            yield f"{name}: {doubt}"


def _doubt(reach: float | None) -> str:
    """What the measured reach of a herniation in mm says against it; empty if nothing."""
    if reach is None:
        return "its reach is not measured: it does not part from what lies behind it"
    seen = f"seen in the image, but nothing dark that begins at the disc reaches further back than {reach:.1f} mm"
    return "" if reach >= HERNIATION_MM else seen


def _by_slice(boxes: Sequence[SliceBox], target: Sequence[str], count: int) -> np.ndarray:
    highest = np.zeros(count)
    for box in boxes:
        if box.label in target:
            highest[box.slice] = max(highest[box.slice], box.probability)
    return highest


def reported(model: Model, searched: Searched) -> list[Found]:
    """The findings of the answer, surest first; a normal disc is none."""
    decision = searched.decision
    sure = [one for one in searched.found if one.probability >= decision.boxes[one.label]]
    targets = [one for one in searched.found if one.label in model.subject.target]
    positive = searched.case >= decision.study
    shown = ([one for one in sure if one in targets] or targets[:1]) if positive else []
    return [*shown, *(one for one in sure if one.label in _KEYS and one not in targets)]


def answer(model: Model, volume: Volume, seen: Seen, *, levels: Mapping[str, float], group: str) -> Analysis:
    """Findings with their measures, and the outlines of the named levels as segments."""
    searched = seen.searched
    return Analysis(
        pipeline=model.task,
        state="done",
        reason="",
        model=model.identity,
        target=model.codes[model.subject.question],
        site=model.region,
        case_probability=searched.case,
        threshold=searched.decision.study,
        slice_probabilities=tuple(float(p) for p in seen.sagittal.slices_back(searched.slices)),
        level_probabilities=levels,
        group=group,
        findings=tuple(_finding(model, seen, one, n) for n, one in enumerate(reported(model, searched), start=1)),
        masks=tuple(_segments(model, seen)),
        quality=(*seen.remarks, *_doubts(model, seen)),
        timings=seen.timings,
    )


def not_applicable(model: Model, volume: Volume, reason: str) -> Analysis:
    """The answer where the model cannot read the series."""
    return Analysis(
        pipeline=model.task,
        state="not_applicable",
        reason=reason,
        model=model.identity,
        target=model.codes[model.subject.question],
        site=model.region,
        case_probability=None,
        threshold=model.alone.study,
        quality=volume.quality,
    )


def _finding(model: Model, seen: Seen, one: Found, number: int) -> Finding:
    low, high = seen.sagittal.box_back(one.shown.extent(seen.sagittal.array.shape))
    key = np.zeros(len(seen.sagittal.array), bool)
    key[one.key.slice] = True
    lesion = one.label in spine_mr.LESIONS
    return Finding(
        tracking_id=f"{one.label}-{number}",
        code=model.codes[_KEYS[one.label]],
        site=model.codes["spinal_cord"] if lesion else _site(model, one.level),
        level=one.level,
        probability=one.probability,
        raw_probability=one.key.raw,
        uncertainty=None,
        box=(low, high),
        key_slice=int(seen.sagittal.slices_back(key).argmax()),
        measurements=tuple(_measurements(model, seen, one)),
    )


def _measurements(model: Model, seen: Seen, one: Found) -> Iterator[Measurement]:
    """Head to feet of a lesion where it is longest; the slip of a disc, which a herniated one may have too.

    The reach of a herniation only: of any other disc it would be that of the dark ligament.
    """
    if one.label in spine_mr.LESIONS:
        length = max(box.edges[3] - box.edges[1] for box in one.shown.boxes) * seen.sagittal.spacing[1]
        yield Measurement(name=model.codes["length"], value=round(length, 1), unit="mm")
        return
    if measures := _measured(seen.searched, one):
        percent = round(measures.slip_percent, 1)
        if one.label == "herniation" and measures.herniation_mm is not None:
            yield Measurement(name=model.codes["herniation_depth"], value=round(measures.herniation_mm, 1), unit="mm")
        yield Measurement(name=model.codes["slip"], value=round(measures.slip_mm, 1), unit="mm")
        yield Measurement(name=model.codes["slip_share"], value=percent, unit="%")
        yield Measurement(name=model.codes["meyerding"], value=meyerding(percent), unit="1")


def _measured(searched: Searched, one: Found) -> DiscMeasures | None:
    """Of a disc with a name, between two outlined vertebrae."""
    if one.level is None or "/" not in one.level:
        return None
    slices = {box.slice for box in one.shown.boxes}
    return spine_findings.measures(searched.outlines, searched.series["T2"].array, one.level, slices)


def _segments(model: Model, seen: Seen) -> Iterator[Mask]:
    for level in seen.searched.outlines.named:
        array = np.ascontiguousarray(seen.sagittal.array_back(seen.searched.outlines.mask(level)))
        yield Mask(label=level, array=array, kind=_site(model, level))


def _site(model: Model, level: str | None) -> Code:
    """A vertebra or disc by its name, or else the region."""
    if level is None:
        return model.region
    return model.codes[f"disc_{level.replace('/', '_')}" if "/" in level else level]
