"""The result files of the paper 003 protocol: JSON for programs, Markdown and PNG for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.datasets.store import Case
from inference.evaluation import paper_tables, plots
from inference.evaluation.markdown_tables import estimate
from inference.evaluation.paper_tables import Fold, Level, Row
from inference.evaluation.protocol import Request
from inference.evaluation.salehinejad2021 import (
    ANY_POSITIVE_SLICE,
    CASE_CROP,
    SHUFFLED,
    SLICE_CROP,
    Answers,
    Settings,
)

LEVELS: tuple[Level, ...] = ("image", "case")
#: arXiv 2010.13336, tables 2 and 3: table, split, positive / negative in each fold, row, and in percent the paper's
#: TPR, TNR, PPV, NPV, F1, Acc, MCC and AUC.
PAPER = (
    ("2", "imbalanced", "2909 / 164349", "ResNet-50",
     "77.21±4.1 80.06±3.0 6.47±0.6 99.50±0.1 11.92±1.0 80.01±2.9 18.47±1.0 78.63±1.2"),
    ("2", "balanced", "2909 / 2909", "ResNet-50",
     "77.21±4.1 77.62±2.7 13.78±1.0 98.67±0.2 23.35±1.3 77.61±2.5 26.11±1.0 77.42±1.1"),
    ("3", "imbalanced", "104 / 419", "BLSTM-96",
     "64.19±5.7 78.67±6.6 43.62±6.3 89.83±1.5 51.66±5.5 75.79±5.2 37.84±7.6 71.43±3.9"),
    ("3", "imbalanced", "104 / 419", "BLSTM-128",
     "62.28±6.0 80.84±2.9 44.83±4.8 89.62±1.6 52.06±4.9 77.15±2.9 38.54±6.7 71.56±3.7"),
    ("3", "imbalanced", "104 / 419", "BLSTM-256",
     "59.01±5.7 84.12±4.9 48.54±6.7 89.34±1.5 52.92±4.6 79.18±3.8 40.36±6.5 71.57±3.1"),
    ("3", "balanced", "104 / 104", "BLSTM-96",
     "64.19±5.7 77.11±7.3 74.14±5.4 68.36±3.1 68.58±3.8 70.65±3.5 41.90±7.1 70.65±3.5"),
    ("3", "balanced", "104 / 104", "BLSTM-128",
     "62.28±6.0 79.84±3.1 75.55±3.0 68.06±3.5 68.17±4.2 71.06±3.1 42.86±5.9 71.06±3.1"),
    ("3", "balanced", "104 / 104", "BLSTM-256",
     "57.75±4.9 84.09±5.3 78.87±4.9 66.63±1.8 66.44±2.8 70.92±1.9 43.62±4.3 70.92±1.9"),
)  # fmt: skip


def write(
    request: Request,
    settings: Settings,
    cases: Sequence[Case],
    answers: Mapping[str, Sequence[Answers]],
    *,
    folds_sha256: str,
) -> list[Path]:
    """Write NAME.json, NAME.md and a ROC, precision-recall and reliability plot per level; return the paths.

    `answers` are those of each crop and of the control, one per fold.
    """
    folds = {level: [_fold(one[level]) for one in answers[CASE_CROP]] for level in LEVELS}
    both = [_side_by_side(answers, number) for number in range(settings.ablation_folds)]
    tables = _tables(folds, settings.seed)
    document = {
        "protocol": request.name,
        "command": f"dicomnode evaluate {request.name}" + (f" --data {request.data}" if request.data else ""),
        "data": settings.data,
        "folds_sha256": folds_sha256,
        "source": cases[0].source,
        "patients": len({case.patient for case in cases}),
        "cases": len(cases),
        "fractured_cases": sum(bool(case.fractured) for case in cases),
        "settings": asdict(settings),
        "torch": torch.__version__,
        "tables": tables,
        "crop_ablation": _tables({level: [one[level] for one in both] for level in LEVELS}, settings.seed),
        "control": _tables(
            {level: [_fold(one[level]) for one in answers[SHUFFLED]] for level in LEVELS}, settings.seed
        ),
        "paper": [dict(zip(("table", "split", "counts", "row", "percent"), row, strict=True)) for row in PAPER],
    }
    numbers, text = request.out / f"{request.name}.json", request.out / f"{request.name}.md"
    numbers.write_text(json.dumps(document, indent=2) + "\n")
    pictures = [path for level in LEVELS for path in _draw(level, folds[level], tables[level], request)]
    text.write_text(markdown(document, [path.name for path in pictures]))
    return [numbers, text, *pictures]


def _tables(folds: Mapping[Level, Sequence[Fold]], seed: int) -> dict[Level, Any]:
    return {level: paper_tables.table(level, some, seed=seed) for level, some in folds.items() if some}


def _fold(level: Mapping[str, Any]) -> Fold:
    rows = {name: Row(scores=row["scores"].numpy(), threshold=row["threshold"]) for name, row in level["rows"].items()}
    return Fold(labels=level["labels"].numpy(), patients=np.array(level["patients"]), rows=rows)


def _side_by_side(answers: Mapping[str, Sequence[Answers]], number: int) -> dict[Level, Fold]:
    """One fold with the rows of all crops: they answer for the same images and cases."""
    found: dict[Level, Fold] = {}
    for level in LEVELS:
        rows = {
            f"{name}, {crop} crop": row
            for name in answers[CASE_CROP][number][level]["rows"]
            for crop in (CASE_CROP, SLICE_CROP)
            for row in [answers[crop][number][level]["rows"][name]]
        }
        found[level] = _fold({**answers[CASE_CROP][number][level], "rows": rows})
    return found


def _draw(level: Level, folds: Sequence[Fold], table: Mapping[str, Any], request: Request) -> list[Path]:
    labels = np.concatenate([fold.labels for fold in folds])
    rows = {
        name: (np.concatenate([fold.rows[name].scores for fold in folds]), labels)
        for name in folds[0].rows
        if name != ANY_POSITIVE_SLICE  # differs from "any slice" only in its threshold
    }
    found = table["splits"]["imbalanced"]["rows"]
    title = f"{request.name}: {level} level, {len(folds)} folds"
    figures = {
        "roc": plots.roc(rows, title=title, intervals={name: tuple(found[name]["roc_auc_ci95"]) for name in rows}),
        "precision-recall": plots.precision_recall(rows, title=title),
        "reliability": plots.reliability(rows, title=title),
    }
    return [plots.save(figure, request.out / f"{request.name}-{level}-{kind}.png") for kind, figure in figures.items()]


def markdown(document: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The content of NAME.json for people, with the pictures of these names."""
    parts = [_introduction(document)]
    for level in LEVELS:
        parts += [f"## {level.capitalize()} level", paper_tables.markdown(document["tables"][level]).strip()]
        parts += [f"![{name}]({name})" for name in pictures if f"-{level}-" in name]
    if document["crop_ablation"]:
        parts += ["## Crop ablation", _ABLATION.format(**document["settings"])]
        parts += [paper_tables.markdown(document["crop_ablation"][level]).strip() for level in LEVELS]
    if document["control"]:
        parts += ["## Control: shuffled labels", _CONTROL.format(**document["settings"]), _control(document["control"])]
    return "\n\n".join([*parts, "## The paper's own numbers, on patients", _paper()]) + "\n"


