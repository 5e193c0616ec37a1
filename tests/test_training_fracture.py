"""Both stages of the cervical fracture training: what is learned from, what is learned, and what is refused."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case
from inference.nets.cervical_fracture import features
from inference.nets.resnet import ResNet
from inference.training import fracture_cases, fracture_slices
from inference.training.fracture_cases import FeatureCase, SequenceSettings
from inference.training.fracture_slices import Slices, SliceSettings, balanced_slices, slice_auc
from tests.cases import silent, write_case

CPU = torch.device("cpu")
SIZE = 32


def slice_settings(**changes: float) -> SliceSettings:
    values = {"size": SIZE, "width": 2, "epochs": 3, "batch": 8, "learning_rate": 3e-3, "warmup_epochs": 0.5,
              "dropout": 0.1, "patience": 9, "seed": 1}  # fmt: skip
    return SliceSettings(**values | changes)  # type: ignore[arg-type]


def sequence_settings(**changes: float) -> SequenceSettings:
    values = {"units": 4, "epochs": 30, "batch": 4, "learning_rate": 1e-2, "dropout": 0.1, "patience": 30, "seed": 1}
    return SequenceSettings(**values | changes)  # type: ignore[arg-type]


def two_cases(folder: Path) -> list[Case]:
    return [write_case(folder, number, fractured=number == 0, size=SIZE) for number in range(2)]


def said_values(said: list[str]) -> list[float]:
    return [float(re.search(r"validation score (\S+?),? ", line)[1]) for line in said]


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def feature_case(*, fractured: bool, seed: int, slices: int = 8, noisy: bool = False) -> FeatureCase:
    """Return features whose first number marks the broken slices of a broken case."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(slices, 6, generator=generator)
    labels = torch.zeros(slices)
    if fractured:
        labels[2:4] = 1
    values[:, 0] = 0 if noisy else 6 * labels - 3
    return FeatureCase(features=values, labels=labels, weights=torch.ones(slices), fractured=float(fractured))


@cache
def few() -> tuple[FeatureCase, ...]:
    return tuple(feature_case(fractured=i % 2 == 0, seed=i, slices=6 + i % 3) for i in range(12))


