"""Tables 2 (image level) and 3 (case level) of paper 003 (Salehinejad 2021, arXiv 2010.13336) for any classifier.

The paper's columns are kept, each in percent as mean and standard deviation over the folds. Its "AUC" equals
(TPR + TNR) / 2 at one threshold in every row and is named so here; the area under the ROC curve and measures of the
probabilities follow. Its "balanced" image row has the positives of balanced *cases* (PPV 13.78 at TPR 77.21 and
TNR 77.62 means 4.43 % of the images): here "case-balanced" and "image-balanced" are different splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import logit
from torchmetrics.functional.classification import binary_average_precision

from inference.evaluation import markdown_tables
from inference.evaluation.binary import expected_calibration_error
from inference.evaluation.bootstrap import interval
from inference.evaluation.markdown_tables import estimate, number, over_folds, plain, spread
from inference.evaluation.statistics import confusion
from inference.training.fracture_slices import area_under_curve

Level = Literal["image", "case"]
SPLITS: Mapping[Level, tuple[str, ...]] = {
    "image": ("imbalanced", "case-balanced", "image-balanced"),
    "case": ("imbalanced", "balanced"),
}
PAPER_AUC = "AUC as in the paper: (TPR+TNR)/2"
#: Heading in the paper to property of Confusion.
COLUMNS = {
    "TPR": "tpr",
    "TNR": "tnr",
    "PPV": "ppv",
    "NPV": "npv",
    "F1": "f1",
    "Acc": "accuracy",
    "MCC": "mcc",
    PAPER_AUC: "balanced_accuracy",
}
CORRECT_COLUMNS = ("ROC-AUC (95 % CI)", "ROC-AUC, mean ± sd over folds", "average precision", "Brier", "ECE")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The answers of one classifier in one fold."""

    #: (n,) probabilities in double precision.
    scores: np.ndarray
    #: Chosen on other cases; from this probability on an answer is positive.
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Fold:
    """The held-out images or cases of one fold; all rows answer for the same ones."""

    #: (n,) 0 or 1.
    labels: np.ndarray
    #: (n,) the patient of each, which is the unit of "case-balanced" and of the bootstrap.
    patients: np.ndarray
    #: By name, as "BLSTM-96" or "any slice".
    rows: Mapping[str, Row]


def table(level: Level, folds: Sequence[Fold], *, seed: int = 0) -> dict[str, Any]:
    """All numbers of the table as plain values for JSON; what is not defined is None.

    A mean is over the folds in which the value is defined; "folds" says how many these are. A balanced split keeps
    the smaller class and draws as many of the larger one, the same for every row. ROC-AUC, average precision, Brier
    score and ECE are over the items of all folds, the interval is BCa over patients.
    """
    _check(folds)
    splits = {}
    for split in SPLITS[level]:
        kept = [_kept(fold, split, np.random.default_rng([seed, position])) for position, fold in enumerate(folds)]
        labels = [np.asarray(fold.labels)[chosen] == 1 for fold, chosen in zip(folds, kept, strict=True)]
        patients = [np.asarray(fold.patients)[chosen] for fold, chosen in zip(folds, kept, strict=True)]
        rows = {}
        for name in folds[0].rows:
            scores = [np.asarray(fold.rows[name].scores, float)[at] for fold, at in zip(folds, kept, strict=True)]
            thresholds = [fold.rows[name].threshold for fold in folds]
            rows[name] = _at_thresholds(scores, labels, thresholds) | _of_probabilities(scores, labels, patients, seed)
        splits[split] = {
            "positives": int(np.concatenate(labels).sum()),
            "negatives": int((~np.concatenate(labels)).sum()),
            "patients": len(np.unique(np.concatenate(patients))),
            "rows": rows,
        }
    found: dict[str, Any] = plain({"level": level, "folds": len(folds), "seed": seed, "splits": splits})
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """The same for people: the paper's columns, then the correct definitions."""
    head = ["split", "positive / negative", "row"]
    paper, correct = [[*head, *COLUMNS]], [[*head, *CORRECT_COLUMNS]]
    for name, split in found["splits"].items():
        for row, values in split["rows"].items():
            start = [name, f"{split['positives']} / {split['negatives']}", row]
            percent = (over_folds(values["percent"][column], found["folds"], 2) for column in COLUMNS)
            paper.append([*start, *percent])
            correct.append([*start, *_correct(values, found["folds"])])
    printed, unit = (2, "images") if found["level"] == "image" else (3, "cases")
    text = [
        f"Table {printed} of paper 003, {found['level']} level. In percent, mean ± standard deviation over "
        f"{found['folds']} folds; positive / negative are {unit} of all folds.",
        "",
        markdown_tables.table(paper[0], paper[1:]),
        "",
        "The same answers without a threshold, over the items of all folds; 95 % intervals: BCa bootstrap over "
        "patients.",
        "",
        markdown_tables.table(correct[0], correct[1:]),
    ]
    return "\n".join(text) + "\n"


