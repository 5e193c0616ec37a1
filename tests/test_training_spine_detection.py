"""The MR detectors in miniature: from studies to folders that can be pinned, and measured again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import disc_looks, evaluation, pipeline, spine_mr, spine_series, training, weights
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import LabelledMR
from inference.nets import detectors
from inference.nets.unet import VertebraUNet
from inference.pipeline import UnknownPipeline
from inference.preprocess import mr_content
from inference.spine_levels import VIEW
from inference.training import spine_gate, spine_learning
from inference.training.detection import DetectionSettings
from inference.training.spine_learning import MethodSettings
from inference.volume import Volume
from sr import codes
from tests.cases import silent
from tests.miniatures import DETECTION
from tests.models import bare_headers
from tests.mr_studies import SHAPE, SPACING, study, write
from tests.protocols import few_samples

SETTINGS = """
[data]
train = "phantom_mr:{region}:standard@0+4"
gate = "phantom_mr:{region}:standard@4+3"
validation = "phantom_mr:{region}:standard@900000+3"
test = "phantom_mr:{region}:standard@950000+3"

[images]
size = [96, 96]
with_target = 1.0
with_boxes = 1.0
without_boxes = 0.3

[method]
{method}
""" + DETECTION + """
detector = "{detector}"
epochs = {epochs}
learning_rate = {rate}
{look}
[detection.arguments]
{arguments}
"""  # fmt: skip
LOOK = """
[look]
width = 4
epochs = 2
batch = 8
normal = 2
learning_rate = 1e-3
weight_decay = 1e-2
warmup_epochs = 0.5
seed = 1
"""
TASKS = {
    "cord-injury-mr": {
        "region": "cervical",
        "method": "alternating = true",
        "detector": "faster-rcnn-resnet50-fpn",
        # Enough to find something of every class, without which there is nothing to calibrate.
        "epochs": 10,
        "rate": 0.02,
        "look": "",
        "arguments": "width = 4\npyramid = 16\nhidden = 32\nanchors = [6, 12, 24, 48, 96]",
    },
    "lumbar-disc-mr": {
        "region": "lumbar",
        "method": "fitted_anchors = true",
        "detector": "ppyolov2",
        "epochs": 2,
        "rate": 0.01,
        "look": LOOK,
        "arguments": "width = 4\nneck = 16",
    },
}
#: What is drawn into studies in which nothing is to be found: a class that is no target.
HARMLESS = {"cord-injury-mr": ("herniation",), "lumbar-disc-mr": ("disc",)}
QUIET = (900_001, 950_001)
TABLE = """
[model]
directory = "models/{task}"
manifest_sha256 = "{digest}"

[levels]
directory = "models/levels"
manifest_sha256 = "{levels}"

[output]
operating_point = "balanced"
box_point = "best-f1"
"""
SEEDS = (*range(7), *range(900_000, 900_003), *range(950_000, 950_003))


def drawn(task: str, seed: int) -> LabelledMR:
    """A study of the task; in some nothing is to be found."""
    return study(TASKS[task]["region"], seed, labels=HARMLESS[task] if seed in QUIET else None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with settings for both tasks, and every study."""
    folder = tmp_path_factory.mktemp("spine")
    (folder / "training").mkdir()
    (folder / "pipelines").mkdir()
    shutil.copy(codes.TABLE, folder)
    for task, values in TASKS.items():
        (folder / "training" / f"{task}.toml").write_text(SETTINGS.format(**values))
        for seed in SEEDS:
            write(folder / "cases", drawn(task, seed))
    return folder


@pytest.fixture(scope="module", params=TASKS)
def trained(request, place: Path) -> tuple[str, Path, dict[str, object]]:
    """A task, its trained and pinned model, and its manifest."""
    task = request.param
    out = place / "models" / task
    with pytest.MonkeyPatch.context() as patch:
        few_samples(patch)
        training.run(task, config_dir=place, out=out, cache=place / "cases", device="cpu", progress=silent)
    content = (out / weights.MANIFEST).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    manifest = json.loads(content)
    table = TABLE.format(task=task, digest=digest, levels=untrained_levels(place, manifest))
    (place / "pipelines" / f"{task}.toml").write_text(table)
    return task, out, manifest


