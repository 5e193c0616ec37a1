"""The experiment of paper 003 (Salehinejad 2021, arXiv 2010.13336): both stages trained anew in each of seven folds.

Read `evaluate`, then `answer`, which is one fold. Of the folds one is tested, the next one decides when to stop, the
temperatures and the thresholds, and the others train both stages, as in the paper. The paper names no thresholds;
here each row has the one with the largest Youden index on the deciding fold.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case, prepare
from inference.evaluation.folds import digest, divided, stored, stratified_folds
from inference.evaluation.protocol import Request
from inference.nets.sequence import SliceSequence
from inference.preprocess.crop import Crop, slice_crops
from inference.training import fracture_cases, fracture_slices, loop
from inference.training.calibration import fit_temperature, operating_points
from inference.training.fracture_cases import FeatureCase, SequenceSettings
from inference.training.fracture_slices import CELL_OVERLAP, SliceSettings

#: One box for the case, as the pipeline has it, and one for every slice, as the paper has it.
CASE_CROP, SLICE_CROP = "case", "slice"
#: The case crop with the fractures of other cases: nothing that is learned from them may be found again.
SHUFFLED = "shuffled"
SLICE_ROW = "ResNet-50"
#: Same scores as `ANY_SLICE`, but the threshold of the image level: one slice above it, and the case is positive.
ANY_SLICE, ANY_POSITIVE_SLICE = "any slice", "any slice, threshold of the image level"
JUDGED = ("validation", "test")

#: What one fold leaves, for `torch.save`: by level, the labels, patients and rows of `paper_tables.Fold`.
Answers = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A file of `config/protocols/`, where every key is explained."""

    data: str
    folds: int
    ablation_folds: int
    control_folds: int
    top_k: int
    seed: int
    slices: SliceSettings
    #: One for each BLSTM.
    sequences: tuple[SequenceSettings, ...]


def read_settings(path: Path) -> Settings:
    """Raises ValueError for numbers of folds that cannot be."""
    table = tomllib.loads(path.read_text())
    sequence = table.pop("sequence")
    settings = Settings(
        **{**table, "slices": SliceSettings(**table["slices"])},
        sequences=tuple(SequenceSettings(**{**sequence, "units": units}) for units in sequence["units"]),
    )
    some = (settings.ablation_folds, settings.control_folds)
    if settings.folds < 3 or not all(0 <= count <= settings.folds for count in some):
        raise ValueError(
            f"{path}: at least 3 folds are needed (one tests, one decides, the others train), and ablation and control "
            f"are on some of them, not on {some[0]} and {some[1]} of {settings.folds}"
        )
    return settings


def evaluate(request: Request) -> list[Path]:
    """Train and test all folds, write the result files, and return their paths.

    A fold that was finished is not repeated; an interrupted one goes on after its last epoch. Raises UnusableData
    when a fold would lack a class.
    """
    from inference.evaluation import salehinejad2021_report as report

    settings = read_settings(request.settings)
    if request.data is not None:
        settings = replace(settings, data=request.data)
    cases = prepare(settings.data, cache=request.cache, progress=request.progress)
    request.out.mkdir(parents=True, exist_ok=True)
    folds = stored_folds(cases, settings, request.out / f"{request.name}-folds.json")
    answers: dict[str, list[Answers]] = {}
    counts = {CASE_CROP: settings.folds, SLICE_CROP: settings.ablation_folds, SHUFFLED: settings.control_folds}
    for variant, count in counts.items():
        request.progress(f"{variant}: {count} folds of {len(cases)} cases, slices of {settings.slices.size} pixels")
        crop = SLICE_CROP if variant == SLICE_CROP else CASE_CROP
        cut = [cropped(case, crop, settings.slices.size) for case in cases if count]
        if variant == SHUFFLED and count:
            cut = shuffled(cut, folds, settings.seed)
        answers[variant] = [
            _named(f"{variant}-fold-{number + 1}-of-{len(folds)}", divided(cut, folds, number), settings, request)
            for number in range(count)
        ]
    return report.write(request, settings, cases, answers, folds_sha256=digest(folds))


def _named(name: str, parts: Mapping[str, Sequence[Case]], settings: Settings, request: Request) -> Answers:
    """One fold, in its own folder and with its name in front of every progress line."""
    return answer(
        parts,
        settings,
        folder=request.cache / request.name / name,
        device=request.device,
        progress=lambda text: request.progress(f"{name}: {text}"),
    )


def stored_folds(cases: Sequence[Case], settings: Settings, path: Path) -> list[np.ndarray]:
    """Positions of the cases of each fold: those in the file, or newly dealt ones, which are written to it."""
    made_for = {"data": settings.data, "seed": settings.seed, "folds": settings.folds}
    return stored([case.name for case in cases], made_for, path, lambda: _dealt(cases, settings))