def _control(tables: Mapping[str, Any]) -> str:
    rows = [
        f"| {level} | {name} | {estimate(row['roc_auc'], row['roc_auc_ci95'])} |"
        for level in LEVELS
        for name, row in tables[level]["splits"]["imbalanced"]["rows"].items()
        if name != ANY_POSITIVE_SLICE
    ]
    return "\n".join(["| level | row | ROC AUC |", "|---|---|---|", *rows])


def _introduction(document: Mapping[str, Any]) -> str:
    settings, images = document["settings"], document["tables"]["image"]["splits"]["imbalanced"]
    return _INTRODUCTION.format(
        **{**settings, **document},
        about=_PHANTOMS if document["data"].startswith("phantom:") else _PATIENTS,
        share=100 * document["fractured_cases"] / document["cases"],
        image_share=100 * images["positives"] / (images["positives"] + images["negatives"]),
        resnet=settings["slices"],
        blstm=settings["sequences"][0],
    )


def _paper() -> str:
    head = ["table", "split", "positive / negative in each fold", "row", *paper_tables.COLUMNS]
    rows = [[*start, *percent.split()] for *start, percent in PAPER]
    return "\n".join([_SOURCE, "", *(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])])


_PHANTOMS = (
    "**These are numbers on synthetic phantoms. They say nothing about patients and cannot be compared with the "
    "paper's, which are quoted at the end.**"
)
_PATIENTS = "Other cases than the paper's, whose numbers are quoted at the end."
_INTRODUCTION = """# {protocol}: tables 2 and 3 of Salehinejad 2021 by {folds}-fold cross-validation

Made by `{command}`. {about}

- Data: {data} ({source}), {cases} cases of {patients} patients, {fractured_cases} fractured. "Imbalanced" is the \
natural share of these data: {share:.1f} % of the cases and {image_share:.1f} % of the images are positive; in the \
paper 19.9 % and 1.7 %.
- Folds: by patient, stratified by fracture, in `{protocol}-folds.json`, SHA-256 `{folds_sha256}`. One fold is tested; \
the next one stops the training and gives temperatures and thresholds (largest Youden index for each row; the paper \
names none); the others train both stages.
- ResNet-50 topology of width {resnet[width]} at {resnet[size]} pixels, at most {resnet[epochs]} epochs of balanced \
batches of {resnet[batch]}; BLSTMs at most {blstm[epochs]} epochs of batches of {blstm[batch]}. Both are trained from \
random weights in every fold.
- Images with only a trace of a fracture have no label and are left out at the image level.
- "Any slice" calls a case positive by its most suspicious slice: with the threshold of the image level, as in the \
paper's discussion, and with one chosen for cases. The highest and the mean slice probability are no probabilities of \
a case, as their Brier score and ECE show.
- "Balanced" cases and "case-balanced" images keep as many cases without a fracture as with one; "image-balanced" \
keeps as many images."""
_ABLATION = (
    "One Otsu box for the case against one for every slice, which is the paper's. Both are trained anew; here on the "
    "first {ablation_folds} of the {folds} folds, so that these numbers differ from those above."
)
_CONTROL = (
    "Every case with the fractures of another case of its fold, in training and in the test, through both stages, on "
    "the first {control_folds} of the {folds} folds. The area of a case has to be 0.5; another one would mean that "
    "something besides the images gives the label away. That of an image is higher: fractures keep their height in the "
    "neck, and some vertebrae break more often than others."
)
_SOURCE = (
    "Quoted from H. Salehinejad et al., Deep Sequential Learning for Cervical Spine Fracture Detection on Computed "
    "Tomography Imaging, ISBI 2021, arXiv 2010.13336, tables 2 and 3: 3,666 clinical CTs, 7 folds. The paper's AUC "
    "equals (TPR+TNR)/2 in every row. Its PPV shows that the balanced images are those of balanced cases."
)
