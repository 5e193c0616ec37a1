"""The result files of the protocols of papers 000, 002 and 004: JSON, Markdown, and curves as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inference.datasets.spine_images import SpineImages
from inference.evaluation import detection, detection_report, detection_tables, groups, plots, spine_networks
from inference.evaluation.detection import Image
from inference.evaluation.detection_tables import Method
from inference.evaluation.markdown_tables import plain
from inference.evaluation.protocol import Request
from inference.evaluation.spine_networks import Answers
from inference.training import detection_thresholds
from inference.training.parts import several

if TYPE_CHECKING:
    from inference.evaluation import ppyolov2_lumbar as lumbar
    from inference.evaluation import shao2024 as cervical

PHANTOMS = "The papers' images are of patients; these are phantoms, unless `--data` names another data set."


def shao2024(
    request: Request,
    settings: cervical.Settings,
    parts: Mapping[str, SpineImages],
    answers: Mapping[str, Answers],
    speed: tuple[Sequence[Method], str],
) -> list[Path]:
    """Tables 6 and 7 of paper 000 and the groups of paper 002; `speed` are the methods, and on which machine."""
    classes, test = parts["test"].classes, parts["test"]
    thresholds = {name: _thresholds([one], [parts["validation"]]) for name, one in answers.items()}
    found = {name: spine_networks.images(one["test"], test) for name, one in answers.items()}
    measured = {
        name: detection_report.measure(some, classes, threshold=thresholds[name]) for name, some in found.items()
    }
    first, *others = found
    grouped = {name: groups.measure(some, thresholds[name]) for name, some in found.items()}
    document = {
        **_origin(request, settings, settings.data),
        "slices": {part: len(some) for part, some in parts.items()},
        "networks": measured,
        "compared_with_the_first": {
            name: detection_report.compare(found[first], found[name], classes) for name in others
        },
        "groups": grouped,
        "seconds": {name: one["seconds"] for name, one in answers.items()},
        "speed": {method.name: list(method.seconds) for method in speed[0]},
        "machine": speed[1],
    }
    text = [
        "# Papers 000 and 002: injuries of the cord on sagittal MR",
        _introduction(document),
        "## Table 6 of paper 000: speed",
        detection_tables.speed(speed[0], machine=speed[1]),
        "## Table 7 of paper 000: networks",
        detection_tables.backbones(measured, document["seconds"]),
        f"mAP@0.5 of {first} less that of the other, and p of a permutation test over patients: "
        + _differences(document["compared_with_the_first"]),
    ]
    for name in found:
        text += [f"## {name}", *_joined(detection_report.lines(measured[name])), *_joined(groups.lines(grouped[name]))]
    return _write(request, document, text, found, classes)


def ppyolov2_lumbar(
    request: Request,
    settings: lumbar.Settings,
    parts: Sequence[Mapping[str, SpineImages]],
    answers: Mapping[str, Sequence[Answers]],
    folds_sha256: str,
) -> list[Path]:
    """Table 1 of paper 004 and its average precisions by class; `parts` and `answers` by fold."""
    classes = parts[0]["test"].classes
    found = {
        name: [spine_networks.images(one["test"], part["test"]) for one, part in zip(each, parts, strict=True)]
        for name, each in answers.items()
    }
    together = {name: [image for fold in each for image in fold] for name, each in found.items()}
    thresholds = {name: _thresholds(each, [part["validation"] for part in parts]) for name, each in answers.items()}
    measure = detection_report.measure
    pooled = {name: measure(images, classes, threshold=thresholds[name]) for name, images in together.items()}
    folds = {
        name: [measure(images, classes, threshold=thresholds[name]) for images in each] for name, each in found.items()
    }
    last = list(together)[-1]
    document = {
        **_origin(request, settings, settings.data),
        "folds_sha256": folds_sha256,
        "folds": folds,
        "pooled": pooled,
        "compared_with_the_last": {
            name: detection_report.compare(together[last], images, classes)
            for name, images in together.items()
            if name != last
        },
        "seconds": {name: [s for one in each for s in one["seconds"]] for name, each in answers.items()},
        "weights": {name: each[0]["weights"] for name, each in answers.items()},
    }
    text = [
        "# Paper 004: discs on sagittal lumbar MR",
        _introduction(document),
        "## Table 1 of paper 004",
        detection_tables.models(folds, pooled),
        f"mAP@0.5 of {last} less that of the other, all folds together, and p of a permutation test over patients: "
        + _differences(document["compared_with_the_last"]),
    ]
    for name in together:
        text += [f"## {name}, all folds together", *_joined(detection_report.lines(pooled[name]))]
    return _write(request, document, text, together, classes)


def _thresholds(answers: Sequence[Answers], parts: Sequence[SpineImages]) -> Mapping[str, float]:
    """The scores with the largest F1 of each class on the validation images."""
    images = [
        image
        for one, part in zip(answers, parts, strict=True)
        for image in spine_networks.images(one["validation"], part)
    ]
    return detection_thresholds.points(images, parts[0].classes)[0].thresholds


def _origin(request: Request, settings: Any, data: str | Sequence[str]) -> dict[str, Any]:
    return {
        "protocol": request.name,
        "command": f"dicomnode evaluate {request.name}" + (f" --data {request.data}" if request.data else ""),
        "data": ", ".join(several(data)),
        "settings": asdict(settings),
        "torch": torch.__version__,
    }


def _introduction(document: Mapping[str, Any]) -> str:
    return f"Made by `{document['command']}` on {document['data']}. {PHANTOMS}"


def _differences(compared: Mapping[str, Mapping[str, float | None]]) -> str:
    shown = [
        f"{name} {one['map50_difference']:+.3f} (p = {one['p']:.3f})"
        for name, one in compared.items()
        if one["map50_difference"] is not None
    ]
    return ("; ".join(shown) or "not defined") + "."


def _joined(lines: Sequence[str]) -> list[str]:
    """Lines as one block."""
    return ["\n".join(lines)]


def _write(
    request: Request,
    document: Mapping[str, Any],
    text: Sequence[str],
    found: Mapping[str, Sequence[Image]],
    classes: Sequence[str],
) -> list[Path]:
    request.out.mkdir(parents=True, exist_ok=True)
    numbers, table = request.out / f"{request.name}.json", request.out / f"{request.name}.md"
    numbers.write_text(json.dumps(plain(document), indent=2) + "\n")
    rows = {name: detection.outcomes(images, classes, detection_report.OVERLAP) for name, images in found.items()}
    pictures = []
    for label in classes:
        position = list(classes).index(label)
        of_class = {name: outcomes.of_class(position) for name, outcomes in rows.items()}
        figure = plots.detections(of_class, title=f"{request.name}: {label}")
        pictures.append(plots.save(figure, request.out / f"{request.name}-{label}-precision-recall.png"))
    shown = [f"![{path.stem}]({path.name})" for path in pictures]
    table.write_text("\n\n".join([*(block.strip() for block in text), *shown]) + "\n")
    return [numbers, table, *pictures]