def _dealt(cases: Sequence[Case], settings: Settings) -> list[np.ndarray]:
    data = settings.data
    unknown = [case.name for case in cases if case.fractured is None]
    if unknown:
        raise UnusableData(f"{data}: {len(unknown)} cases do not say whether there is a fracture, first {unknown[0]}")
    fractured, patients = np.array([bool(case.fractured) for case in cases]), np.array([case.patient for case in cases])
    try:
        folds = stratified_folds(fractured, patients, settings.folds, settings.seed)
    except ValueError as error:
        raise UnusableData(f"{data}: {error} (True: fractured); add cases, or deal fewer folds") from error
    for number, fold in enumerate(folds, start=1):
        labels = np.concatenate([cases[at].labels[cases[at].clear] for at in fold])
        if labels.all() or not labels.any():
            kind = "without" if labels.any() else "with"
            raise UnusableData(f"{data}: fold {number} of {len(folds)} has no slice {kind} a marked fracture")
    return folds


def cropped(case: Case, crop: str, size: int) -> Case:
    """The case with its slices cropped and resized to `size` pixels, kept beside its own arrays.

    Labels stay those of the case: a crop that misses the fracture has to answer for it.
    """
    folder = case.folder / f"{crop}-crop-{size}"
    if not (folder / "hu.npy").exists():
        folder.mkdir(exist_ok=True)
        hu = np.array(case.hu)
        crops = [case.crop] * len(hu) if crop == CASE_CROP else _slice_crops(hu)
        if case.labels.any():
            shown = _cut(np.asarray(case.fractures, np.float32), crops, size) > CELL_OVERLAP
            np.save(folder / "fractures.npy", shown.numpy())
        # Last and by a rename: an interrupted case is made again.
        np.save(folder / "part.npy", _cut(hu, crops, size).round().to(torch.int16).numpy())
        (folder / "part.npy").replace(folder / "hu.npy")
    return replace(case, folder=folder, crop=Crop(top=0, left=0, side=size, image=(size, size)))


def shuffled(cases: Sequence[Case], folds: Sequence[np.ndarray], seed: int) -> list[Case]:
    """Cropped cases, each with the fractures of another one of its fold at the same share of its height."""
    rng = np.random.default_rng(seed)
    found = list(cases)
    for fold in folds:
        order = rng.permutation(fold)
        for at, donor in zip(order, np.roll(order, 1), strict=True):
            found[at] = _relabelled(cases[at], cases[donor])
    return found


def _relabelled(case: Case, donor: Case) -> Case:
    """The images of one cropped case with the labels of another, in a folder of their own."""
    folder = case.folder.with_name(f"{case.folder.name}-{SHUFFLED}")
    shutil.rmtree(folder, ignore_errors=True)  # of other folds or another seed
    folder.mkdir()
    (folder / "hu.npy").hardlink_to(case.folder / "hu.npy")
    heights = np.linspace(0, len(donor.labels) - 1, len(case.labels)).round().astype(int)
    if donor.has_fractures:
        np.save(folder / "fractures.npy", donor.fractures[heights])
    area = None if donor.area is None else donor.area[heights]
    return replace(case, folder=folder, area=area, fractured=donor.fractured, levels=None)


def _slice_crops(hu: np.ndarray) -> list[Crop]:
    """The paper's crops; the whole field where a slice has no bone, which the paper leaves open."""
    rows, columns = hu.shape[1:]
    side = max(rows, columns)
    whole = Crop(top=(rows - side) // 2, left=(columns - side) // 2, side=side, image=(rows, columns))
    return [crop or whole for crop in slice_crops(hu)]


def _cut(planes: np.ndarray, crops: Sequence[Crop], size: int) -> torch.Tensor:
    return torch.cat([crop.cut(torch.from_numpy(plane[None]), size) for crop, plane in zip(crops, planes, strict=True)])


def answer(
    parts: Mapping[str, Sequence[Case]],
    settings: Settings,
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str], None],
) -> Answers:
    """Train both stages on `train`, decide on `validation`, and answer for `test`; `folder` keeps the state.

    The BLSTMs train on the CPU. Slices with only a trace of a fracture have no label and are left out at the image
    level.
    """
    made_with = {
        "slices": asdict(settings.slices),
        "sequences": [asdict(one) for one in settings.sequences],
        "top_k": settings.top_k,
        "parts": {part: [case.name for case in cases] for part, cases in parts.items()},
    }
    done = loop.Checkpoint(path=folder / "answers.checkpoint", made_with=made_with)
    answers: Answers | None = done.load(progress)
    if answers is not None:
        progress("finished before")
        return answers
    folder.mkdir(parents=True, exist_ok=True)
    net, _ = fracture_slices.train(
        parts["train"], parts["validation"], settings.slices, folder=folder, device=device, progress=progress
    )
    features = {}
    for part, cases in parts.items():
        features[part] = [fracture_cases.extract(net, case, settings.slices.size) for case in cases]
        progress(f"features of {len(cases)} {part} cases")
    slices = _slice_probabilities(net.fc.cpu(), features)
    image = _image_level(parts, slices)
    scores = {part: _rules(slices[part], settings.top_k) for part in JUDGED}
    for sequence in settings.sequences:
        found = _sequence_probabilities(sequence, features, folder=folder, progress=progress)
        for part in JUDGED:
            scores[part][f"BLSTM-{sequence.units}"] = found[part]
    answers = {"image": image, "case": _case_level(parts, scores, image["rows"][SLICE_ROW]["threshold"])}
    done.save(answers)
    return answers


