"""Training in miniature from cached cases to a model folder that the pipeline accepts, interrupted and not."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import cervical_ct, pipeline, training, weights
from inference.datasets.labelled import UnusableData
from inference.datasets.store import prepare
from inference.evaluation.fracture import score
from inference.phantom.specification import GENERATOR_VERSION
from tests.cases import silent, write_case
from tests.models import NAME, TABLE, neck_volume

SETTINGS = """
[data]
slices = "phantom:standard@0+4"
sequence = "phantom:standard@4+4"
validation = "phantom:standard@900000+2"
test = "phantom:standard@950000+2"

[slices]
size = 64
width = 2
epochs = 2
batch = 8
learning_rate = 1e-3
warmup_epochs = 0.5
dropout = 0.1
patience = 2
seed = 3

[sequence]
units = 4
epochs = 2
batch = 2
learning_rate = 1e-3
dropout = 0.1
patience = 2
seed = 3
"""
SEEDS = (*range(8), 900_000, 900_001, 950_000, 950_001)


class Interrupted(Exception):
    """What a test raises where a machine would be switched off."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training configuration and every case that it names; even seeds are fractured."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "training").mkdir()
    (folder / "training" / f"{NAME}.toml").write_text(SETTINGS)
    for seed in SEEDS:
        write_case(folder / "cases", seed, fractured=seed % 2 == 0)
    return folder


def train(place: Path, out: Path, *, progress: Callable[[str], None] = silent, data: str | None = None) -> Path:
    """Run the whole training on the CPU."""
    return training.run(
        NAME, config_dir=place, out=out, data=data, cache=place / "cases", device="cpu", progress=progress
    )


@pytest.fixture(scope="module")
def trained(place: Path) -> tuple[Path, list[str]]:
    """One finished training and what it said."""
    said: list[str] = []
    return train(place, place / "out", progress=said.append), said


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def install(model: Path, folder: Path) -> Path:
    """Put a trained model into a configuration folder of its own, pinned by the digest of its manifest."""
    shutil.copytree(model, folder / "models" / NAME)
    digest = hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / f"{NAME}.toml").write_text(TABLE.format(sha256=digest))
    return folder


def test_a_training_leaves_weights_manifest_card_and_curves(trained):
    out, said = trained
    manifest = manifest_of(out)
    digest = hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    assert said[-1] == f'{out}: set manifest_sha256 = "{digest}" in config/pipelines/'
    assert weights.read_manifest(out, sha256=digest) == manifest
    assert manifest["synthetic_training_data"] is True
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["training"]["command"] == f"dicomnode train {NAME}"
    assert manifest["training"]["settings"]["data"]["test"] == "phantom:standard@950000+2"
    assert [p["name"] for p in manifest["operating_points"]] == ["balanced", "screen", "flag"]
    assert manifest["metrics"]["cases"] == 2
    assert manifest["metrics"]["grad_cam"]["slices"] == 3
    card = (out / "MODEL_CARD.md").read_text()
    for sentence in (manifest["notice"], manifest["trained_on"], *manifest["limitations"]):
        assert sentence in card
    for stage in ("slices", "sequence"):
        assert (out / f"{stage}-curves.png").read_bytes().startswith(b"\x89PNG")
        assert all(len(values) == 2 for values in manifest["training"]["curves"][stage].values())


def test_the_references_are_a_broken_and_an_intact_test_case_by_name(trained):
    references = manifest_of(trained[0])["references"]
    assert [(r["case"], r["fractured"]) for r in references] == [
        (f"cervical-ct-v{GENERATOR_VERSION}-standard-950000", True),
        (f"cervical-ct-v{GENERATOR_VERSION}-standard-950001", False),
    ]


def test_a_trained_model_is_one_that_the_pipeline_accepts_with_its_gate(trained, tmp_path):
    manifest = manifest_of(trained[0])
    loaded = pipeline.load(NAME, install(trained[0], tmp_path), "cpu")
    assert loaded.identity.sha256 == manifest["sha256"]
    analysis = loaded.run(neck_volume(slices=30))  # nothing like the cases that the model learned from
    assert analysis.state == "not_applicable"
    assert analysis.reason.startswith("no images like those that the model was validated with")
    assert analysis.threshold == manifest["operating_points"][0]["threshold"]


def test_the_parameter_count_of_the_manifest_is_that_of_the_weights(trained):
    manifest = manifest_of(trained[0])
    tensors = weights.load_tensors(trained[0], manifest)
    others = ("running_", "num_batches", "novelty.")  # not learned by descent
    counted = sum(t.numel() for name, t in tensors.items() if not any(word in name for word in others))
    assert manifest["parameters"] == counted
    assert {t.dtype for t in tensors.values()} == {torch.float16, torch.int64}


