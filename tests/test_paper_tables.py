"""Tables in the paper's layout: splits, columns, means over folds, and what must not go unnoticed."""

import json
import math

import numpy as np
import pytest

from inference.evaluation.binary import expected_calibration_error
from inference.evaluation.bootstrap import interval
from inference.evaluation.paper_tables import COLUMNS, PAPER_AUC, Fold, Row, markdown, table
from inference.evaluation.statistics import confusion
from inference.training.fracture_slices import area_under_curve


def cases(number: int, *, positive: int = 8, negative: int = 32) -> Fold:
    """Return a fold of cases, one per patient, with a good and a useless row."""
    rng = np.random.default_rng(number)
    labels = np.repeat([1, 0], [positive, negative])
    logits = 2.0 * labels - 1 + rng.normal(size=len(labels))
    return Fold(
        labels=labels,
        patients=np.array([f"{number}-{n}" for n in range(len(labels))]),
        rows={
            "BLSTM-96": Row(scores=1 / (1 + np.exp(-logits)), threshold=0.5),
            "any slice": Row(scores=rng.random(len(labels)), threshold=0.3 + number / 10),
        },
    )


def images(number: int) -> Fold:
    """Return a fold of 4 fractured and 12 other patients, 20 images each, 3 of those fractured."""
    rng = np.random.default_rng(number)
    owner = np.repeat(np.arange(16), 20)
    labels = ((owner < 4) & (np.tile(np.arange(20), 16) < 3)).astype(int)
    scores = np.clip(0.3 + 0.4 * labels + 0.2 * rng.normal(size=len(labels)), 0, 1)
    return Fold(labels=labels, patients=100 * number + owner, rows={"slice network": Row(scores=scores, threshold=0.5)})


def exactly(tp: int, fp: int, tn: int, fn: int, *, number: int = 0) -> Fold:
    """Return a fold with these counts at 0.5."""
    scores = np.repeat([0.9, 0.8, 0.1, 0.2], [tp, fp, tn, fn])
    labels = np.repeat([1, 0, 0, 1], [tp, fp, tn, fn])
    patients = 1000 * number + np.arange(len(labels))
    return Fold(labels=labels, patients=patients, rows={"row": Row(scores=scores, threshold=0.5)})


def test_the_columns_are_those_of_the_paper_in_its_order():
    assert list(COLUMNS) == ["TPR", "TNR", "PPV", "NPV", "F1", "Acc", "MCC", "AUC as in the paper: (TPR+TNR)/2"]


def test_means_and_deviations_over_folds_in_percent():
    found = table("case", [exactly(3, 1, 3, 1), exactly(2, 0, 4, 2, number=1)])
    percent = found["splits"]["imbalanced"]["rows"]["row"]["percent"]
    assert percent["TPR"] == {"mean": 62.5, "sd": pytest.approx(25 / math.sqrt(2)), "folds": 2}
    assert percent["TNR"] == {"mean": 87.5, "sd": pytest.approx(25 / math.sqrt(2)), "folds": 2}
    assert percent[PAPER_AUC] == {"mean": 75, "sd": 0, "folds": 2}
    assert percent["MCC"]["mean"] == pytest.approx(100 * (0.5 + 8 / math.sqrt(2 * 4 * 4 * 6)) / 2)
    counts = found["splits"]["imbalanced"]["rows"]["row"]["counts"]
    assert counts == [{"tp": 3, "fp": 1, "tn": 3, "fn": 1}, {"tp": 2, "fp": 0, "tn": 4, "fn": 2}]


def test_the_natural_split_keeps_everything_and_each_fold_its_threshold():
    folds = [cases(0), cases(1)]
    found = table("case", folds)["splits"]["imbalanced"]
    assert (found["positives"], found["negatives"], found["patients"]) == (16, 64, 80)
    row = found["rows"]["any slice"]
    assert row["thresholds"] == [0.3, 0.4]
    for fold, counts in zip(folds, row["counts"], strict=True):
        one = fold.rows["any slice"]
        assert counts["tp"] == confusion(one.scores, fold.labels, one.threshold).tp


