"""Evaluation of the models that the cervical CT pipeline pins, on cases they never saw."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference import cervical_ct, pipeline
from inference.cervical_ct import NAME
from inference.datasets.store import Case, prepare
from inference.evaluation import fracture, levels, vertebrae


@dataclass(frozen=True)
class Subject:
    """A model, and how it is measured."""

    manifest: Mapping[str, Any]
    score: Callable[[Case], Any]
    measure: Callable[[Sequence[Any], Sequence[Case]], dict[str, Any]]
    lines: Callable[[Mapping[str, Any]], list[str]]


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
    cases = prepare(test, cache=cache, progress=progress)
    scored = []
    for number, case in enumerate(cases, start=1):
        scored.append(subject.score(case))
        if number % 20 == 0:
            progress(f"scored {number} of {len(cases)} cases")
    metrics = subject.measure(scored, cases)
    command = f"dicomnode evaluate {task}" + (f" --data {data}" if data else "")
    origin = {"command": command, "model_sha256": subject.manifest["sha256"], "data": test}
    text = [
        f"# {task}: {test}",
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


SUBJECTS = {
    "cervical-ct-fracture": _fracture,
    "cervical-ct-vertebrae": _vertebrae,
    "cervical-ct-levels": _levels,
}
