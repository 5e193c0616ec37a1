"""Training in miniature: what is learned from, when it stops, and a model folder that the pipeline accepts."""

import hashlib
import json
import re
import resource
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import pipeline, training, weights
from inference.evaluation.fracture import score
from inference.nets.cervical_fracture import features
from inference.nets.resnet import ResNet
from inference.phantom.cervical_ct import render, sample_spec
from inference.phantom.specification import GENERATOR_VERSION, SEEDS
from inference.pipelines.cervical_ct_fracture import load_nets
from inference.preprocess.crop import case_crop
from inference.training import fracture_cases, fracture_slices
from inference.training.fracture_cases import FeatureCase, SequenceSettings
from inference.training.fracture_slices import SliceSettings, balanced_slices, rate, slice_auc
from inference.training.phantom_cases import POSITIVE_MM2, prepare
from tests.cases import case_folder, write_case
from tests.models import NAME, TABLE, neck_volume
from tests.phantoms import SMALL_SEED

SETTINGS = """
[data]
profile = "standard"
size = 64
slice_cases = 4
sequence_cases = 4
validation_cases = 2
test_cases = 2

[slices]
width = 4
epochs = 2
batch = 8
learning_rate = 1e-3
warmup_epochs = 0.5
dropout = 0.1
patience = 2
seed = 3

[sequence]
units = 4
epochs = {epochs}
batch = 2
learning_rate = 1e-3
dropout = 0.1
patience = 2
seed = 3
"""


def slice_settings(**changes: float) -> SliceSettings:
    values = {"width": 2, "epochs": 3, "batch": 8, "learning_rate": 3e-3, "warmup_epochs": 0.5, "dropout": 0.0,
              "patience": 9, "seed": 1}  # fmt: skip
    return SliceSettings(**values | changes)  # type: ignore[arg-type]


def sequence_settings(**changes: float) -> SequenceSettings:
    values = {"units": 4, "epochs": 30, "batch": 4, "learning_rate": 1e-2, "dropout": 0.0, "patience": 30, "seed": 1}
    return SequenceSettings(**values | changes)  # type: ignore[arg-type]


def two_cases(folder: Path, *, first: int = 0, size: int = 32) -> list:
    return [write_case(folder, first + i, fractured=i == 0, size=size) for i in range(2)]


def silent(text: str) -> None:
    """Take progress and keep it to itself."""


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


def test_slices_with_enough_fracture_are_positive_and_with_a_trace_neither(tmp_path):
    case = replace(write_case(tmp_path, 0, fractured=True), area=np.array([0, 0.01, POSITIVE_MM2 - 0.01, POSITIVE_MM2]))
    assert case.labels.tolist() == [False, False, False, True]
    assert case.clear.tolist() == [True, False, False, True]


@pytest.mark.parametrize("size", [32, 36])  # 36 is no multiple of the 8 bits of a byte
def test_the_mask_of_a_case_is_that_of_its_slices_at_any_size(size, tmp_path):
    case = write_case(tmp_path, 0, fractured=True, size=size)
    assert case.mask.shape == case.hu.shape
    assert np.array_equal(case.mask.any((1, 2)), case.labels)
    for index in range(len(case.area)):
        assert np.array_equal(case.slice_mask(index), case.mask[index])


def test_hundreds_of_cases_hold_no_files_open(tmp_path):
    folder = case_folder(tmp_path, size=32)
    for seed in range(60):
        write_case(folder, seed, fractured=False, slices=8, size=32)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 40, hard))
    try:
        cases = prepare(range(60), profile="standard", size=32, cache=tmp_path, progress=silent)
        values = [case.hu[3, 4, 5] + case.slice_mask(2)[0, 0] for case in cases]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(values) == 60


