"""Metrics against cases computed by hand, and the evaluation of a pinned model on cached phantoms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import evaluation
from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case
from inference.evaluation.binary import expected_calibration_error
from inference.evaluation.fracture import ScoredCase, measure, pointing_game, score
from inference.nets.cervical_fracture import FractureNets, features
from inference.nets.sequence import SliceSequence
from inference.preprocess.crop import Crop
from inference.training.fracture_slices import area_under_curve
from tests.cases import silent, write_case
from tests.models import NAME, Spotlight, networks, write_config

NO_TEMPERATURE = {"case_temperature": 1.0, "slice_temperature": 1.0, "indeterminate": (0.4, 0.6)}
POINTS = [{"name": "balanced", "threshold": 0.5, "slice_threshold": 0.5}]


def scored(
    case: float, fractured: bool, *, slices: list[float], labels: list[int], unclear: tuple[int, ...] = (), **more: list
) -> ScoredCase:
    """Return one scored case; `alone` are the logits of the slice network, by default those of the sequence."""
    clear = np.ones(len(slices), bool)
    clear[list(unclear)] = False
    alone = np.array(more.get("alone", slices), np.float32)
    values = np.array(slices, np.float32)
    return ScoredCase(
        case=case,
        slices=values,
        alone=alone,
        features=torch.zeros(len(values), 4),
        content={},
        fractured=fractured,
        labels=np.array(labels, bool),
        clear=clear,
    )


def four_cases() -> list[ScoredCase]:
    """Return two broken and two intact cases with two mistakes at 0.5: one missed case, one false slice."""
    return [
        scored(2.0, True, slices=[-1, 3, -2], labels=[0, 1, 0]),
        scored(-0.5, True, slices=[-3, 0.5, 9], labels=[0, 1, 0], unclear=(2,), alone=[-3, 2, 1]),
        scored(-1.0, False, slices=[-2, 1, -2], labels=[0, 0, 0], alone=[-2, 2.5, 2.2]),
        scored(-3.0, False, slices=[-2, -2, -2], labels=[0, 0, 0]),
    ]


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.75),  # three of four pairs in order
        ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),
        ([1, 1, 2], [0, 1, 1], 0.75),  # one pair tied, one in order
    ],
)
def test_the_area_under_the_curve_counts_pairs_in_order(scores, labels, area):
    assert area_under_curve(np.array(scores), np.array(labels)) == area


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_the_area_of_one_class_is_not_defined(labels):
    assert np.isnan(area_under_curve(np.arange(len(labels)), np.array(labels)))


def test_shuffled_labels_have_an_area_of_a_half():
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.3
    scores = labels + rng.normal(0, 0.5, 4000)
    assert area_under_curve(scores, labels) > 0.9
    assert area_under_curve(scores, rng.permutation(labels)) == pytest.approx(0.5, abs=0.03)


def test_counts_leave_out_slices_with_a_trace_of_fracture():
    metrics = measure(four_cases(), NO_TEMPERATURE, POINTS)
    assert (metrics["cases"], metrics["fractured_cases"]) == (4, 2)
    assert (metrics["slices"], metrics["fractured_slices"]) == (11, 2)


def test_slices_are_ranked_and_judged_as_by_hand():
    image = measure(four_cases(), NO_TEMPERATURE, POINTS)["image"]
    with_sequence = image["with sequence network"]
    # positives 3 and 0.5 against nine negatives -1 -2 -3 -2 1 -2 -2 -2 -2: one of 18 pairs is out of order
    assert with_sequence["auc"] == pytest.approx(17 / 18)
    assert with_sequence["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert with_sequence["sensitivity"] == 1
    assert with_sequence["specificity"] == pytest.approx(8 / 9)
    assert image["slice network alone"]["auc"] == pytest.approx(16 / 18)  # 3 and 2 against 2.5 and 2.2


def test_cases_are_ranked_and_judged_as_by_hand():
    case = measure(four_cases(), NO_TEMPERATURE, POINTS)["case"]
    assert case["sequence network"]["auc"] == 1
    assert case["sequence network"]["average_precision"] == 1
    point = case["operating_points"]["balanced"]
    assert (point["sensitivity"], point["specificity"]) == (0.5, 1)
    probabilities = 1 / (1 + np.exp([-2.0, 0.5, 1.0, 3.0]))
    assert case["sequence network"]["brier"] == pytest.approx(np.mean((probabilities - [1, 1, 0, 0]) ** 2))


def test_the_any_slice_rule_takes_the_highest_slice_of_the_slice_network():
    # highest: 3 and 2 (not the 9 of the sequence network) against 2.5 and -2
    assert measure(four_cases(), NO_TEMPERATURE, POINTS)["case"]["any slice"]["auc"] == 0.75


def test_temperature_changes_probabilities_but_no_ranking():
    hot = {**NO_TEMPERATURE, "case_temperature": 4.0, "slice_temperature": 4.0}
    plain, calibrated = measure(four_cases(), NO_TEMPERATURE, POINTS), measure(four_cases(), hot, POINTS)
    assert calibrated["case"]["sequence network"]["auc"] == plain["case"]["sequence network"]["auc"]
    assert calibrated["case"]["sequence network"]["brier"] != plain["case"]["sequence network"]["brier"]
    strict = [{"name": "strict", "threshold": 0.6, "slice_threshold": 0.6}]
    # logit 2 is a probability of 0.88, and of 0.62 at a temperature of 4
    assert measure(four_cases(), hot, strict)["case"]["operating_points"]["strict"]["sensitivity"] == 0.5
    stricter = [{"name": "strict", "threshold": 0.63, "slice_threshold": 0.6}]
    assert measure(four_cases(), hot, stricter)["case"]["operating_points"]["strict"]["sensitivity"] == 0


@pytest.mark.parametrize(
    ("zone", "indeterminate", "right"),
    [((0.6, 0.8), 0.5, 1.0), ((0.1, 0.7), 0.25, 2 / 3), ((0.0, 1.0), 1.0, None), ((0.5, 0.51), 0.0, 0.75)],
)
def test_cases_in_the_indeterminate_zone_are_counted_and_the_others_judged(zone, indeterminate, right):
    # probabilities .88 and .62 of fractured cases, .73 and .05 of intact ones
    cases = [
        scored(logit, fractured, slices=[0], labels=[int(fractured)])
        for logit, fractured in ((2.0, True), (0.5, True), (1.0, False), (-3.0, False))
    ]
    row = measure(cases, {**NO_TEMPERATURE, "indeterminate": zone}, POINTS)["case"]["sequence network"]
    assert (row["indeterminate"], row["right_among_others"]) == (indeterminate, right)


def test_very_sure_answers_are_still_ranked():
    cases = [scored(30.0, True, slices=[25], labels=[1]), scored(20.0, False, slices=[20], labels=[0])]
    metrics = measure(cases, NO_TEMPERATURE, POINTS)
    for row in (metrics["image"]["with sequence network"], metrics["case"]["sequence network"]):
        assert (row["auc"], row["average_precision"]) == (1, 1)


def test_intervals_hold_their_value():
    rng = np.random.default_rng(2)
    cases = [scored(rng.normal() + i % 2, bool(i % 2), slices=[rng.normal()], labels=[i % 2]) for i in range(60)]
    row = measure(cases, NO_TEMPERATURE, POINTS)["case"]["sequence network"]
    low, high = row["auc_ci95"]
    assert 0.4 < low < row["auc"] < high < 1


def test_models_that_know_nothing_score_about_a_half():
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.arange(400) % 2 == 0)
    cases = [
        scored(rng.normal(), bool(label), slices=list(rng.normal(size=3)), labels=[int(label), 0, 0])
        for label in labels
    ]
    metrics = measure(cases, NO_TEMPERATURE, POINTS)
    for row in (metrics["case"]["sequence network"], metrics["case"]["any slice"], *metrics["image"].values()):
        assert row["auc"] == pytest.approx(0.5, abs=0.08)
    assert metrics["case"]["sequence network"]["average_precision"] == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("probability", "labels", "error"),
    [
        (list(np.linspace(0.4999, 0.5001, 30)), [0, 1] * 15, 0.0),  # one of two in every bin
        ([0.9] * 30, [0] * 30, 0.9),
        ([0.2] * 14 + [0.8] * 16, [0] * 14 + [1] * 16, 0.2),
        ([0.3], [1], 0.7),
    ],
)
def test_calibration_error_is_the_mean_gap_between_confidence_and_frequency(probability, labels, error):
    logits = np.log(np.array(probability) / (1 - np.array(probability)))
    assert expected_calibration_error(logits, np.array(labels, bool)) == pytest.approx(error, abs=1e-4)


def spotlight() -> FractureNets:
    """Return networks that look at the brightest place."""
    return FractureNets(Spotlight().eval(), SliceSequence(features=3, units=2).eval())


def bright_case(folder: Path, *, place: tuple[int, int] = (8, 8), fractured: bool = True) -> Case:
    """Return a case with a bright spot of 8 pixels at (8, 8) of every slice, and a fracture as large at `place`."""
    case = write_case(folder, 1, fractured=fractured, slices=8, size=64)
    hu, fractures = np.full((8, 64, 64), -500, np.int16), np.zeros((8, 64, 64), bool)
    hu[:, 8:16, 8:16] = 1200
    if fractured:
        fractures[1:3, place[0] : place[0] + 8, place[1] : place[1] + 8] = True
    np.save(case.folder / "hu.npy", hu)
    np.save(case.folder / "fractures.npy", fractures)
    return replace(case, area=fractures.sum((1, 2)) * 0.5, crop=Crop(top=0, left=0, side=64, image=(64, 64)))


@pytest.mark.parametrize("hit", [True, False])
def test_the_pointing_game_is_won_where_the_map_is_highest(hit, tmp_path):
    case = bright_case(tmp_path, place=(8, 8) if hit else (48, 48))
    result = pointing_game(spotlight(), [case], 64, silent)
    assert result["slices"] == 2  # those with a mask, of the four with the largest area
    assert result["hit_rate"] == float(hit)
    assert result["random_point_on_bone"] == float(hit)
    assert result["energy_near_fracture"] == pytest.approx(float(hit), abs=0.01)


@pytest.mark.parametrize(("column", "hit"), [(24, True), (32, False)])
def test_the_pointing_game_forgives_fifteen_pixels(column, hit, tmp_path):
    case = bright_case(tmp_path, place=(8, column))  # the map is highest in column 11 or 12
    assert pointing_game(spotlight(), [case], 64, silent)["hit_rate"] == float(hit)


def test_the_pointing_game_is_played_at_the_size_of_the_network(tmp_path):
    case = bright_case(tmp_path, place=(0, 28))  # 15 pixels are twice as many mm at half the size
    assert pointing_game(spotlight(), [case], 64, silent)["hit_rate"] == 0
    assert pointing_game(spotlight(), [case], 32, silent)["hit_rate"] == 1


def test_the_pointing_game_leaves_out_cases_without_a_marked_fracture(tmp_path):
    intact = bright_case(tmp_path / "b", fractured=False)
    unmarked = replace(write_case(tmp_path / "c", 2, fractured=True), area=None)
    (unmarked.folder / "fractures.npy").unlink()
    result = pointing_game(spotlight(), [bright_case(tmp_path / "a"), intact, unmarked], 64, silent)
    assert (result["slices"], result["hit_rate"]) == (2, 1)


def untrained() -> FractureNets:
    nets = networks()
    return FractureNets(nets["slices"], nets["sequence"])  # type: ignore[arg-type]


def test_a_case_is_scored_as_the_pipeline_scores_it(tmp_path):
    case = write_case(tmp_path, 3, fractured=True, slices=6)
    nets = untrained()
    hu = case.crop.cut(torch.from_numpy(np.array(case.hu)), 32)
    result, expected = score(nets, case, 32), nets.score(hu)
    assert result.case == pytest.approx(float(expected.case.mean()))
    assert result.slices == pytest.approx(expected.slices.mean(0).numpy())
    with torch.inference_mode():
        alone = [nets.slices.fc(features(nets.slices, hu, flip=flip))[:, 0] for flip in (False, True)]
    assert result.alone == pytest.approx(((alone[0] + alone[1]) / 2).numpy())
    assert result.labels.tolist() == case.labels.tolist()
    assert result.clear.tolist() == case.clear.tolist()
    assert result.fractured


def test_a_case_of_which_nobody_says_whether_it_is_fractured_cannot_be_scored(tmp_path):
    case = replace(write_case(tmp_path, 3, fractured=True), fractured=None)
    with pytest.raises(UnusableData, match=rf"{case.name} \(tests\) does not say"):
        score(untrained(), case, 32)


@pytest.mark.parametrize(
    ("data", "cases", "fractured"), [(None, 4, 2), ("phantom:standard@950001+2", 2, 1)], ids=["manifest", "other data"]
)
def test_the_pinned_model_is_evaluated_on_the_data_of_its_manifest_or_on_others(data, cases, fractured, tmp_path):
    set_aside = {"settings": {"data": {"test": "phantom:standard@950000+4"}}}
    config = write_config(tmp_path / "config", training=set_aside)
    for seed in range(950_000, 950_004):
        write_case(tmp_path / "cache", seed, fractured=seed % 2 == 0, slices=8, size=32)
    paths = evaluation.run(
        NAME, config_dir=config, out=tmp_path / "out", cache=tmp_path / "cache", data=data, progress=silent
    )
    document, table = paths
    name = f"{NAME}-phantom-standard-950001-2" if data else NAME
    assert [path.name for path in paths] == [f"{name}.json", f"{name}.md"]
    assert json.loads(document.read_text())["within_range"] == {"content": 1.0, "features": 1.0}
    content = json.loads(document.read_text())
    manifest = json.loads((config / "models" / NAME / "manifest.json").read_text())
    assert content["model_sha256"] == manifest["sha256"]
    assert content["data"] == (data or "phantom:standard@950000+4")
    assert (content["cases"], content["fractured_cases"]) == (cases, fractured)
    assert content["data"] in table.read_text()
    assert set(content["case"]["operating_points"]) == {"balanced", "screen"}
    assert "Untrained." in table.read_text()  # the notice of the model
    assert "| cases, sequence network |" in table.read_text()


def test_an_unknown_task_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=f"there is {NAME}"):
        evaluation.run("lumbar", config_dir=tmp_path, out=tmp_path / "out", cache=tmp_path)
    assert not (tmp_path / "out").exists()
