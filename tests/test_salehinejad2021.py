"""The paper 003 protocol in miniature: folds without leaks, both crops, files for people, and no work done twice."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import evaluation
from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case
from inference.evaluation import salehinejad2021_report
from inference.evaluation.paper_tables import COLUMNS
from inference.evaluation.salehinejad2021 import (
    Settings,
    answer,
    cropped,
    divided,
    read_settings,
    shuffled,
    stored_folds,
)
from tests.cases import silent, write_case
from tests.protocols import run_protocol, write_settings

ROOT = Path(__file__).resolve().parents[1]
NAME = "salehinejad2021"
SETTINGS = """
data = "phantom:standard@0+12"
folds = 3
ablation_folds = 1
control_folds = 1
top_k = 2
seed = 1

[slices]
size = 32
width = 2
epochs = 2
batch = 8
learning_rate = 3e-3
warmup_epochs = 0.5
dropout = 0.0
patience = 2
seed = 1

[sequence]
units = [3, 4]
epochs = 2
batch = 4
learning_rate = 1e-2
dropout = 0.0
patience = 2
seed = 1
"""


def small(folder: Path) -> Settings:
    return read_settings(write_settings(folder, NAME, SETTINGS))


def cases(folder: Path, *, count: int = 12, fractured: int = 6) -> list[Case]:
    """Write cases whose highest slices lie beside the others: what the two crops see differently."""
    found = [write_case(folder, number, fractured=number < fractured) for number in range(count)]
    for case in found:
        hu = np.array(case.hu)
        hu[9:] = np.roll(hu[9:], 12, axis=2)
        np.save(case.folder / "hu.npy", hu)
    return found


def run(folder: Path, *, progress=silent) -> list[Path]:
    return run_protocol(folder, NAME, SETTINGS, progress)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, list[Path]]:
    """Return the folder and the result files of one whole run."""
    folder = tmp_path_factory.mktemp("finished")
    cases(folder)
    return folder, run(folder)


def document(folder: Path) -> dict:
    return json.loads((folder / "out" / f"{NAME}.json").read_text())


def folds_file(folder: Path) -> Path:
    return folder / "out" / f"{NAME}-folds.json"


def test_a_run_leaves_numbers_a_page_and_pictures(finished):
    _, paths = finished
    assert [path.name for path in paths] == [
        f"{NAME}.json",
        f"{NAME}.md",
        *(f"{NAME}-{level}-{kind}.png" for level in ("image", "case")
          for kind in ("roc", "precision-recall", "reliability")),
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[2:])


def test_every_image_and_case_is_answered_once_by_every_row(finished):
    folder, _ = finished
    tables = document(folder)["tables"]
    image, case = (tables[level]["splits"]["imbalanced"] for level in ("image", "case"))
    assert (case["positives"], case["negatives"], case["patients"]) == (6, 6, 12)
    # 3 of 16 slices show the fracture, and one a trace of it, which has no label
    assert (image["positives"], image["negatives"]) == (6 * 3, 6 * 12 + 6 * 16)
    assert list(image["rows"]) == ["ResNet-50"]
    rows = ["any slice, threshold of the image level", "any slice", "mean of the 2 highest", "BLSTM-3", "BLSTM-4"]
    assert list(case["rows"]) == rows
    for row in case["rows"].values():
        assert all(sum(counts.values()) == 4 for counts in row["counts"])
    assert set(tables["image"]["splits"]) == {"imbalanced", "case-balanced", "image-balanced"}


def test_one_slice_at_the_image_threshold_makes_the_case_positive(finished):
    folder, _ = finished
    tables = document(folder)["tables"]
    image = tables["image"]["splits"]["imbalanced"]["rows"]["ResNet-50"]
    rows = tables["case"]["splits"]["imbalanced"]["rows"]
    assert rows["any slice, threshold of the image level"]["thresholds"] == image["thresholds"]
    assert rows["any slice, threshold of the image level"]["roc_auc"] == rows["any slice"]["roc_auc"]


def test_the_ablation_has_both_crops_on_the_same_cases_of_its_folds(finished):
    folder, _ = finished
    split = document(folder)["crop_ablation"]["case"]["splits"]["imbalanced"]
    assert (split["positives"], split["negatives"]) == (2, 2)
    assert {"BLSTM-3, case crop", "BLSTM-3, slice crop"} <= set(split["rows"])
    whole = document(folder)["tables"]["case"]["splits"]["imbalanced"]["rows"]["BLSTM-3"]
    assert split["rows"]["BLSTM-3, case crop"]["counts"] == whole["counts"][:1]
    assert split["rows"]["BLSTM-3, slice crop"]["brier"] != split["rows"]["BLSTM-3, case crop"]["brier"]


def test_the_control_answers_for_the_fractures_of_other_cases(finished):
    folder, paths = finished
    control, tables = document(folder)["control"], document(folder)["tables"]
    split = control["case"]["splits"]["imbalanced"]
    assert (split["positives"], split["negatives"]) == (2, 2)  # one fold, with as many of both
    rows, whole = split["rows"], tables["case"]["splits"]["imbalanced"]["rows"]
    assert list(rows) == list(whole)
    assert rows["BLSTM-3"]["counts"] != whole["BLSTM-3"]["counts"][:1]
    page = paths[1].read_text()
    assert "## Control: shuffled labels" in page
    assert f"| case | BLSTM-3 | {rows['BLSTM-3']['roc_auc']:.3f}" in page


def test_shuffled_cases_keep_their_images_and_have_all_of_anothers_labels(tmp_path):
    cut = [cropped(case, "case", 32) for case in cases(tmp_path, count=4, fractured=2)]
    folds = [np.array([0, 2]), np.array([1, 3])]
    found = shuffled(cut, folds, seed=1)
    assert [case.fractured for case in found] == [False, False, True, True]
    for case, own, donor in zip(found, cut, (cut[2], cut[3], cut[0], cut[1]), strict=True):
        assert np.array_equal(case.hu, own.hu)
        assert np.array_equal(case.labels, donor.labels)
        assert case.has_fractures is donor.has_fractures
    assert np.array_equal(found[2].fractures, cut[0].fractures)
    again = shuffled(cut, [np.array([0, 1, 2, 3])], seed=2)  # nothing of the first time is left
    assert [case.has_fractures for case in again] == [bool(case.fractured) for case in again]
    assert sum(bool(case.fractured) for case in again) == 2


def test_another_height_gets_the_fractures_at_the_same_share_of_it(tmp_path):
    tall, short = (cropped(case, "case", 32) for case in cases(tmp_path, count=2, fractured=1))
    hu = np.array(short.hu)[::2]
    (short.folder / "hu.npy").unlink()
    np.save(short.folder / "hu.npy", hu)
    short = replace(short, area=np.zeros(len(hu)))
    found = shuffled([tall, short], [np.array([0, 1])], seed=1)[1]
    assert len(found.labels) == len(found.fractures) == len(hu)
    middle = np.nonzero(tall.labels)[0].mean() / (len(tall.labels) - 1)
    assert np.nonzero(found.labels)[0].mean() / (len(hu) - 1) == pytest.approx(middle, abs=0.1)


def test_the_page_says_that_these_are_phantoms_how_many_are_fractured_and_whose_the_other_numbers_are(finished):
    _, paths = finished
    page = paths[1].read_text()
    assert "numbers on synthetic phantoms" in page
    assert "50.0 % of the cases and 9.7 % of the images are positive; in the paper 19.9 % and 1.7 %" in page
    assert "first 1 of the 3 folds" in page
    assert "arXiv 2010.13336, tables 2 and 3" in page
    assert "| 79.18±3.8 |" in page.partition("The paper's own numbers, on patients")[2]
    assert "{" not in page


def test_the_paper_s_numbers_agree_with_themselves(finished):
    folder, _ = finished
    for row in document(folder)["paper"]:
        values = [float(cell.partition("±")[0]) for cell in row["percent"].split()]
        assert len(values) == len(COLUMNS)
        assert values[-1] == pytest.approx((values[0] + values[1]) / 2, abs=0.02)


def test_another_data_set_is_named_and_not_called_a_phantom(finished):
    page = salehinejad2021_report.markdown(
        document(finished[0]) | {"data": "rsna2022:/data", "source": "RSNA 2022"}, pictures=[]
    )
    assert "rsna2022:/data (RSNA 2022)" in page
    assert "phantom" not in page


def test_a_finished_run_trains_nothing_again_and_says_the_same(finished):
    folder, paths = finished
    before = {path: path.read_bytes() for path in paths}
    said: list[str] = []
    run(folder, progress=said.append)
    assert sum(line.endswith("finished before") for line in said) == 5
    assert not [line for line in said if "epoch" in line]
    assert {path: path.read_bytes() for path in paths} == before


class PowerFailure(Exception):
    """What a test raises in the middle of a run."""


def test_an_interrupted_run_goes_on_in_its_fold_and_ends_as_if_nothing_had_happened(finished, tmp_path):
    cases(tmp_path)

    def fail(text: str) -> None:
        if "fold-2-of-3: sequence of 3 units: epoch 1/2" in text:
            raise PowerFailure

    with pytest.raises(PowerFailure):
        run(tmp_path, progress=fail)
    said: list[str] = []
    run(tmp_path, progress=said.append)
    assert "case-fold-1-of-3: finished before" in said
    assert not [line for line in said if "case-fold-2-of-3: slices: epoch" in line]
    assert [line for line in said if "case-fold-2-of-3: sequence of 3 units: going on after epoch 1" in line]
    assert document(tmp_path) == document(finished[0])


def test_other_settings_are_another_experiment(tmp_path):
    found = cases(tmp_path)
    settings = small(tmp_path)
    parts = divided([cropped(case, "case", 32) for case in found], stored(found, settings, tmp_path), 0)
    said: list[str] = []
    for changed in (settings, replace(settings, top_k=3)):
        answer(parts, changed, folder=tmp_path / "fold", device=torch.device("cpu"), progress=said.append)
    assert not [line for line in said if line.endswith("finished before")]
    assert [line for line in said if "answers.checkpoint is of a training with other" in line]


def stored(found: list[Case], settings: Settings, folder: Path) -> list[np.ndarray]:
    return stored_folds(found, settings, folder / "folds.json")


def test_a_patient_trains_decides_or_is_tested_and_each_is_tested_once(tmp_path):
    found = [write_case(tmp_path, number, fractured=number % 4 < 2, patient=f"p{number // 2}") for number in range(24)]
    folds = stored(found, small(tmp_path), tmp_path)
    tested: list[str] = []
    for number in range(3):
        parts = divided(found, folds, number)
        owners = {part: {case.patient for case in members} for part, members in parts.items()}
        assert sum(map(len, parts.values())) == 24
        assert sum(map(len, owners.values())) == len(set.union(*owners.values())) == 12
        tested += [case.name for case in parts["test"]]
    assert sorted(tested) == sorted(case.name for case in found)


def test_thresholds_and_answers_do_not_depend_on_what_else_is_tested(tmp_path):
    found = [cropped(case, "case", 32) for case in cases(tmp_path)]
    settings = small(tmp_path)
    parts = divided(found, stored(found, settings, tmp_path), 0)
    first = answer(parts, settings, folder=tmp_path / "a", device=torch.device("cpu"), progress=silent)
    fewer = {**parts, "test": parts["test"][:1]}
    second = answer(fewer, settings, folder=tmp_path / "b", device=torch.device("cpu"), progress=silent)
    for level in ("image", "case"):
        for name, row in second[level]["rows"].items():
            whole = first[level]["rows"][name]
            assert row["threshold"] == whole["threshold"]
            assert torch.equal(row["scores"], whole["scores"][: len(row["scores"])])


def test_the_folds_in_the_file_are_used_and_not_dealt_again(tmp_path):
    found = cases(tmp_path)
    settings = small(tmp_path)
    folds = stored(found, settings, tmp_path)
    text = (tmp_path / "folds.json").read_text()
    again = stored(found, settings, tmp_path)
    assert all(np.array_equal(one, other) for one, other in zip(folds, again, strict=True))
    assert json.loads(text)["names"][0] == [found[at].name for at in folds[0]]
    other = stored(found, replace(settings, seed=2), tmp_path)
    assert not all(np.array_equal(one, other) for one, other in zip(folds, other, strict=True))


def test_folds_that_were_changed_by_hand_are_refused(tmp_path):
    found = cases(tmp_path)
    settings = small(tmp_path)
    stored(found, settings, tmp_path)
    path = tmp_path / "folds.json"
    content = json.loads(path.read_text())
    content["names"][0].append(content["names"][1].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UnusableData, match=r"folds\.json does not fit the 12 cases of phantom:standard@0\+12: restore"):
        stored(found, settings, tmp_path)


def test_stored_folds_of_fewer_cases_are_refused(tmp_path):
    found = cases(tmp_path)
    stored(found[:11], small(tmp_path), tmp_path)
    with pytest.raises(UnusableData, match="does not fit the 12 cases"):
        stored(found, small(tmp_path), tmp_path)


def test_a_fold_without_a_fractured_case_is_refused(tmp_path):
    found = cases(tmp_path, fractured=2)
    with pytest.raises(UnusableData, match="no patient of class True.*fractured.*add cases"):
        stored(found, small(tmp_path), tmp_path)


def test_a_fold_without_a_fractured_slice_is_refused(tmp_path):
    found = [replace(case, area=np.zeros(16)) for case in cases(tmp_path)]
    with pytest.raises(UnusableData, match="fold 1 of 3 has no slice with a marked fracture"):
        stored(found, small(tmp_path), tmp_path)


def test_a_case_that_does_not_say_is_named(tmp_path):
    found = cases(tmp_path)
    found[4] = replace(found[4], fractured=None)
    with pytest.raises(UnusableData, match=f"1 cases do not say.*{found[4].name}"):
        stored(found, small(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("folds = 3", "folds = 2"),
        ("ablation_folds = 1", "ablation_folds = 4"),
        ("control_folds = 1", "control_folds = -1"),
    ],
)
def test_impossible_numbers_of_folds_are_refused(old, new, tmp_path):
    path = write_settings(tmp_path, NAME, SETTINGS.replace(f"\n{old}\n", f"\n{new}\n"))
    with pytest.raises(ValueError, match="at least 3 folds"):
        read_settings(path)


@pytest.mark.parametrize("name", [name for name in evaluation.PROTOCOLS if name.startswith(NAME)])
def test_the_committed_settings_are_the_paper_s_folds_and_units(name):
    settings = read_settings(ROOT / "config" / "protocols" / f"{name}.toml")
    assert settings.folds == 7
    assert [one.units for one in settings.sequences] == [96, 128, 256]
    assert {asdict(one)["epochs"] for one in settings.sequences} == {settings.sequences[0].epochs}


def test_the_full_protocol_trains_as_the_paper_does():
    settings = read_settings(ROOT / "config" / "protocols" / "salehinejad2021-full.toml")
    slices, sequence = settings.slices, settings.sequences[0]
    assert (slices.width, slices.size, slices.batch, slices.epochs) == (64, 384, 16, 50)
    assert (slices.learning_rate, slices.decay_epochs, slices.warmup_epochs) == (1e-3, 5, 0)
    assert (sequence.learning_rate, sequence.batch, sequence.epochs) == (1e-6, 4, 100)


def test_every_protocol_has_a_settings_file_and_an_unknown_one_is_named(tmp_path):
    assert {path.stem for path in (ROOT / "config" / "protocols").glob("*.toml")} == set(evaluation.PROTOCOLS)
    with pytest.raises(ValueError, match="no protocol 'shao': there is salehinejad2021"):
        evaluation.run_protocol("shao", config_dir=tmp_path, out=tmp_path, cache=tmp_path)