def test_a_phantom_is_rendered_and_cropped_as_the_pipeline_crops_it_and_only_once(tmp_path):
    said: list[str] = []
    work = partial(prepare, [SMALL_SEED], profile="standard", size=48, cache=tmp_path, progress=said.append)
    (case,) = work()
    spec = sample_spec(SMALL_SEED)
    phantom = render(spec)
    crop = case_crop(phantom.volume, 48)
    assert np.array_equal(case.hu, crop.cut(torch.from_numpy(phantom.volume)).round().numpy())
    area = (phantom.fractures > 0).sum((1, 2)) * spec.scan.spacing[1] * spec.scan.spacing[2]
    assert case.area == pytest.approx(area, abs=0.01)
    assert case.fractured is bool(spec.acute) is True
    assert case.mask.any((1, 2)).sum() > 0
    assert not (case.mask.any((1, 2)) & (case.area == 0)).any()
    assert said == ["rendered 1 of 1 phantoms"]
    work()
    assert len(said) == 1


def test_a_phantom_of_an_interrupted_run_is_rendered_again(tmp_path):
    folder = case_folder(tmp_path, size=32)
    write_case(folder, SMALL_SEED, fractured=False, size=32)
    (folder / f"{SMALL_SEED}.json").unlink()
    (case,) = prepare([SMALL_SEED], profile="standard", size=32, cache=tmp_path, progress=silent)
    assert case.fractured
    assert len(case.hu) == sample_spec(SMALL_SEED).scan.shape[0]


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


def test_the_learning_rate_rises_once_and_falls_to_zero():
    settings = slice_settings(epochs=10, warmup_epochs=2)
    rates = [rate(epoch, settings) for epoch in np.linspace(0, 10, 101)]
    assert rates[0] < 0.01
    assert max(rates) == pytest.approx(1) == rates[20]
    assert rates[60] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0)
    assert (np.diff(rates[:21]) > 0).all()
    assert (np.diff(rates[20:]) < 0).all()
    assert rate(0, slice_settings(warmup_epochs=0)) == 1
    assert rate(12, settings) == pytest.approx(0)


def test_the_slice_network_of_the_best_epoch_is_returned(tmp_path):
    cases, said = two_cases(tmp_path), []
    net = fracture_slices.train(cases, cases, slice_settings(), progress=said.append)
    areas = [float(re.search(r"val AUC (\S+)", line).group(1)) for line in said]
    assert len(areas) == 3
    assert not net.training
    assert slice_auc(net, cases) == pytest.approx(max(areas), abs=1e-4)


def test_the_slice_network_learns_what_a_fracture_looks_like(tmp_path):
    cases = [write_case(tmp_path, i, fractured=i % 2 == 0, size=64) for i in range(6)]
    held_out = [write_case(tmp_path, 100 + i, fractured=i == 0, size=64) for i in range(2)]
    settings = slice_settings(width=4, epochs=12, learning_rate=1e-2, batch=6)
    assert slice_auc(fracture_slices.train(cases, held_out, settings, progress=silent), held_out) > 0.9


