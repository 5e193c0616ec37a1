"""Folds for cross-validation: no patient in two of them, and every class in each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from inference.datasets.labelled import UnusableData

C = TypeVar("C")


def stratified_folds(labels: np.ndarray, groups: np.ndarray, k: int, seed: int) -> list[np.ndarray]:
    """Deal the patients of each class out to `k` folds; return the positions (sorted) of the items in each fold.

    labels (n,) class of each item, groups (n,) its patient. A patient with items of several classes counts as the
    highest: fractured if any item is. Which patients share a fold depends on their names and labels, not on the
    order of the items; numpy promises the same draw only within one version, so store the folds. Raises ValueError
    where a fold would lack a class.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if labels.ndim != 1 or labels.shape != groups.shape:
        raise ValueError(f"one patient per label is needed, not {groups.shape} for {labels.shape}")
    if k < 2 or not len(labels):
        raise ValueError(f"{len(labels)} items cannot be split into {k} folds")
    patients, owner = np.unique(groups, return_inverse=True)
    classes, position = np.unique(labels, return_inverse=True)
    highest = np.zeros(len(patients), int)
    np.maximum.at(highest, owner, position)
    rng = np.random.default_rng(seed)
    # One deal for all classes: were each to begin at the first fold, it would collect the surplus of all of them.
    dealt = np.concatenate([rng.permutation(np.flatnonzero(highest == one)) for one in range(len(classes))])
    fold_of = np.empty(len(patients), int)
    fold_of[dealt] = np.arange(len(dealt)) % k
    for fold in range(k):
        for one, name in enumerate(classes):
            if not np.any(highest[fold_of == fold] == one):
                count = int(np.sum(highest == one))
                raise ValueError(f"fold {fold + 1} of {k} has no patient of class {name}: there are only {count}")
    return [np.flatnonzero(fold_of[owner] == fold) for fold in range(k)]


def digest(folds: Sequence[np.ndarray]) -> str:
    """SHA-256 of the folds, to be stored with what was trained on them."""
    return hashlib.sha256(json.dumps([fold.tolist() for fold in folds]).encode()).hexdigest()


def stored(
    names: Sequence[str], made_for: Mapping[str, Any], path: Path, deal: Callable[[], list[np.ndarray]]
) -> list[np.ndarray]:
    """Positions of the items of each fold: those in the file, or newly dealt ones, which are written to it.

    The file lists names, so that anyone can repeat the folds without numpy's random numbers. A file that was made for
    something else is replaced. Raises UnusableData for one that does not fit the names.
    """
    if path.exists():
        found = json.loads(path.read_text())
        if all(found[key] == value for key, value in made_for.items()):
            position = {name: at for at, name in enumerate(names)}
            folds = [np.array([position.get(name, -1) for name in fold]) for fold in found["names"]]
            if digest(folds) != found["sha256"] or sum(map(len, folds)) != len(names):
                raise UnusableData(
                    f"{path} does not fit the {len(names)} cases of {made_for['data']}: restore it, or delete it"
                )
            return folds
    folds = deal()
    listed = [[names[at] for at in fold] for fold in folds]
    path.write_text(json.dumps({**made_for, "sha256": digest(folds), "names": listed}, indent=1) + "\n")
    return folds


def divided(cases: Sequence[C], folds: Sequence[np.ndarray], tested: int) -> dict[str, list[C]]:
    """The cases that train, that decide, which are those of the next fold, and that are tested."""
    deciding = (tested + 1) % len(folds)
    parts = {"train": np.concatenate([f for i, f in enumerate(folds) if i not in (tested, deciding)])}
    parts |= {"validation": folds[deciding], "test": folds[tested]}
    return {part: [cases[at] for at in positions] for part, positions in parts.items()}
