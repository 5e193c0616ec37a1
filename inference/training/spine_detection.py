"""Trains the detectors of papers 000 and 002 (injuries of the cord) and 004 (lumbar discs), from studies to card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from inference.datasets.labelled import UnusableData
from inference.datasets.mr_store import Study
from inference.datasets.spine_images import ImageSettings, gather, marked
from inference.evaluation import second_look, spine_correction
from inference.evaluation import spine_detection as evaluation
from inference.evaluation.detection import Image
from inference.nets.resnet import ResNet
from inference.spine_mr import CORD_INJURY, LUMBAR_DISC, SUBJECTS, Look, Subject
from inference.training import detection_thresholds, disc_looks, spine_gate, spine_learning
from inference.training.detection import DetectionSettings
from inference.training.disc_looks import LookSettings
from inference.training.job import PHANTOMS_ONLY, Job, licence, round_to_half
from inference.training.loop import History
from inference.training.spine_learning import Learned, MethodSettings

#: Parts of the data, and their shares when one data set is divided.
PARTS = {"train": 0.6, "gate": 0.15, "validation": 0.1, "test": 0.15}
VERSION = "0.2.0"
TITLES = {
    CORD_INJURY: "Oedema, haemorrhage and mixed injuries of the cervical cord, and herniated discs, on sagittal T2 MR",
    LUMBAR_DISC: "Normal and herniated lumbar discs and slipped vertebrae, on sagittal T2 MR",
}
BODY_PARTS = {"cervical": "CSPINE", "lumbar": "LSPINE"}

T = TypeVar("T")
#: Studies, and of each the images.
Scored = tuple[Sequence[Study], Sequence[Sequence[Image]]]


def train(job: Job) -> Path:
    """Train the detector and write weights, manifest, curves and model card; return their folder."""
    start = time.monotonic()
    task = job.task.removesuffix("-full")
    subject = SUBJECTS[task]
    images, settings = ImageSettings(**job.settings["images"]), DetectionSettings(**job.settings["detection"])
    studies = {part: _of(subject, found) for part, found in job.studies(PARTS).items()}
    # The test is checked before the hours of training, too.
    gathered = {part: gather(found, subject, images) for part, found in studies.items() if part != "gate"}
    for part in ("gate", "validation", "test"):
        spine_gate.require(part, studies[part])
    learned = spine_learning.learn(
        gathered["train"], gathered["validation"], settings, MethodSettings(**job.settings["method"]),
        folder=job.out, device=job.device, progress=job.progress,
    )  # fmt: skip
    round_to_half(learned.net)
    again, look, curves = _second_look(job, studies, subject)

    def score(part: str, again: ResNet | None = again) -> list[list[Image]]:
        look = partial(evaluation.score, learned.net, task=task, size=images.size, again=again)
        return _each(studies[part], look, job.progress)

    def looks(some: Sequence[Study]) -> list[list[Look]]:
        return _each(some, partial(evaluation.looks, learned.net, size=images.size), job.progress)

    validation = score("validation")
    classes = detection_thresholds.calibrate([image for study in validation for image in study], subject.classes)
    calibrated = [evaluation.calibrated(study, classes) for study in validation]
    gate, limits = spine_gate.fit(
        *(list(chain.from_iterable(looks(spine_gate.included(studies[part])))) for part in ("gate", "validation"))
    )
    headers = spine_gate.header_limits([*studies["train"], *studies["gate"]], synthetic=job.data is None)
    manifest = {
        **_manifest(task, images, learned, headers, look, synthetic=job.data is None),
        **limits,
        "licence": licence(studies),
        **_decide(calibrated, subject),
    }
    manifest["calibration"] |= {"classes": classes, "dtype": "float32"}
    if task == CORD_INJURY:
        apart = [evaluation.calibrated(study, classes) for study in score("gate")]
        manifest |= _correction((studies["gate"], apart), (studies["validation"], calibrated), subject, job.progress)
    if "signals" not in manifest:
        manifest["limitations"].append("T1 and fat-suppressed T2 are not looked at.")
    tested = score("test")
    manifest["metrics"] = spine_correction.measure(task, studies["test"], tested, manifest) | {
        "within_range": evaluation.within_range(studies["test"], looks(studies["test"]), gate, manifest)
    }
    measured = spine_correction.metric_lines(manifest["metrics"])
    if again is not None:
        manifest["metrics"]["second_look"] = second_look.measure(task, score("test", None), tested)
        measured += ["", *second_look.lines(manifest["metrics"]["second_look"])]
    manifest["references"] = [_reference(studies["test"], tested)]
    return job.write(
        manifest,
        {"detector": learned.net, **({} if again is None else {"look": again}), "novelty": gate},
        {**learned.curves, **curves},
        measured=measured,
        seconds=time.monotonic() - start,
    )


def _second_look(
    job: Job, studies: Mapping[str, Sequence[Study]], subject: Subject
) -> tuple[ResNet | None, dict[str, Any], Mapping[str, History]]:
    """The classifier of the table [look], rounded, its part of `networks` and its curves; nothing without a table."""
    if "look" not in job.settings:
        return None, {}, {}
    found = {part: disc_looks.discs(studies[part], subject.classes) for part in ("train", "validation")}
    settings = LookSettings(**job.settings["look"])
    net, history = disc_looks.train(
        found["train"],
        found["validation"],
        subject.classes,
        settings,
        folder=job.out,
        device=job.device,
        progress=job.progress,
    )
    round_to_half(net)
    arguments = disc_looks.arguments(settings, subject.classes)
    return net, {"look": {"architecture": "resnet50", "arguments": arguments}}, {"look": history}


def _correction(
    unseen: Scored, validation: Scored, subject: Subject, progress: Callable[[str], None]
) -> dict[str, Any]:
    """The part `signals` of the manifest, from studies from which the detector did not learn; both calibrated."""
    try:
        signals = spine_correction.fit(*unseen)
    except UnusableData as error:  # many data sets have T2 alone, and the detector serves without
        progress(f"lesions will not be compared with T1 and STIR: {error}")
        return {}
    sets = {}
    for present in spine_correction.sets(validation[0]):
        corrected = [spine_correction.correct(signals, *pair, present) for pair in zip(*validation, strict=True)]
        sets[present] = _decide(corrected, subject)
    content = spine_gate.companions([*unseen[0], *validation[0]])
    return {"signals": {**signals, "sets": sets, "content": content}}


def _decide(studies: Sequence[Sequence[Image]], subject: Subject) -> dict[str, Any]:
    """What the surest box of a study means, and from which on studies and boxes count; from calibrated images."""
    highest, truth = evaluation.cases(studies, subject.target)
    case, case_points, zone = detection_thresholds.calibrate_cases(highest, truth)
    images = [image for study in studies for image in study]
    return {
        "calibration": {
            "case": case,
            "indeterminate": zone,
            "fitted_on": f"{len(images)} slices of {len(studies)} validation studies",
        },
        "operating_points": [asdict(point) for point in detection_thresholds.points(images, subject.classes)],
        "case_points": [asdict(point) for point in case_points],
    }


def _each(studies: Sequence[Study], look: Callable[[Study], T], progress: Callable[[str], None]) -> list[T]:
    found = []
    for number, study in enumerate(studies, start=1):
        found.append(look(study))
        if number % 20 == 0:
            progress(f"looked at {number} of {len(studies)} studies, up to {study.name}")
    return found


def _of(subject: Subject, studies: list[Study]) -> list[Study]:
    """The studies of the region in which somebody has read a sagittal T2 slice."""
    return [study for study in studies if study.region == subject.region and marked(study)]


def _reference(studies: list[Study], scored: list[list[Image]]) -> dict[str, Any]:
    """The surest box of each slice of the first test study: what a smoke test repeats."""
    surest = [round(float(image.scores.max(initial=0)), 4) for image in scored[0]]
    return {"case": studies[0].name, "surest": surest}


def _manifest(
    task: str,
    images: ImageSettings,
    learned: Learned,
    headers: Mapping[str, Any],
    look: Mapping[str, Any],
    *,
    synthetic: bool,
) -> dict[str, Any]:
    subject = SUBJECTS[task]
    looked = ", a ResNet-50 on a crop of every disc" if look else ""
    seen = "Discs are looked for in every slice by itself, and seen with a slice on each side" if look else ""
    return {
        "id": task,
        "version": VERSION,
        "task": TITLES[task],
        "algorithm": f"{learned.name} on single slices{looked}; probabilities by Platt scaling of each class",
        "networks": {"detector": {"architecture": learned.name, "arguments": dict(learned.arguments)}, **look},
        "input": {
            "modality": "MR",
            "body_part": BODY_PARTS[subject.region],
            "plane": "sagittal",
            "sequence": "T2",
            "size": list(images.size),
            **headers,
        },
        "output": {"classes": list(subject.classes), "unit": "boxes in pixels of the slice"},
        "uncertainty": "calibrated probability of each box",
        "limitations": [
            *([PHANTOMS_ONLY] if synthetic else []),
            f"{seen or 'Every slice is looked at by itself'}; axial images are not used.",
            "Knows its classes only: tumours, infections, fractures and implants are none of them.",
        ],
    }