def test_the_same_seed_trains_the_same_slice_network(tmp_path):
    cases = two_cases(tmp_path)
    first, again = (fracture_slices.train(cases, cases, slice_settings(epochs=1), progress=silent) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_slice_training_stops_when_nothing_gets_better(tmp_path):
    cases, said = two_cases(tmp_path), []
    settings = slice_settings(epochs=20, patience=1, learning_rate=1e-9)
    fracture_slices.train(cases, cases, settings, progress=said.append)
    assert len(said) < 20


def test_slice_training_without_a_broken_validation_case_is_refused(tmp_path):
    cases = two_cases(tmp_path)
    with pytest.raises(ValueError, match="add validation cases"):
        fracture_slices.train(cases, cases[1:], slice_settings(epochs=1), progress=silent)


def test_slice_training_that_diverges_stops_with_the_losses(tmp_path):
    cases = two_cases(tmp_path)
    settings = slice_settings(learning_rate=1e30, warmup_epochs=0, batch=2)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fracture_slices.train(cases, cases, settings, progress=silent)


def test_features_of_a_case_are_those_of_the_pipeline(tmp_path):
    case, net = write_case(tmp_path, 0, fractured=True, size=32), ResNet(width=2).eval()
    plain, mirrored = fracture_cases.extract(net, case), fracture_cases.extract(net, case, flip=True)
    hu = torch.from_numpy(np.array(case.hu))
    assert torch.equal(plain.features, features(net, hu))
    assert torch.equal(mirrored.features, features(net, hu, flip=True))
    assert plain.labels.tolist() == case.labels.astype(float).tolist()
    assert plain.weights.tolist() == case.clear.astype(float).tolist()
    assert plain.fractured == 1.0


def test_the_sequence_network_learns_to_tell_cases_and_slices():
    said: list[str] = []
    net = fracture_cases.train(few()[:8], few()[8:], sequence_settings(), progress=said.append)
    losses = [float(re.search(r"val loss (\S+)", line).group(1)) for line in said]
    assert min(losses) < 0.5 * losses[0]
    assert not net.training
    for case in few()[8:]:
        with torch.inference_mode():
            slices, whole = net(case.features[None], torch.tensor([len(case.features)]))
        assert (whole[0] > 0) == bool(case.fractured)
        assert torch.equal(slices[0] > 0, case.labels > 0)


def test_sequence_training_stops_when_nothing_gets_better_and_returns_the_best_epoch():
    said: list[str] = []
    noise = [feature_case(fractured=i % 2 == 0, seed=i, noisy=True) for i in range(8)]
    settings = sequence_settings(epochs=200, patience=3)
    net = fracture_cases.train(noise[:4], noise[4:], settings, progress=said.append)
    assert len(said) < 200
    losses = [float(re.search(r"val loss (\S+)", line).group(1)) for line in said]
    assert int(np.argmin(losses)) == len(losses) - 1 - 3
    assert fracture_cases.validation_loss(net, noise[4:]) == pytest.approx(min(losses), abs=1e-4)


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
    slices = (sums[0]["slices"] * 8 + sums[1]["slices"] * 3) / 11
    assert together == pytest.approx(float(slices + (sums[0]["case"] + sums[1]["case"]) / 2), abs=1e-5)


def test_sequence_training_that_diverges_stops_with_the_losses():
    broken = replace(few()[0], features=torch.full((6, 6), float("nan")))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fracture_cases.train([broken], few(), sequence_settings(), progress=silent)


def write_settings(folder: Path, *, epochs: int = 2) -> Path:
    (folder / "training").mkdir(parents=True, exist_ok=True)
    (folder / "training" / f"{NAME}.toml").write_text(SETTINGS.format(epochs=epochs))
    return folder


def train(folder: Path, *, render: bool = False, **settings: int) -> tuple[Path, list[str]]:
    """Run the whole training; return the model folder and what was said.

    Cases are made without rendering, with `render` only those for validation, whose first phantoms are intact.
    """
    cases = case_folder(folder / "cache")
    for part, count in (("val", 2),) if render else (("train", 8), ("val", 2), ("test", 2)):
        for number, seed in enumerate(SEEDS[part][:count]):
            if not (cases / f"{seed}.json").exists():
                write_case(cases, seed, fractured=number % 2 == 0, slices=24)
    said: list[str] = []
    config = write_settings(folder / "config", **settings)
    out = training.run(NAME, config_dir=config, out=folder / "out", cache=folder / "cache", progress=said.append)
    return out, said


def install(model: Path, folder: Path) -> Path:
    """Put a trained model into a configuration folder of its own, pinned by the digest of its manifest."""
    place = folder / "models" / NAME
    place.mkdir(parents=True)
    for file in model.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    digest = hashlib.sha256((place / "manifest.json").read_bytes()).hexdigest()
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / f"{NAME}.toml").write_text(TABLE.format(sha256=digest))
    return folder


