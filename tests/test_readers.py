"""The reader study of paper 004: how boxes find each other, the counts by hand, tests, times, and refusals."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency

from inference.datasets import voc
from inference.datasets.annotation import Annotation
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox
from inference.evaluation import readers
from tests.mr_fixtures import write_csv

#: Of every case: label and left edge of boxes of 10 x 10 pixels.
Drawn = Mapping[str, Sequence[tuple[str, int]]]
TRUE: Drawn = {
    "1": [("disc", 0), ("herniation", 20), ("slip", 40)],
    "2": [("disc", 0), ("disc", 20), ("herniation", 40)],
    "3": [("disc", 0), ("slip", 20)],
}
#: One slip called a disc, one herniation missed, one herniation where nothing is.
JUNIOR: Drawn = {
    "1": [("disc", 0), ("herniation", 20), ("disc", 41)],
    "2": [("disc", 1), ("disc", 20), ("herniation", 80)],
    "3": [("slip", 21), ("disc", 0)],
}


def write(root: Path, reader: str, drawn: Drawn, *, columns: int = 100) -> None:
    (root / reader).mkdir(parents=True, exist_ok=True)
    for case, items in drawn.items():
        boxes = tuple(ImageBox(slice=0, left=x, top=5, right=x + 10, bottom=15, label=label) for label, x in items)
        annotation = Annotation(image=f"{case}.jpg", columns=columns, rows=50, boxes=boxes)
        voc.write(root / reader / f"{case}.xml", annotation)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for reader, drawn in (("truth", TRUE), ("network", TRUE), ("4 years", JUNIOR)):
        write(tmp_path, reader, drawn)
    return tmp_path


def refusal(root: Path, reference: str = "network") -> str:
    with pytest.raises(UnusableData) as refused:
        readers.study(root, reference=reference)
    return str(refused.value)


def counts(found: dict, reader: str, label: str) -> list[int]:
    return [found["readers"][reader][label][key] for key in ("tp", "fp", "tn", "fn")]


def test_the_counts_of_every_class_by_hand(root):
    found = readers.study(root, reference="network")
    assert (found["cases"], found["true_boxes"]) == (3, {"disc": 4, "herniation": 2, "slip": 2})
    # Eight true boxes, and for the junior one finding that is not there.
    assert counts(found, "4 years", "disc") == [4, 1, 4, 0]
    assert counts(found, "4 years", "herniation") == [1, 1, 6, 1]
    assert counts(found, "4 years", "slip") == [1, 0, 7, 1]
    assert counts(found, "network", "herniation") == [2, 0, 6, 0]
    junior = found["readers"]["4 years"]["herniation"]
    assert (junior["tpr"], junior["tnr"], junior["accuracy"]) == pytest.approx((1 / 2, 6 / 7, 7 / 9))


def test_intervals_are_over_cases(root):
    junior = readers.study(root, reference="network")["readers"]["4 years"]["disc"]
    low, high = junior["accuracy_ci95"]
    assert low < junior["accuracy"] < high
    assert junior["tpr_ci95"] == [1, 1]


def test_a_box_of_the_right_class_is_taken_before_a_nearer_one_of_another(tmp_path):
    write(tmp_path, "truth", {"1": [("herniation", 0)]})
    write(tmp_path, "network", {"1": [("slip", 0), ("herniation", 2)]})
    found = readers.study(tmp_path, reference="network")
    assert counts(found, "network", "herniation") == [1, 0, 1, 0]
    assert counts(found, "network", "slip") == [0, 1, 1, 0]


def test_a_herniation_and_a_slip_in_one_place_are_two_findings(tmp_path):
    both = {"1": [("herniation", 0), ("slip", 1)]}
    write(tmp_path, "truth", both)
    write(tmp_path, "network", both)
    write(tmp_path, "surgeon", {"1": [("herniation", 0)]})
    found = readers.study(tmp_path, reference="network")
    assert counts(found, "surgeon", "herniation") == [1, 0, 1, 0]
    assert counts(found, "surgeon", "slip") == [0, 0, 1, 1]


def test_a_class_without_a_true_box_has_no_sensitivity(tmp_path):
    for reader in ("truth", "network", "surgeon"):
        write(tmp_path, reader, {"1": [("disc", 0)], "2": []})
    found = readers.study(tmp_path, reference="network")
    slip = found["readers"]["surgeon"]["slip"]
    assert (slip["tpr"], slip["tnr"], slip["tpr_ci95"]) == (None, 1, [None, None])
    assert found["against_reference"]["surgeon"]["slip"] == {"sensitivity_p": None, "specificity_p": 1}
    assert found["chi_square"]["disc"] is None


def test_chi_square_is_of_right_and_wrong_answers(root):
    found = readers.study(root, reference="network")["chi_square"]
    # Of its nine findings the junior has one disc wrong, and two herniations; the network has eight, all right.
    assert found["disc"] == pytest.approx(chi2_contingency([[8, 1], [8, 0]], correction=False).pvalue)
    assert found["herniation"] == pytest.approx(chi2_contingency([[7, 2], [8, 0]], correction=False).pvalue)


def test_mcnemar_pairs_the_true_boxes_and_holm_counts_every_test(tmp_path):
    true = {str(n): [("herniation", 0), ("disc", 20)] for n in range(10)}
    wrong = {case: [("disc", 0), ("disc", 20)] for case in true}
    for reader, drawn in (("truth", true), ("network", true), ("a", wrong), ("b", true)):
        write(tmp_path, reader, drawn)
    found = readers.study(tmp_path, reference="network")["against_reference"]
    single = binomtest(0, 10).pvalue
    # Twelve tests, two of them without a true slip; the two smallest are a's herniations and discs.
    assert found["a"]["herniation"]["sensitivity_p"] == pytest.approx(12 * single)
    assert found["a"]["disc"]["specificity_p"] == pytest.approx(12 * single)
    assert found["a"]["disc"]["sensitivity_p"] == 1
    assert found["b"]["herniation"] == {"sensitivity_p": 1, "specificity_p": 1}
    assert set(found) == {"a", "b"}


def test_times_are_compared_case_by_case(root):
    seconds = {"network": [10, 20, 30], "4 years": [60, 80, 130]}
    rows = [f"{reader},{case},{one}" for reader, each in seconds.items() for case, one in zip("123", each, strict=True)]
    write_csv(root / "times.csv", "reader,case,seconds", *rows)
    found = readers.study(root, reference="network")["seconds"]
    assert found["network"] == {"mean": 20, "median": 20, "p": None}
    # All three differences have one sign: two of eight arrangements of signs are as extreme.
    assert found["4 years"] == {"mean": 90, "median": 80, "p": pytest.approx(0.25)}


def test_the_result_is_json_and_a_table(root, tmp_path):
    document, text = readers.write(root, tmp_path / "out", reference="network")
    found = json.loads(document.read_text())
    assert found["reference"] == "network"
    assert found["seconds"] is None
    table = text.read_text()
    assert "3 cases with 4 disc, 2 herniation, 2 slip" in table
    assert "| 4 years | herniation | 0.500 (" in table
    assert "| network | slip | 1.000 (1.000 to 1.000) |" in table
    assert "| 4 years | slip |" in table


def test_what_is_no_reader_study_is_refused(root):
    assert "it needs the folders truth and nobody" in refusal(root, "nobody")
    assert "it needs the folders truth and truth" in refusal(root, "truth")
    write(root, "4 years", {"9": []})
    assert "4 years: this reader read, without a truth, 9" in refusal(root)
    (root / "4 years" / "1.xml").unlink()
    assert "4 years: this reader did not read 1" in refusal(root)


def test_a_reader_of_another_image_is_refused(root):
    write(root, "4 years", {"1": []}, columns=99)
    assert "1.xml: drawn in an image of another size than the truth" in refusal(root)


def test_a_class_of_another_paper_is_refused(root):
    write(root, "4 years", {"1": [("oedema", 0)]})
    assert "class 'oedema' is none of disc, herniation, slip" in refusal(root)


def test_times_that_are_missing_or_no_numbers_are_refused(root):
    write_csv(root / "times.csv", "reader,case,seconds", "network,1,10")
    assert "times.csv: no time of 4 years, 1, and 4 more are missing" in refusal(root)
    write_csv(root / "times.csv", "reader,case,seconds", "network,1,fast")
    assert "line 2: seconds is 'fast', not a number" in refusal(root)


def test_the_order_of_boxes_in_the_files_does_not_matter(root):
    found = readers.study(root, reference="network")
    write(root, "4 years", {case: items[::-1] for case, items in JUNIOR.items()})
    assert readers.study(root, reference="network") == found
    assert np.isfinite(found["readers"]["4 years"]["disc"]["accuracy"])