def test_balanced_cases_keep_every_positive_and_the_sensitivity():
    found = table("case", [cases(0), cases(1)])["splits"]
    assert list(found) == ["imbalanced", "balanced"]
    assert (found["balanced"]["positives"], found["balanced"]["negatives"]) == (16, 16)
    for name in ("BLSTM-96", "any slice"):
        natural, balanced = (found[split]["rows"][name]["percent"] for split in found)
        assert natural["TPR"] == balanced["TPR"]
        assert natural["PPV"]["mean"] < balanced["PPV"]["mean"]
        assert balanced["Acc"]["mean"] == pytest.approx(balanced[PAPER_AUC]["mean"])


def test_images_of_balanced_cases_are_not_balanced_images():
    found = table("image", [images(0), images(1)])["splits"]
    sizes = {name: (split["positives"], split["negatives"], split["patients"]) for name, split in found.items()}
    assert sizes["imbalanced"] == (24, 616, 32)
    assert sizes["case-balanced"] == (24, 2 * (8 * 20 - 12), 16)
    assert sizes["image-balanced"][:2] == (24, 24)


def test_more_fractured_than_other_cases_are_balanced_the_other_way():
    found = table("case", [cases(0, positive=20, negative=5)])["splits"]["balanced"]
    assert (found["positives"], found["negatives"]) == (5, 5)


def test_the_draw_is_the_same_for_every_row_and_depends_on_the_seed():
    fold = cases(0)
    twice = Fold(labels=fold.labels, patients=fold.patients, rows={n: fold.rows["any slice"] for n in ("a", "b")})
    rows = table("case", [twice])["splits"]["balanced"]["rows"]
    assert rows["a"] == rows["b"]
    assert table("case", [fold], seed=1) == table("case", [fold], seed=1)
    assert table("case", [fold], seed=1)["splits"]["balanced"] != table("case", [fold])["splits"]["balanced"]


def test_probabilities_are_measured_over_all_folds_with_patients_as_units():
    folds = [images(0), images(1)]
    row = table("image", folds)["splits"]["imbalanced"]["rows"]["slice network"]
    scores = np.concatenate([fold.rows["slice network"].scores for fold in folds])
    labels = np.concatenate([fold.labels for fold in folds]) == 1
    assert row["roc_auc"] == area_under_curve(scores, labels)
    each = np.split(scores, 32), np.split(labels, 32)  # 20 images of each patient lie together
    assert row["roc_auc_ci95"] == list(interval(area_under_curve, *each, method="bca"))
    assert row["brier"] == pytest.approx(np.mean((scores - labels) ** 2))
    with np.errstate(divide="ignore"):
        assert row["ece"] == pytest.approx(expected_calibration_error(np.log(scores) - np.log(1 - scores), labels))
    order = np.argsort(-scores, kind="stable")
    hits = labels[order]
    assert row["average_precision"] == pytest.approx(
        np.mean((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits]), abs=1e-3
    )
    area = [area_under_curve(fold.rows["slice network"].scores, fold.labels) for fold in folds]
    assert row["roc_auc_folds"] == {
        "mean": pytest.approx(np.mean(area)),
        "sd": pytest.approx(np.std(area, ddof=1)),
        "folds": 2,
    }


def test_images_of_a_patient_need_not_lie_together():
    fold = images(0)
    order = np.random.default_rng(0).permutation(len(fold.labels))
    row = Row(scores=fold.rows["slice network"].scores[order], threshold=0.5)
    mixed = Fold(labels=fold.labels[order], patients=fold.patients[order], rows={"slice network": row})
    there, here = (table("image", [one])["splits"]["imbalanced"]["rows"]["slice network"] for one in (fold, mixed))
    assert here["roc_auc_ci95"] == pytest.approx(there["roc_auc_ci95"])