def test_a_training_from_phantoms_to_model_card_gives_a_model_that_the_pipeline_accepts(tmp_path):
    out, said = train(tmp_path, render=True)
    manifest = json.loads((out / "manifest.json").read_text())
    digest = hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    assert said[-1] == f'set manifest_sha256 = "{digest}" in config/pipelines/{NAME}.toml'
    assert weights.read_manifest(out, sha256=digest) == manifest
    assert manifest["training"]["generator_version"] == GENERATOR_VERSION
    assert [r["fractured"] for r in manifest["references"]] == [True, False]
    assert [r["seed"] for r in manifest["references"]] == [950_001, 950_000]
    assert [p["name"] for p in manifest["operating_points"]] == ["balanced", "screen"]
    assert manifest["metrics"]["cases"] == 2
    card = (out / "MODEL_CARD.md").read_text()
    for sentence in (manifest["notice"], manifest["trained_on"], *manifest["limitations"]):
        assert sentence in card

    loaded = pipeline.load(NAME, install(out, tmp_path / "installed"), "cpu")
    assert loaded.identity.sha256 == manifest["sha256"]
    analysis = loaded.run(neck_volume(slices=30))
    assert analysis.state == "done"
    assert len(analysis.slice_probabilities) == 30
    assert analysis.threshold == manifest["operating_points"][0]["threshold"]


def test_the_parameter_count_of_the_manifest_is_that_of_the_weights(tmp_path):
    out, _ = train(tmp_path)
    manifest = json.loads((out / "manifest.json").read_text())
    tensors = weights.load_tensors(out, manifest)
    counted = sum(t.numel() for name, t in tensors.items() if "running_" not in name and "num_batches" not in name)
    assert manifest["parameters"] == counted
    assert {t.dtype for t in tensors.values()} == {torch.float16, torch.int64}


def test_what_the_manifest_says_was_measured_with_the_weights_as_they_are_stored(tmp_path):
    out, _ = train(tmp_path)
    manifest = json.loads((out / "manifest.json").read_text())
    nets, temperature = load_nets(out, manifest, "cpu"), manifest["calibration"]["case_temperature"]
    cases = prepare(SEEDS["test"][:2], profile="standard", size=64, cache=tmp_path / "cache", progress=silent)
    for case, reference in zip(cases, manifest["references"], strict=True):
        probability = 1 / (1 + np.exp(-score(nets, case).case / temperature))
        assert reference["case_probability"] == pytest.approx(probability, abs=1e-7)


def test_an_interrupted_run_takes_up_its_slice_stage_and_ends_with_the_same_weights(tmp_path):
    out, said = train(tmp_path)
    first = json.loads((out / "manifest.json").read_text())
    assert any(line.startswith("slices epoch") for line in said)
    for file in ("manifest.json", "weights.safetensors", "MODEL_CARD.md"):
        (out / file).unlink()
    again, said = train(tmp_path, epochs=2)
    assert any(line.startswith("slice network from") for line in said)
    assert not any(line.startswith("slices epoch") for line in said)
    assert json.loads((again / "manifest.json").read_text())["sha256"] == first["sha256"]


def test_a_slice_stage_of_other_settings_is_trained_anew(tmp_path):
    out, _ = train(tmp_path)
    config = write_settings(tmp_path / "config")
    path = config / "training" / f"{NAME}.toml"
    path.write_text(path.read_text().replace("dropout = 0.1\npatience = 2", "dropout = 0.2\npatience = 2", 1))
    said: list[str] = []
    training.run(NAME, config_dir=config, out=out, cache=tmp_path / "cache", progress=said.append)
    assert any(line.startswith("slices epoch") for line in said)


def test_a_slice_stage_that_was_cut_off_while_it_was_written_is_trained_anew(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "slice-stage.part").write_bytes(b"half a file")
    _, said = train(tmp_path)
    assert any(line.startswith("slices epoch") for line in said)


def test_an_unknown_task_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=f"there is {NAME}"):
        training.run("lumbar", config_dir=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