def _slice_probabilities(
    classify: torch.nn.Linear, features: Mapping[str, Sequence[FeatureCase]]
) -> dict[str, list[np.ndarray]]:
    """Of the slice network alone, for each case (slices,)."""
    with torch.inference_mode():
        logits = {part: [classify(one.features)[:, 0].double().numpy() for one in features[part]] for part in JUDGED}
    labels = torch.cat([one.labels[one.weights > 0] for one in features["validation"]]).numpy()
    clear = torch.cat([one.weights > 0 for one in features["validation"]]).numpy()
    temperature = fit_temperature(np.concatenate(logits["validation"])[clear], labels)
    return {part: [expit(one / temperature) for one in logits[part]] for part in JUDGED}


def _sequence_probabilities(
    settings: SequenceSettings,
    features: Mapping[str, Sequence[FeatureCase]],
    *,
    folder: Path,
    progress: Callable[[str], None],
) -> dict[str, np.ndarray]:
    """Train one BLSTM; its probabilities (cases,)."""
    net, _ = fracture_cases.train(features["train"], features["validation"], settings, folder=folder, progress=progress)
    logits = {part: _case_logits(net, features[part]) for part in JUDGED}
    truth = np.array([one.fractured for one in features["validation"]])
    temperature = fit_temperature(logits["validation"], truth)
    return {part: expit(logits[part] / temperature) for part in JUDGED}


def _case_logits(net: SliceSequence, cases: Sequence[FeatureCase]) -> np.ndarray:
    with torch.inference_mode():
        return np.array([float(net(one.features[None], torch.tensor([len(one.features)]))[1]) for one in cases])


def _rules(slices: Sequence[np.ndarray], top_k: int) -> dict[str, np.ndarray]:
    """Scores (cases,) that need no second network."""
    highest = [np.sort(one)[::-1] for one in slices]
    return {
        ANY_SLICE: np.array([one[0] for one in highest]),
        f"mean of the {top_k} highest": np.array([one[:top_k].mean() for one in highest]),
    }


def _image_level(parts: Mapping[str, Sequence[Case]], slices: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    scores, labels = {}, {}
    for part in JUDGED:
        pairs = list(zip(parts[part], slices[part], strict=True))
        scores[part] = np.concatenate([one[case.clear] for case, one in pairs])
        labels[part] = np.concatenate([case.labels[case.clear] for case, _ in pairs])
    patients = [case.patient for case in parts["test"] for _ in range(int(case.clear.sum()))]
    row = _row(scores["validation"], labels["validation"], scores["test"])
    return {"labels": torch.from_numpy(labels["test"]), "patients": patients, "rows": {SLICE_ROW: row}}


def _case_level(
    parts: Mapping[str, Sequence[Case]], scores: Mapping[str, Mapping[str, np.ndarray]], image_threshold: float
) -> dict[str, Any]:
    truth = {part: np.array([bool(case.fractured) for case in parts[part]]) for part in JUDGED}
    rows = {
        name: _row(scores["validation"][name], truth["validation"], answers) for name, answers in scores["test"].items()
    }
    return {
        "labels": torch.from_numpy(truth["test"]),
        "patients": [case.patient for case in parts["test"]],
        "rows": {ANY_POSITIVE_SLICE: {**rows[ANY_SLICE], "threshold": image_threshold}, **rows},
    }


def _row(validation: np.ndarray, truth: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Probabilities for the test, and the threshold that the validation suggests."""
    balanced, *_ = operating_points(validation, truth)
    return {"scores": torch.from_numpy(test), "threshold": balanced.threshold}
