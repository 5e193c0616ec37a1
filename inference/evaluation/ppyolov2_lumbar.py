"""The comparison of paper 004 (Ke 2024, doi 10.3389/fsurg.2024.1424716) on lumbar MR.

YOLOv3, YOLOv5 and PP-YOLOv2, each trained anew in each of five folds.

Read `evaluate`. Of the folds one is tested, the next one decides when to stop, and the others train.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inference.datasets.labelled import UnusableData
from inference.datasets.mr_store import Study, prepare_mr
from inference.datasets.spine_images import ImageSettings, SpineImages, gather, marked
from inference.evaluation import spine_networks
from inference.evaluation.folds import digest, divided, stored, stratified_folds
from inference.evaluation.protocol import Request
from inference.evaluation.spine_networks import Answers, Network, networks
from inference.spine_mr import LUMBAR_DISC, SUBJECTS

SUBJECT = SUBJECTS[LUMBAR_DISC]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A file of `config/protocols/`, where every key is explained."""

    data: str
    folds: int
    timed: int
    seed: int
    images: ImageSettings
    networks: tuple[Network, ...]


def read_settings(path: Path) -> Settings:
    """Raises ValueError for fewer than three folds."""
    table = tomllib.loads(path.read_text())
    nets = networks(table.pop("networks"), table.pop("detection"))
    settings = Settings(**{**table, "images": ImageSettings(**table["images"])}, networks=nets)
    if settings.folds < 3:
        raise ValueError(f"{path}: at least 3 folds are needed: one tests, one decides, the others train")
    return settings


def evaluate(request: Request) -> list[Path]:
    """Train and test all networks in all folds, write the result files, and return their paths.

    A network that was finished in a fold is not trained again. Raises UnusableData when a fold would lack a class.
    """
    from inference.evaluation import spine_report as report

    settings = read_settings(request.settings)
    if request.data is not None:
        settings = replace(settings, data=request.data)
    found = prepare_mr(settings.data, cache=request.cache, progress=request.progress)
    studies = [study for study in found if study.region == SUBJECT.region and marked(study)]
    request.out.mkdir(parents=True, exist_ok=True)
    folds = stored_folds(studies, settings, request.out / f"{request.name}-folds.json")
    every = replace(settings.images, with_target=1.0, with_boxes=1.0, without_boxes=1.0)
    dealt: list[dict[str, SpineImages]] = []
    answers: dict[str, list[Answers]] = {network.name: [] for network in settings.networks}
    for number in range(settings.folds):
        parts = {
            part: gather(some, SUBJECT, every if part == "test" else settings.images)
            for part, some in divided(studies, folds, number).items()
        }
        dealt.append(parts)
        for network in settings.networks:
            name = f"{network.name}-fold-{number + 1}-of-{settings.folds}"
            answers[network.name].append(
                spine_networks.answer(
                    network,
                    parts,
                    timed=settings.timed,
                    folder=request.cache / request.name / name,
                    device=request.device,
                    progress=lambda text, name=name: request.progress(f"{name}: {text}"),  # type: ignore[misc]
                )
            )
    return report.ppyolov2_lumbar(request, settings, dealt, answers, digest(folds))


def stored_folds(studies: Sequence[Study], settings: Settings, path: Path) -> list[np.ndarray]:
    """Positions of the studies of each fold, dealt so that each has as many slips and herniations as any."""
    made_for = {"data": settings.data, "seed": settings.seed, "folds": settings.folds}
    return stored([study.name for study in studies], made_for, path, lambda: _dealt(studies, settings))


def _dealt(studies: Sequence[Study], settings: Settings) -> list[np.ndarray]:
    worst = np.array([_worst(study) for study in studies])
    try:
        return stratified_folds(worst, np.array([study.patient for study in studies]), settings.folds, settings.seed)
    except ValueError as error:
        raise UnusableData(
            f"{settings.data}: {error} (the worst disc of a study); add studies, or deal fewer"
        ) from error


def _worst(study: Study) -> int:
    """Position of the worst class that the study shows; the classes are in the order of their severity."""
    positions: Mapping[str, int] = {label: number for number, label in enumerate(SUBJECT.classes)}
    return max((positions.get(box.label, 0) for one in marked(study) for box in one.boxes), default=0)