def test_what_the_manifest_says_was_measured_with_the_weights_as_they_are_stored(place, trained):
    manifest = manifest_of(trained[0])
    nets = cervical_ct.fracture_nets(trained[0], manifest, "cpu")
    temperature = manifest["calibration"]["case_temperature"]
    cases = prepare("phantom:standard@950000+2", cache=place / "cases", progress=silent)
    for case, reference in zip(cases, manifest["references"], strict=True):
        probability = 1 / (1 + np.exp(-score(nets, case, 64).case / temperature))
        assert reference["case_probability"] == pytest.approx(probability, abs=1e-7)


@pytest.mark.parametrize(
    "last_words", ["slices: epoch 1/2", "features of 4 cases, mirrored", "sequence of 4 units: epoch 1/2"]
)
def test_a_training_interrupted_in_any_stage_ends_with_the_weights_of_one_that_was_not(
    last_words, place, trained, tmp_path
):
    def interrupt(text: str) -> None:
        if text.startswith(last_words):
            raise Interrupted

    with pytest.raises(Interrupted):
        train(place, tmp_path, progress=interrupt)
    assert not (tmp_path / "manifest.json").exists()
    said: list[str] = []
    train(place, tmp_path, progress=said.append)
    assert any(line.startswith("slices: going on after epoch") for line in said)
    whole, again = manifest_of(trained[0]), manifest_of(tmp_path)
    assert again["sha256"] == whole["sha256"]
    assert again["references"] == whole["references"]
    assert again["training"]["curves"] == whole["training"]["curves"]


def test_the_same_seeds_give_the_same_weights_twice(place, trained, tmp_path):
    assert manifest_of(train(place, tmp_path))["sha256"] == manifest_of(trained[0])["sha256"]


@pytest.fixture
def changed(place: Path, tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """A configuration folder on the same cases with one text of its settings replaced."""

    def change(old: str, new: str) -> Path:
        assert SETTINGS.count(old) >= 1
        (tmp_path / "training").mkdir()
        (tmp_path / "training" / f"{NAME}.toml").write_text(SETTINGS.replace(old, new, 1))
        (tmp_path / "cases").symlink_to(place / "cases")
        return tmp_path

    return change


def test_a_slice_stage_of_other_settings_is_trained_anew(trained, changed):
    place = changed("dropout = 0.1", "dropout = 0.2")
    shutil.copytree(trained[0], place / "out")
    said: list[str] = []
    train(place, place / "out", progress=said.append)
    assert [line for line in said if line.startswith("slices: ")][0].endswith("starting anew")
    assert manifest_of(place / "out")["sha256"] != manifest_of(trained[0])["sha256"]


@pytest.mark.parametrize(
    ("part", "old", "new", "lacking"),
    [
        ("test", "@950000+2", "@950001+1", "is fractured"),
        ("test", "@950000+2", "@950000+1", "is free of fractures"),
        ("validation", "@900000+2", "@900001+1", "is fractured"),
        ("slices", "@0+4", "@1+1", "is fractured"),
        ("sequence", "@4+4", "@4+1", "is free of fractures"),
    ],
)
def test_a_part_of_one_class_is_refused_before_anything_is_learned(part, old, new, lacking, changed, tmp_path):
    said: list[str] = []
    with pytest.raises(UnusableData, match=f"none of the 1 cases of the part {part} {lacking}"):
        train(changed(old, new), tmp_path / "out", progress=said.append)
    assert said == []


def test_a_real_data_set_is_divided_by_patient_and_named(place, tmp_path):
    """Phantoms stand in for patients: `--data` takes every data set in the same way."""
    for seed in range(110, 126):  # whose division leaves both classes in every part
        case = write_case(place / "cases", seed, fractured=seed % 2 == 0, slices=8, size=32, patient=f"patient {seed}")
        record = case.folder / "case.json"
        record.write_text(record.read_text().replace("Apache-2.0", "for tests only"))
    data = "phantom:standard@110+16"
    manifest = manifest_of(train(place, tmp_path, data=data))
    assert manifest["synthetic_training_data"] is False
    assert manifest["trained_on"] == f"Cases of {data}, divided by patient."
    assert manifest["training"]["command"] == f"dicomnode train {NAME} --data {data}"
    assert manifest["notice"] == f"Research use only. Trained on {data}, not validated on patients."
    assert manifest["licence"] == "for tests only"


def test_data_that_do_not_exist_are_refused_with_what_to_write(place, tmp_path):
    with pytest.raises(UnusableData, match="write NAME:PLACE, where NAME is one of phantom, rsna2022"):
        train(place, tmp_path, data="nonsense")


def test_an_unknown_task_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=f"there is {NAME}"):
        training.run("lumbar", config_dir=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
