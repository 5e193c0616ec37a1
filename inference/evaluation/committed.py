"""Evaluation of the models that pipelines pin, on cases they never saw."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference import cervical_ct, pipeline, spine_levels, spine_mr, spine_series
from inference.cervical_ct import NAME
from inference.datasets import store
from inference.datasets.labelled import UnusableData
from inference.datasets.mr_store import Study, prepare_mr
from inference.datasets.outlined_mr import outlined
from inference.datasets.store import Case
from inference.evaluation import (
    fracture,
    levels,
    second_look,
    spine_correction,
    spine_detection,
    spine_findings,
    vertebrae,
)
from inference.evaluation.detection import Image
from inference.nets.resnet import ResNet
from inference.spine_levels import ANATOMY
from inference.training.parts import Prepare, several


@dataclass(frozen=True)
class Subject:
    """A model, and how it is measured."""

    manifest: Mapping[str, Any]
    #: Of one case: a CT, or a study of MR.
    score: Callable[[Any], Any]
    measure: Callable[[Sequence[Any], Sequence[Any]], dict[str, Any]]
    lines: Callable[[Mapping[str, Any]], list[str]]
    prepare: Prepare[Any] = store.prepare


def evaluate(  # noqa: PLR0913 - the options of `dicomnode evaluate`, named
    task: str,
    *,
    config_dir: Path,
    out: Path,
    data: str | None,
    cache: Path,
    device: str,
    progress: Callable[[str], None],
) -> list[Path]:
    """Measure the pinned model of a task; write JSON and Markdown into `out` and return both paths."""
    subject = SUBJECTS[task](config_dir, device, progress)
    test = data or subject.manifest["training"]["settings"]["data"]["test"]
    cases = [case for text in several(test) for case in subject.prepare(text, cache=cache, progress=progress)]
    scored = []
    for number, case in enumerate(cases, start=1):
        scored.append(subject.score(case))
        if number % 20 == 0:
            progress(f"scored {number} of {len(cases)} cases")
    metrics = subject.measure(scored, cases)
    command = f"dicomnode evaluate {task}" + (f" --data {data}" if data else "")
    origin = {"command": command, "model_sha256": subject.manifest["sha256"], "data": test}
    text = [
        f"# {task}: {', '.join(several(test))}",
        "",
        f"Made by `{command}`. Model {subject.manifest['version']}, weights SHA-256 `{subject.manifest['sha256']}`. "
        f"{subject.manifest['notice']}",
        "",
        *subject.lines(metrics),
    ]
    name = f"{task}-{re.sub('[^a-z0-9]+', '-', data.lower()).strip('-')}" if data else task
    out.mkdir(parents=True, exist_ok=True)
    document, table = out / f"{name}.json", out / f"{name}.md"
    document.write_text(json.dumps({**origin, **metrics}, indent=2) + "\n")
    table.write_text("\n".join(text) + "\n")
    return [document, table]


def _fracture(config_dir: Path, device: str, progress: Callable[[str], None]) -> Subject:
    folder, manifest = pipeline.pinned(NAME, config_dir, "model")
    nets, gate = cervical_ct.fracture_nets(folder, manifest, device), cervical_ct.gate(folder, manifest, device)
    size = manifest["input"]["size"]

    def measure(scored: Sequence[fracture.ScoredCase], cases: Sequence[Case]) -> dict[str, Any]:
        found = fracture.measure(scored, manifest["calibration"], manifest["operating_points"])
        return found | {
            "grad_cam": fracture.pointing_game(nets, cases, size, progress),
            "within_range": fracture.within_range(scored, gate, manifest),
        }

    return Subject(manifest, lambda case: fracture.score(nets, case, size), measure, fracture.metric_lines)


def _vertebrae(config_dir: Path, device: str, _: Callable[[str], None]) -> Subject:
    folder, manifest = pipeline.pinned(NAME, config_dir, "vertebrae")
    net, mm = cervical_ct.vertebra_net(folder, manifest, device), manifest["input"]["mm"]
    return Subject(
        manifest,
        lambda case: vertebrae.score(net, case, mm),
        lambda scored, _: vertebrae.measure(scored),
        vertebrae.metric_lines,
    )


def _levels(config_dir: Path, device: str, _: Callable[[str], None]) -> Subject:
    folder, manifest = pipeline.pinned(NAME, config_dir, "levels")
    net, first = cervical_ct.level_net(folder, manifest, device), levels.before(config_dir, device)
    return Subject(
        manifest,
        lambda case: levels.score(first, net, case),
        lambda scored, _: levels.measure(scored, manifest["calibration"], manifest["operating_points"]),
        levels.metric_lines,
    )


def _detection(task: str) -> Callable[[Path, str, Callable[[str], None]], Subject]:
    def subject(config_dir: Path, device: str, _: Callable[[str], None]) -> Subject:
        model = spine_series.load(task, pipeline.read_table(task, config_dir), config_dir, device)
        manifest, net, gate = model.manifest, model.detector, model.gate
        size = manifest["input"]["size"]

        def score(study: Study, again: ResNet | None = model.again) -> list[Image]:
            return spine_detection.score(net, study, task=task, size=size, again=again)

        def measure(scored: Sequence[Any], studies: Sequence[Study]) -> dict[str, Any]:
            found = spine_correction.measure(task, studies, scored, manifest)
            mine = [study for study in studies if study.region == spine_mr.SUBJECTS[task].region]
            looks = [spine_detection.looks(net, study, size=size) for study in mine]
            judged = [one for study in mine for one in spine_findings.judge(model, study)]
            if model.again is not None:
                alone = [score(study, None) for study in studies]
                found |= {"second_look": second_look.measure(task, alone, scored)}
            return found | {
                "within_range": spine_detection.within_range(mine, looks, gate, manifest),
                "findings": spine_findings.measure(judged),
            }

        return Subject(
            manifest,
            score,
            measure,
            lambda found: [
                *spine_correction.metric_lines(found),
                *(["", *second_look.lines(found["second_look"])] if "second_look" in found else []),
                "",
                *spine_findings.lines(found["findings"]),
            ],
            prepare_mr,
        )

    return subject


def _spine_levels(config_dir: Path, device: str, _: Callable[[str], None]) -> Subject:
    """Pinned by the pipeline of the lumbar discs; that of the cord has the same model."""
    folder, manifest = pipeline.pinned(spine_mr.LUMBAR_DISC, config_dir, "levels")
    net, mm = spine_levels.level_net(folder, manifest, device), manifest["input"]["mm"]

    def measure(scored: Sequence[list[Any]], studies: Sequence[Study]) -> dict[str, Any]:
        if not any(scored):
            raise UnusableData(f"none of the {len(scored)} studies has a sagittal T2 series with outlined vertebrae")
        each = [one for study in scored for one in study]
        odd = vertebrae.unusual(each, [one.is_unusual for one in outlined(studies)])
        return vertebrae.measure(each, ANATOMY) | {"unusual": odd}

    return Subject(
        manifest,
        lambda study: [vertebrae.score(net, one, mm, ANATOMY) for one in outlined([study])],
        measure,
        vertebrae.metric_lines,
        prepare_mr,
    )


SUBJECTS = {
    "cervical-ct-fracture": _fracture,
    "cervical-ct-vertebrae": _vertebrae,
    "cervical-ct-levels": _levels,
    **{task: _detection(task) for task in spine_mr.SUBJECTS},
    spine_levels.NAME: _spine_levels,
}