def _check(folds: Sequence[Fold]) -> None:
    """Everything that would make a table wrong without anyone noticing."""
    if not folds:
        raise ValueError("a table needs at least one fold")
    seen: set[Any] = set()
    for position, fold in enumerate(folds, start=1):
        if list(fold.rows) != list(folds[0].rows):
            raise ValueError(f"fold {position} has the rows {list(fold.rows)}, fold 1 {list(folds[0].rows)}")
        if len(fold.patients) != len(fold.labels) or not np.isin(fold.labels, (0, 1)).all():
            raise ValueError(f"fold {position}: every item needs a patient and a label, 0 or 1")
        for name, row in fold.rows.items():
            scores = np.asarray(row.scores)
            if scores.shape != (len(fold.labels),) or not np.all((scores >= 0) & (scores <= 1)):
                raise ValueError(f"fold {position}, {name}: every item needs a score, and scores are probabilities")
        patients = set(np.asarray(fold.patients).tolist())
        if seen & patients:
            raise ValueError(f"fold {position} shares {len(seen & patients)} patients with earlier folds")
        seen |= patients


def _kept(fold: Fold, split: str, rng: np.random.Generator) -> np.ndarray:
    """Positions of the items of a split, sorted."""
    labels = np.asarray(fold.labels) == 1
    if split == "imbalanced":
        return np.arange(len(labels))
    if split != "case-balanced":
        return _balanced(labels, rng)
    patients, owner = np.unique(fold.patients, return_inverse=True)
    fractured = np.bincount(owner, weights=labels, minlength=len(patients)) > 0
    return np.flatnonzero(np.isin(owner, _balanced(fractured, rng)))


def _balanced(positive: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    classes = np.flatnonzero(positive), np.flatnonzero(~positive)
    size = min(map(len, classes))
    return np.sort(np.concatenate([rng.permutation(one)[:size] for one in classes]))


def _at_thresholds(
    scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], thresholds: Sequence[float]
) -> dict[str, Any]:
    counts = [confusion(*fold) for fold in zip(scores, labels, thresholds, strict=True)]
    return {
        "percent": {name: spread([100 * getattr(one, key) for one in counts]) for name, key in COLUMNS.items()},
        "thresholds": list(thresholds),
        "counts": [asdict(one) for one in counts],
    }


def _of_probabilities(
    scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], patients: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    everything, truth, owner = np.concatenate(scores), np.concatenate(labels), np.concatenate(patients)
    found = {
        # Beside the pooled area: networks of different folds need not share a scale, which lowers the latter.
        "roc_auc_folds": spread([area_under_curve(*fold) for fold in zip(scores, labels, strict=True)]),
        "roc_auc": area_under_curve(everything, truth),
        "roc_auc_ci95": [float("nan")] * 2,
        "average_precision": float("nan"),
        "brier": float(np.mean((everything - truth) ** 2)) if len(truth) else float("nan"),
        "ece": float("nan"),
    }
    if len(truth):
        # An exponential of a logit further out would overflow.
        found["ece"] = expected_calibration_error(logit(np.maximum(everything, np.finfo(float).tiny)), truth)
    if truth.any() and not truth.all():
        order = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.unique(owner, return_counts=True)[1])[:-1]
        each = [np.split(values[order], ends) for values in (everything, truth)]
        found["roc_auc_ci95"] = list(interval(area_under_curve, each[0], each[1], seed=seed, method="bca"))
        tensors = torch.from_numpy(everything), torch.from_numpy(truth).int()
        found["average_precision"] = float(binary_average_precision(*tensors))
    return found


def _correct(values: Mapping[str, Any], folds: int) -> list[str]:
    return [
        estimate(values["roc_auc"], values["roc_auc_ci95"]),
        over_folds(values["roc_auc_folds"], folds, 3),
        *(number(values[key], 3) for key in ("average_precision", "brier", "ece")),
    ]
