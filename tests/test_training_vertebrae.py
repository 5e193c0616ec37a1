"""The vertebra model and the model for single vertebrae in miniature: from cases to folders that can be pinned."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from inference import cervical_ct, evaluation, pipeline, training, weights
from inference.datasets.labelled import UnusableData
from inference.evaluation import levels, vertebrae
from inference.pipeline import UnknownPipeline
from tests.blocks import Painter, write_neck
from tests.cases import silent
from tests.miniatures import UNET
from tests.models import NAME, TABLE, WIDTH, write_config

DATA = """
[data]
train = "phantom:standard@0+3"
validation = "phantom:standard@900000+2"
test = "phantom:standard@950000+2"
"""
VERTEBRAE = DATA + UNET
LEVELS = f"""{DATA}
[levels]
size = 24
width = {WIDTH}
units = 2
epochs = 1
batch = 4
learning_rate = 1e-3
warmup_epochs = 0.5
dropout = 0.1
patience = 2
seed = 3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a fracture model, settings for both tasks, and every case; odd seeds are fractured."""
    folder = write_config(tmp_path_factory.mktemp("training"), table=TABLE)
    (folder / "training").mkdir()
    (folder / "training" / "cervical-ct-vertebrae.toml").write_text(VERTEBRAE)
    (folder / "training" / "cervical-ct-levels.toml").write_text(LEVELS)
    for seed in (0, 1, 2, 900_000, 900_001, 950_000, 950_001):
        write_neck(folder / "cases", seed, broken=["C4"] if seed % 2 else [])
    return folder


def train(place: Path, task: str) -> Path:
    out = place / "models" / task.rpartition("-")[2]
    return training.run(task, config_dir=place, out=out, cache=place / "cases", device="cpu", progress=silent)


def pin(place: Path, part: str) -> dict[str, object]:
    """Pin a model in the pipeline table; return its manifest."""
    path = place / "models" / part / weights.MANIFEST
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    table = place / "pipelines" / f"{NAME}.toml"
    if f"[{part}]" not in table.read_text():
        lines = f'\n[{part}]\ndirectory = "models/{part}"\nmanifest_sha256 = "{digest}"\n'
        table.write_text(table.read_text() + lines)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def outlining(place: Path) -> dict[str, object]:
    train(place, "cervical-ct-vertebrae")
    return pin(place, "vertebrae")


@pytest.fixture(scope="module")
def judging(place: Path, outlining: dict[str, object]) -> dict[str, object]:
    """Trained behind a network that knows the blocks: the real one, after one epoch, names nothing."""
    patch = pytest.MonkeyPatch()
    patch.setattr(cervical_ct, "vertebra_net", lambda folder, manifest, device: Painter(3.0))
    train(place, "cervical-ct-levels")
    patch.undo()
    return pin(place, "levels")


def test_the_vertebra_model_has_weights_card_curves_and_its_measurements(place, outlining):
    folder = place / "models" / "vertebrae"
    assert {path.name for path in folder.iterdir()} >= {"weights.safetensors", "MODEL_CARD.md", "unet-curves.png"}
    assert outlining["metrics"]["cases"] == 2
    assert outlining["metrics"]["vertebrae"] == 14
    assert outlining["references"][0]["case"].endswith("-950000")
    assert "| C1 to C7 | 14 |" in (folder / "MODEL_CARD.md").read_text()
    cervical_ct.vertebra_net(folder, outlining, "cpu")


def test_the_level_model_says_behind_which_models_it_was_calibrated(place, outlining, judging):
    main = json.loads((place / "models" / NAME / weights.MANIFEST).read_text())
    assert judging["behind"] == {"model": main["sha256"], "vertebrae": outlining["sha256"]}
    assert set(judging["calibration"]["vertebra"]) == {"bias", "network", "slices"}
    assert set(judging["calibration"]["case"]) == {"bias", "sequence", "vertebra"}
    assert [point["name"] for point in judging["operating_points"]] == ["balanced", "screen", "flag"]
    assert judging["metrics"]["vertebrae"] == 14
    assert judging["metrics"]["levels"]["C4"]["fractured"] == 1


def test_all_three_make_a_pipeline(place, judging):
    assert pipeline.load(NAME, place, "cpu").identity.version == "0.0.1"
    assert set(tomllib.loads((place / "pipelines" / f"{NAME}.toml").read_text())) >= {"model", "vertebrae", "levels"}


@pytest.mark.parametrize("task", ["cervical-ct-vertebrae", "cervical-ct-levels"])
def test_a_pinned_model_is_measured_again_with_the_same_numbers(task, place, outlining, judging, tmp_path, monkeypatch):
    if task == "cervical-ct-levels":
        monkeypatch.setattr(cervical_ct, "vertebra_net", lambda folder, manifest, device: Painter(3.0))
    manifest = judging if task == "cervical-ct-levels" else outlining
    document, table = evaluation.run(
        task, config_dir=place, out=tmp_path, cache=place / "cases", device="cpu", progress=silent
    )
    found = json.loads(document.read_text())
    assert found.pop("model_sha256") == manifest["sha256"]
    assert found.pop("data") == "phantom:standard@950000+2"
    assert found.pop("command") == f"dicomnode evaluate {task}"
    assert found.keys() == manifest["metrics"].keys()
    kept = {key: value for key, value in found.items() if isinstance(value, int)}
    assert kept == {key: manifest["metrics"][key] for key in kept}
    assert manifest["sha256"] in table.read_text()


def test_another_data_set_gets_files_of_its_own(place, outlining, tmp_path):
    document, _ = evaluation.run(
        "cervical-ct-vertebrae",
        config_dir=place,
        out=tmp_path,
        cache=place / "cases",
        data="phantom:standard@0+3",
        device="cpu",
        progress=silent,
    )
    assert document.name == "cervical-ct-vertebrae-phantom-standard-0-3.json"
    assert json.loads(document.read_text())["cases"] == 3


def test_a_vertebra_model_that_names_nothing_cannot_be_built_upon(place, outlining, tmp_path):
    with pytest.raises(UnusableData, match="names the vertebrae of no validation case"):
        training.run(
            "cervical-ct-levels",
            config_dir=place,
            out=tmp_path,
            cache=place / "cases",
            device="cpu",
            progress=silent,
        )


def test_without_a_pinned_vertebra_model_the_level_task_says_what_to_do(place, tmp_path):
    config = write_config(tmp_path / "config", table=TABLE)
    (config / "training").mkdir()
    (config / "training" / "cervical-ct-levels.toml").write_text(LEVELS)
    with pytest.raises(UnknownPipeline, match=r"pins no \[vertebrae\]: train and pin that model first"):
        training.run(
            "cervical-ct-levels",
            config_dir=config,
            out=tmp_path / "out",
            cache=place / "cases",
            device="cpu",
            progress=silent,
        )


def test_outlines_that_are_right_score_high_and_missing_ones_nothing(place):
    case = write_neck(place / "cases", 1, broken=["C4"])
    scored = vertebrae.score(Painter(1.5), case, 1.5)
    assert [one.level for one in scored] == [f"C{n}" for n in range(1, 8)]
    assert all(one.identified and one.named and one.dice > 0.8 and one.assd < 1.0 for one in scored)
    nothing = vertebrae.score(Painter(0.1), case, 1.5)  # calls everything by another height
    assert not any(one.named or one.identified or one.dice for one in nothing)
    found = vertebrae.measure([scored, nothing])
    assert (found["named"], found["identification_rate"], found["wrongly_named"]) == (0.5, 0.5, 0)
    assert found["dice"] == pytest.approx(sum(one.dice for one in scored) / 14)


def test_only_named_vertebrae_are_judged():
    answer = np.array([[1.0, 5.0], [3.0, 6.0]])  # as acquired and mirrored: own network, slices
    cases = [
        levels.ScoredLevels(case=0.0, answers={"C1": answer}, levels={"C1": True, "C2": True}, fractured=True),
        levels.ScoredLevels(case=0.0, answers={}, levels={"C1": False}, fractured=False),
    ]
    logits, labels = levels.pairs(cases)
    assert [one.tolist() for one in logits] == [[[2.0, 5.5]]]
    assert [one.tolist() for one in labels] == [[True]]
    assert levels.pairs(cases, "C2") == ([], [])