def untrained_levels(place: Path, manifest: dict[str, object]) -> str:
    """Write a model that names nothing beside the trained one; return the digest of its manifest."""
    folder = place / "models" / "levels"
    folder.mkdir(exist_ok=True)
    arguments = {"levels": len(VIEW.outputs), "width": 0.0625, "repeats": [1, 1, 1]}
    networks = {"unet": {"architecture": "inception-resnet-v2-unet", "arguments": arguments}}
    digest = weights.save(folder / "weights.safetensors", {"unet": VertebraUNet(**arguments)})
    content = json.dumps(manifest | {"sha256": digest, "networks": networks, "input": {"mm": 3.0}}).encode()
    (folder / weights.MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_a_model_has_weights_card_curves_and_its_measurements(trained):
    task, folder, manifest = trained
    stages = [f"step-{n}" for n in range(1, 5)] if task == "cord-injury-mr" else ["detector", "look"]
    assert {path.name for path in folder.glob("*.png")} == {f"{stage}-curves.png" for stage in stages}
    assert manifest["metrics"]["images"] == 3 * SHAPE[0]
    assert manifest["metrics"]["patients"] == 3
    assert list(manifest["metrics"]["classes"]) == list(spine_mr.SUBJECTS[task].classes)
    assert (manifest["metrics"]["groups"] is not None) == (task == "cord-injury-mr")
    assert manifest["references"][0]["case"].endswith("-950000")
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| best-f1 | herniation |" in card
    assert "3 studies, 2 with a target class." in card
    assert "| balanced | " in card
    assert "Never saw a patient" in card
    assert "Within the validated range: " in card
    assert ("The detector without and with the second look" in card) == (task == "lumbar-disc-mr")
    assert "T1 and fat-suppressed T2 are not looked at" in card  # so small a detector finds no lesion to compare


def test_every_class_has_a_calibration_and_two_thresholds(trained):
    task, _, manifest = trained
    classes = set(spine_mr.SUBJECTS[task].classes)
    assert manifest["calibration"]["classes"].keys() == classes
    assert all(one["weight"] > 0 for one in manifest["calibration"]["classes"].values())
    assert [point["name"] for point in manifest["operating_points"]] == ["best-f1", "few-false"]
    assert manifest["calibration"]["case"]["weight"] > 0
    assert [point["name"] for point in manifest["case_points"]] == ["balanced", "screen", "flag"]
    for point in manifest["operating_points"]:
        assert point["thresholds"].keys() == classes
        assert all(0 < value < 1 for value in point["thresholds"].values())
    assert max(manifest["operating_points"][1]["false_per_image"].values()) <= 0.1


def test_the_weights_make_the_detector_of_the_references(trained, place):
    task, folder, manifest = trained
    net = spine_mr.detector_net(folder, manifest, "cpu")
    series = study(spine_mr.SUBJECTS[task].region, 950_000).series[1]
    answers = spine_mr.answers(
        net, series.values, SPACING[1:], size=manifest["input"]["size"], classes=spine_mr.SUBJECTS[task].classes
    )
    again = disc_looks.look_net(folder, manifest, "cpu")
    assert (again is not None) == (task == "lumbar-disc-mr")
    answers = disc_looks.look_again(again, series.values, SPACING[1:], answers, spine_mr.SUBJECTS[task].classes)
    surest = [one.scores.max(initial=0) for one in answers]
    np.testing.assert_allclose(surest, manifest["references"][0]["surest"], atol=1e-3)
    for one in answers:
        assert (one.edges[:, 2:] <= np.array([SHAPE[2], SHAPE[1]]) + 1e-3).all()
        probability = one.probabilities(manifest["calibration"]["classes"])
        assert probability.shape == one.scores.shape
        assert ((probability > 0) & (probability < 1)).all()


def test_the_gate_is_fitted_to_studies_of_its_own_and_judges_as_it_did_in_training(trained):
    task, folder, manifest = trained
    size = manifest["input"]["size"]
    net, gate = spine_mr.detector_net(folder, manifest, "cpu"), spine_mr.gate(folder, manifest, "cpu")
    assert manifest["novelty"]["fitted_on"] == "3 series"
    assert manifest["novelty"]["features"] == 2 * spine_mr.FEATURES
    assert list(manifest["content"]) == list(mr_content.QUANTITIES)

    def distance(values: np.ndarray) -> float:
        return gate.distance(spine_mr.look(net, values, SPACING, size=size).features)

    validation = [distance(drawn(task, seed).series[1].values) for seed in range(900_000, 900_003)]
    assert np.quantile(validation, 0.99) == pytest.approx(manifest["novelty"]["threshold"], rel=0.02)
    stripes = np.broadcast_to(np.arange(SHAPE[1])[:, None] % 2 * 1000, SHAPE).astype(np.float32)
    assert distance(stripes) > max(validation)


def test_the_model_serves_in_its_pipeline(trained, place):
    task, _, manifest = trained
    series = drawn(task, 950_000).series[1]
    volume = Volume(
        array=series.values,
        affine=series.affine,
        headers=bare_headers(len(series.values), modality="MR"),
        frames=(None,) * len(series.values),
    )
    found = pipeline.load(task, place, "cpu").run(volume)
    assert (found.state, found.pipeline, found.model.name) == ("done", task, task)
    assert found.threshold == manifest["case_points"][0]["threshold"]
    assert len(found.slice_probabilities) == SHAPE[0]
    assert any("vertebrae are not named" in text for text in found.quality)
    table = pipeline.read_table(task, place)
    table["output"]["box_point"] = "worst"
    with pytest.raises(UnknownPipeline, match="box_point 'worst': .* has best-f1, few-false"):
        spine_series.load(task, table, place, "cpu")


def test_the_limits_on_headers_are_those_of_the_phantoms(trained):
    _, _, manifest = trained
    limits = manifest["input"]
    low, high = limits["slice_spacing_mm"]
    assert SPACING[0] - 0.02 < low <= SPACING[0] <= high < SPACING[0] + 0.02
    length = SHAPE[1] * SPACING[1]
    assert limits["coverage_mm"][0] <= length <= limits["coverage_mm"][1]
    assert limits["echo_time_ms"] == [90, 122]
    assert limits["plane"] == "sagittal"


def test_a_model_without_limits_has_no_gate(trained):
    _, folder, manifest = trained
    without = {key: value for key, value in manifest.items() if key != "novelty"}
    with pytest.raises(weights.UntrustedWeights, match="the manifest lacks novelty; retrain the model"):
        spine_mr.gate(folder, without, "cpu")


@pytest.mark.parametrize("name", detectors.DETECTORS)
def test_features_of_any_detector_are_as_many_for_each_slice_and_do_not_depend_on_the_batch(name, monkeypatch):
    monkeypatch.setattr(spine_mr, "BATCH", 2)
    torch.manual_seed(1)
    small = {"faster-rcnn-resnet50-fpn": {"pyramid": 8, "hidden": 8}, "faster-rcnn-vgg16": {"hidden": 8}}
    net = detectors.build(name, {"classes": 2, "width": 4, **small.get(name, {})}).eval()
    slices = np.random.default_rng(0).normal(100, 20, (3, 40, 32))
    found = spine_mr.features(net, slices, (2.0, 2.0), size=(96, 96))
    assert found.shape == (3, spine_mr.FEATURES)
    alone = spine_mr.features(net, slices[2:] * 16, (2.0, 2.0), size=(96, 96))  # in another unit
    assert torch.allclose(found[2], alone[0], rtol=1e-3, atol=1e-6)


def test_too_few_series_for_a_gate_are_refused():
    said = "the part test has 0 sagittal T2 series of patients without surgery, tumour, .*, at least 2 are needed"
    with pytest.raises(UnusableData, match=said):
        spine_gate.require("test", [])


def test_fitted_anchors_are_those_of_the_boxes(trained):
    task, _, manifest = trained
    anchors = manifest["networks"]["detector"]["arguments"]["anchors"]
    if task == "lumbar-disc-mr":
        assert len(anchors) == 9
        assert all(6 < side < 26 for size in anchors for side in size)
    else:
        assert anchors == [6, 12, 24, 48, 96]


def test_a_pinned_model_is_measured_again_with_the_same_numbers(trained, place, tmp_path, monkeypatch):
    few_samples(monkeypatch)
    task, _, manifest = trained
    document, table = evaluation.run(
        task, config_dir=place, out=tmp_path, cache=place / "cases", device="cpu", progress=silent
    )
    found = json.loads(document.read_text())
    assert found["data"] == "phantom_mr:{region}:standard@950000+3".format(**TASKS[task])
    assert found["map50"] == pytest.approx(manifest["metrics"]["map50"], abs=1e-6)
    assert found["confusion"] == manifest["metrics"]["confusion"]
    assert found["within_range"] == manifest["metrics"]["within_range"]
    assert found["cases"] == manifest["metrics"]["cases"]
    assert found.get("second_look") == manifest["metrics"].get("second_look")
    assert found["findings"]["named"] == 0
    assert found["operating_points"].keys() == {"best-f1", "few-false"}
    assert manifest["sha256"] in table.read_text()


def test_studies_of_another_region_are_refused(trained, place, tmp_path):
    task, _, _ = trained
    other = {"cervical": "lumbar", "lumbar": "cervical"}[TASKS[task]["region"]]
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / f"{task}.toml").write_text(SETTINGS.format(**TASKS[task] | {"region": other}))
    places = {"out": tmp_path, "cache": place / "cases"}
    with pytest.raises(UnusableData, match=rf"in a {TASKS[task]['region']} spine: add studies"):
        training.run(task, config_dir=tmp_path, device="cpu", progress=silent, **places)
    with pytest.raises(UnusableData, match=rf"no sagittal T2 slice of a {TASKS[task]['region']} spine"):
        data = f"phantom_mr:{other}:standard@0+1"
        evaluation.run(task, config_dir=place, data=data, device="cpu", progress=silent, **places)


@pytest.mark.parametrize(
    ("detector", "method"),
    [("yolov3", MethodSettings(alternating=True)), ("faster-rcnn-vgg16", MethodSettings(fitted_anchors=True))],
)
def test_a_method_of_another_detector_is_refused(detector, method):
    settings = DetectionSettings(
        detector=detector, arguments={}, augmentation="none", mixup=0, scales=[1], epochs=1, batch=1, learning_rate=0.1,
        weight_decay=0, warmup_epochs=0, drop_epochs=[], clip_norm=1, average=0, patience=1, seed=1,
    )  # fmt: skip
    images = spine_learning.SpineImages(slices=(), classes=("disc",), size=(64, 64))
    with pytest.raises(ValueError, match=r"alternating is for faster-rcnn.*fitted_anchors for the others"):
        spine_learning.learn(
            images, images, settings, method, folder=Path(), device=torch.device("cpu"), progress=silent
        )