def test_certain_probabilities_have_all_measures():
    labels = np.array([0, 0, 1, 1])
    fold = Fold(labels=labels, patients=np.arange(4), rows={"row": Row(scores=labels * 1.0, threshold=0.5)})
    row = table("case", [fold])["splits"]["imbalanced"]["rows"]["row"]
    assert (row["roc_auc"], row["average_precision"], row["brier"], row["ece"]) == (1, 1, 0, pytest.approx(0))
    tiny = Fold(labels=labels, patients=np.arange(4), rows={"row": Row(scores=np.full(4, 5e-324), threshold=0.5)})
    assert table("case", [tiny])["splits"]["imbalanced"]["rows"]["row"]["ece"] == 0.5


def test_a_measure_without_a_value_in_one_fold_is_the_mean_of_the_others():
    found = table("case", [exactly(3, 1, 3, 1), exactly(0, 0, 4, 4, number=1)])
    percent = found["splits"]["imbalanced"]["rows"]["row"]["percent"]
    assert percent["PPV"] == {"mean": 75, "sd": None, "folds": 1}
    assert percent["TPR"]["folds"] == 2
    assert "| 75.00 (1 of 2 folds) |" in markdown(found)


def test_folds_without_positives_are_null_in_json_and_not_available_in_text():
    found = table("case", [cases(0, positive=0, negative=3), cases(1, positive=0, negative=3)])
    read = json.loads(json.dumps(found, allow_nan=False))
    assert read == found
    row = read["splits"]["imbalanced"]["rows"]["any slice"]
    assert row["percent"]["TPR"] == {"mean": None, "sd": None, "folds": 0}
    assert (row["roc_auc"], row["roc_auc_ci95"], row["average_precision"]) == (None, [None, None], None)
    assert row["brier"] is not None
    empty = read["splits"]["balanced"]
    assert (empty["positives"], empty["negatives"], empty["patients"]) == (0, 0, 0)
    assert empty["rows"]["any slice"]["brier"] is None
    assert "nan" not in markdown(found)
    assert "| n/a | n/a |" in markdown(found)


def test_the_markdown_has_a_line_per_split_and_row_with_the_numbers_of_the_json():
    found = table("case", [cases(0), cases(1)])
    lines = markdown(found).splitlines()
    body = [line.split(" | ") for line in lines if line.startswith(("| imbalanced", "| balanced"))]
    assert [cells[0].strip("| ") for cells in body] == ["imbalanced", "imbalanced", "balanced", "balanced"] * 2
    assert [cells[2] for cells in body] == ["BLSTM-96", "any slice"] * 4
    row = found["splits"]["imbalanced"]["rows"]["BLSTM-96"]
    assert body[0][1] == "16 / 64"
    assert body[0][3] == f"{row['percent']['TPR']['mean']:.2f} ± {row['percent']['TPR']['sd']:.2f}"
    low, high = row["roc_auc_ci95"]
    assert body[4][3] == f"{row['roc_auc']:.3f} ({low:.3f} to {high:.3f})"
    assert lines[0].startswith("Table 3 of paper 003, case level")


def test_every_line_of_a_markdown_table_has_the_same_cells():
    text = markdown(table("image", [images(0), images(1)]))
    assert text.startswith("Table 2 of paper 003, image level")
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def changed(fold: Fold, **values: object) -> Fold:
    return Fold(**{"labels": fold.labels, "patients": fold.patients, "rows": fold.rows} | values)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "at least one fold"),
        ([cases(0), cases(0)], "fold 2 shares 40 patients"),
        ([cases(0), changed(cases(1), rows={})], "fold 2 has the rows"),
        ([changed(cases(0), patients=np.arange(3))], "fold 1: every item needs a patient"),
        ([changed(cases(0), labels=np.full(40, 2))], "a label, 0 or 1"),
        (
            [changed(cases(0), rows={"x": Row(scores=np.zeros(3), threshold=0.5)})],
            "fold 1, x: every item needs a score",
        ),
        ([changed(cases(0), rows={"x": Row(scores=np.full(40, 1.5), threshold=0.5)})], "scores are probabilities"),
        ([changed(cases(0), rows={"x": Row(scores=np.full(40, np.nan), threshold=0.5)})], "scores are probabilities"),
    ],
)
def test_a_table_that_would_be_wrong_is_refused(folds, message):
    with pytest.raises(ValueError, match=message):
        table("case", folds)
