"""Folds keep patients together, hold every class, and are the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.folds import digest, stratified_folds


def series(positive: int, negative: int, *, each: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and patients of `each` items per patient; of a positive patient only the first item is positive."""
    names = [f"p{n}" for n in range(positive)] + [f"n{n}" for n in range(negative)]
    labels = [int(name.startswith("p") and n == 0) for name in names for n in range(each)]
    return np.array(labels), np.repeat(names, each)


@given(st.integers(7, 30), st.integers(7, 60), st.integers(2, 7), st.integers(0, 2**32))
def test_patients_stay_together_and_classes_are_spread_evenly(positive, negative, k, seed):
    labels, patients = series(positive, negative)
    folds = stratified_folds(labels, patients, k, seed)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(labels)))
    owners = [set(patients[fold].tolist()) for fold in folds]
    assert sum(map(len, owners)) == positive + negative
    for letter, count in (("p", positive), ("n", negative)):
        sizes = [sum(name.startswith(letter) for name in owner) for owner in owners]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) == count // k
    everyone = [len(owner) for owner in owners]
    assert max(everyone) - min(everyone) <= 1


def test_seven_folds_of_the_paper_have_104_fractured_and_419_other_cases():
    labels, patients = series(7 * 104, 7 * 419, each=1)
    for fold in stratified_folds(labels, patients, 7, seed=0):
        assert (labels[fold].sum(), len(fold)) == (104, 523)


def test_one_fractured_item_makes_the_patient_fractured():
    labels, patients = series(2, 2, each=50)
    for fold in stratified_folds(labels, patients, 2, seed=0):
        assert labels[fold].sum() == 1


def test_more_than_two_classes_are_spread_too():
    labels, patients = np.arange(30) % 3, np.arange(30)
    for fold in stratified_folds(labels, patients, 5, seed=0):
        assert np.bincount(labels[fold]).tolist() == [2, 2, 2]


def test_folds_depend_on_the_seed_and_on_nothing_else():
    labels, patients = series(10, 20)
    same = [digest(stratified_folds(labels, patients, 5, seed=1)) for _ in range(2)]
    assert same[0] == same[1]
    assert digest(stratified_folds(labels, patients, 5, seed=2)) != same[0]


def test_the_order_of_the_items_does_not_move_a_patient():
    labels, patients = series(10, 20)
    order = np.random.default_rng(0).permutation(len(labels))
    there = stratified_folds(labels, patients, 5, seed=1)
    back = stratified_folds(labels[order], patients[order], 5, seed=1)
    assert [set(patients[fold]) for fold in there] == [set(patients[order][fold]) for fold in back]


def test_too_few_patients_of_a_class_name_the_fold_and_the_class():
    with pytest.raises(ValueError, match=r"fold \d of 5 has no patient of class 1: there are only 4"):
        stratified_folds(*series(4, 20), 5, seed=0)


def test_many_items_of_one_patient_do_not_fill_the_folds():
    with pytest.raises(ValueError, match="class 1: there are only 1"):
        stratified_folds(np.array([1] * 50 + [0] * 50), np.array(["a"] * 50 + [f"{n}" for n in range(50)]), 2, seed=0)


@pytest.mark.parametrize(
    ("labels", "patients", "k", "message"),
    [
        ([0, 1], [0], 2, "one patient per label"),
        ([0, 1], [0, 1], 1, "into 1 folds"),
        ([], [], 2, "0 items"),
    ],
)
def test_what_cannot_be_split_is_refused(labels, patients, k, message):
    with pytest.raises(ValueError, match=message):
        stratified_folds(np.array(labels), np.array(patients), k, seed=0)


def test_the_digest_tells_folds_apart_and_survives_other_integers():
    folds = [np.array([0, 1]), np.array([2])]
    assert digest(folds) == digest([fold.astype(np.int32) for fold in folds])
    assert digest(folds) != digest([np.array([0]), np.array([1, 2])])
    assert digest(folds) != digest(folds[::-1])
    assert len(digest(folds)) == 64