def test_a_balanced_epoch_has_every_broken_slice_and_as_many_intact_ones_from_both_kinds_of_case(tmp_path):
    cases = two_cases(tmp_path)
    chosen = balanced_slices(cases, np.random.default_rng(0))
    positive = [(c, s) for c, s, label in chosen if label]
    negative = [(c, s) for c, s, label in chosen if not label]
    assert sorted(positive) == [(0, int(s)) for s in np.flatnonzero(cases[0].labels)]
    assert len(negative) == 2 * (len(positive) // 2)
    assert sum(c == 0 for c, _ in negative) == sum(c == 1 for c, _ in negative)
    assert len(set(chosen)) == len(chosen)
    assert chosen != balanced_slices(cases, np.random.default_rng(1))


def test_slices_with_a_trace_of_fracture_are_never_drawn(tmp_path):
    cases = two_cases(tmp_path)
    (trace,) = np.flatnonzero(~cases[0].clear)
    drawn = {(c, s) for seed in range(60) for c, s, _ in balanced_slices(cases, np.random.default_rng(seed))}
    assert (0, int(trace)) not in drawn
    assert (1, int(trace)) in drawn


def test_a_training_slice_is_cropped_and_comes_with_its_mask(tmp_path):
    case, intact = two_cases(tmp_path)
    at = int(np.flatnonzero(case.labels)[0])
    shown, hidden = Slices([case, intact], [(0, at, True), (1, at, False)], 48)
    assert torch.equal(shown[0], case.hu_at([at], 48)[0])
    assert torch.equal(shown[1], case.fractures_at([at], 48)[0])
    assert shown[1].max() == 1
    assert torch.equal(hidden[0], intact.hu_at([at], 48)[0])
    assert hidden[1].abs().sum() == 0
    assert (float(shown[2]), float(hidden[2])) == (1, 0)


def test_the_slice_network_of_the_best_epoch_is_returned(tmp_path):
    cases, said = two_cases(tmp_path), []
    settings = slice_settings()
    net, history = fracture_slices.train(cases, cases, settings, folder=tmp_path, device=CPU, progress=said.append)
    assert set(history) == {"image loss", "cell loss", "validation score"}
    assert said_values(said) == pytest.approx(history["validation score"], abs=1e-4)
    assert all(line.startswith(f"slices: epoch {number}/3 ") for number, line in enumerate(said, start=1))
    assert not net.training
    assert slice_auc(net, cases, SIZE) == max(history["validation score"])


def test_the_slice_network_learns_what_a_fracture_looks_like(tmp_path):
    cases = [write_case(tmp_path, i, fractured=i % 2 == 0) for i in range(6)]
    held_out = [write_case(tmp_path, 100 + i, fractured=i == 0) for i in range(2)]
    settings = slice_settings(size=64, width=4, epochs=12, learning_rate=1e-2, batch=6)
    net, _ = fracture_slices.train(cases, held_out, settings, folder=tmp_path, device=CPU, progress=silent)
    assert slice_auc(net, held_out, 64) > 0.9


def test_the_same_seed_trains_the_same_slice_network_and_another_seed_another(tmp_path):
    cases = two_cases(tmp_path)

    def trained(name: str, seed: int) -> ResNet:
        (tmp_path / name).mkdir()
        settings = slice_settings(epochs=1, seed=seed)
        return fracture_slices.train(
            cases, cases, settings, folder=tmp_path / name, device=CPU, progress=silent
        )[0]  # fmt: skip

    first, again, other = trained("first", 1), trained("again", 1), trained("other", 2)
    assert equal(first, again)
    assert not equal(first, other)


def test_an_interrupted_slice_training_ends_with_the_same_network(tmp_path):
    cases = two_cases(tmp_path)
    (tmp_path / "whole").mkdir()
    whole, history = fracture_slices.train(
        cases, cases, slice_settings(), folder=tmp_path / "whole", device=CPU, progress=silent
    )

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fracture_slices.train(cases, cases, slice_settings(), folder=tmp_path, device=CPU, progress=interrupt)
    again, same = fracture_slices.train(cases, cases, slice_settings(), folder=tmp_path, device=CPU, progress=silent)
    assert same == history
    assert equal(again, whole)


@pytest.mark.parametrize(("fractured", "kind"), [(True, "is free of fractures"), (False, "shows a marked fracture")])
def test_slices_of_one_class_cannot_be_learned(fractured, kind, tmp_path):
    cases = [replace(case, fractured=fractured) for case in two_cases(tmp_path)]
    cases = [replace(case, area=np.full(16, 9.0 * fractured)) for case in cases]
    with pytest.raises(UnusableData, match=f"none of the 2 training cases {kind}"):
        fracture_slices.train(cases, cases, slice_settings(), folder=tmp_path, device=CPU, progress=silent)


def test_slice_training_without_a_broken_validation_case_is_refused(tmp_path):
    cases = two_cases(tmp_path)
    with pytest.raises(UnusableData, match="validation cases do not show both .* add cases"):
        fracture_slices.train(cases, cases[1:], slice_settings(), folder=tmp_path, device=CPU, progress=silent)


def test_slice_training_that_diverges_stops_with_the_loss(tmp_path):
    cases = two_cases(tmp_path)
    settings = slice_settings(learning_rate=1e30, warmup_epochs=0, batch=3)
    with pytest.raises(FloatingPointError, match=r"epoch \d: image loss is nan; lower the learning rate"):
        fracture_slices.train(cases, cases, settings, folder=tmp_path, device=CPU, progress=silent)


def test_features_of_a_case_are_those_of_the_pipeline(tmp_path):
    case, net = write_case(tmp_path, 0, fractured=True), ResNet(width=2).eval()
    plain, mirrored = fracture_cases.extract(net, case, 48), fracture_cases.extract(net, case, 48, flip=True)
    hu = case.crop.cut(torch.from_numpy(np.array(case.hu)), 48)
    assert torch.equal(plain.features, features(net, hu))
    assert torch.equal(mirrored.features, features(net, hu, flip=True))
    assert plain.labels.tolist() == case.labels.astype(float).tolist()
    assert plain.weights.tolist() == case.clear.astype(float).tolist()
    assert plain.fractured == 1.0


def test_a_case_of_which_nobody_says_whether_it_is_fractured_is_refused(tmp_path):
    case = replace(write_case(tmp_path, 0, fractured=True), fractured=None)
    with pytest.raises(UnusableData, match=rf"{case.name} \(tests\) does not say"):
        fracture_cases.extract(ResNet(width=2), case, SIZE)


def test_the_sequence_network_learns_to_tell_cases_and_slices(tmp_path):
    net, history = fracture_cases.train(
        few()[:8], few()[8:], sequence_settings(), folder=tmp_path, progress=silent
    )  # fmt: skip
    assert set(history) == {"case loss", "slice loss", "validation score"}
    losses = -np.array(history["validation score"])
    assert min(losses) < 0.5 * losses[0]
    assert not net.training
    for case in few()[8:]:
        with torch.inference_mode():
            slices, whole = net(case.features[None], torch.tensor([len(case.features)]))
        assert (whole[0] > 0) == bool(case.fractured)
        assert torch.equal(slices[0] > 0, case.labels > 0)


def test_sequence_training_stops_when_nothing_gets_better_and_returns_the_best_epoch(tmp_path):
    noise = [feature_case(fractured=i % 2 == 0, seed=i, noisy=True) for i in range(8)]
    settings = sequence_settings(epochs=200, patience=3)
    net, history = fracture_cases.train(noise[:4], noise[4:], settings, folder=tmp_path, progress=silent)
    scores = history["validation score"]
    assert int(np.argmax(scores)) == len(scores) - 1 - 3 < 196
    assert fracture_cases.validation_loss(net, noise[4:]) == pytest.approx(-max(scores), abs=1e-6)


def test_a_sequence_training_on_other_features_does_not_go_on_from_the_old_ones(tmp_path):
    said: list[str] = []
    settings = sequence_settings(epochs=2)
    for cases in (few()[:8], few()[:8], few()[2:8]):
        said.append("next")
        fracture_cases.train(cases, few()[8:], settings, folder=tmp_path, progress=said.append)
    first, same, other = " ".join(said).split("next")[1:]
    assert "going on" not in first
    assert "going on after epoch 2" in same
    assert "other data or settings: starting anew" in other


def test_slices_with_a_trace_of_fracture_and_padding_are_left_out_of_the_loss():
    torch.manual_seed(0)
    net = fracture_cases.SliceSequence(features=6, units=4)
    case = feature_case(fractured=True, seed=1)
    unsure = replace(case, weights=torch.tensor([1.0, 0, 1, 1, 1, 1, 1, 1]))
    other = replace(unsure, labels=torch.where(unsure.weights > 0, unsure.labels, 1 - unsure.labels))
    assert fracture_cases.validation_loss(net, [unsure]) == fracture_cases.validation_loss(net, [other])
    assert fracture_cases.validation_loss(net, [unsure]) != fracture_cases.validation_loss(net, [case])
    short = feature_case(fractured=False, seed=2, slices=3)
    together = fracture_cases.validation_loss(net, [case, short])
    with torch.inference_mode():
        sums = [fracture_cases._losses(net, [one]) for one in (case, short)]
    slices = (sums[0]["slice loss"] * 8 + sums[1]["slice loss"] * 3) / 11
    assert together == pytest.approx(float(slices + (sums[0]["case loss"] + sums[1]["case loss"]) / 2), abs=1e-5)


def test_a_batch_without_a_labelled_slice_still_learns_the_case():
    net = fracture_cases.SliceSequence(features=6, units=4)
    case = replace(feature_case(fractured=True, seed=1), weights=torch.zeros(8))
    losses = fracture_cases._losses(net, [case])
    assert losses["slice loss"] == 0
    assert losses["case loss"] > 0


def test_sequence_training_that_diverges_stops_with_the_loss(tmp_path):
    broken = replace(few()[0], features=torch.full((6, 6), float("nan")))
    with pytest.raises(FloatingPointError, match="epoch 1: case loss is nan; lower the learning rate"):
        fracture_cases.train([broken], few(), sequence_settings(), folder=tmp_path, progress=silent)
