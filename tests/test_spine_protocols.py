"""The protocols of papers 000, 002 and 004 in miniature: the tables of the papers, and no work done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.datasets.labelled import UnusableData
from inference.evaluation import PROTOCOLS, ppyolov2_lumbar, selective_search, shao2024, spine_networks
from inference.nets import detectors
from tests.miniatures import DETECTION
from tests.mr_studies import LABELS, study, write
from tests.protocols import few_samples, run_protocol, write_settings

CONFIG = Path(__file__).resolve().parents[1] / "config" / "protocols"
MODULES = {"shao2024": shao2024, "ppyolov2_lumbar": ppyolov2_lumbar}
SHARED = f"""
[images]
size = [96, 96]
with_target = 1.0
with_boxes = 1.0
without_boxes = 0.0
{DETECTION}
epochs = 1
learning_rate = 0.01
"""
SHAO = f"""
data = "phantom_mr:cervical:standard@0+12"

[shares]
train = 0.5
validation = 0.25
test = 0.25
{SHARED}
[networks.ResNet-50]
detector = "faster-rcnn-resnet50-fpn"
arguments = {{ width = 2, pyramid = 8, hidden = 8, anchors = [6, 12, 24, 48, 96] }}

[networks.VGG-16]
detector = "faster-rcnn-vgg16"
arguments = {{ width = 2, hidden = 8, anchors = [8, 16, 32] }}

[speed]
network = "ResNet-50"
examples = 1
images = 2
"""
LUMBAR = f"""
data = "phantom_mr:lumbar:standard@0+9"
folds = 3
timed = 1
seed = 3
{SHARED}
[networks.YOLOv5]
detector = "yolov5"
arguments = {{ width = 4 }}

[networks.PP-YOLOv2]
detector = "ppyolov2"
arguments = {{ width = 4, neck = 16 }}
fitted_anchors = true
"""


Finished = tuple[str, Path, list[Path], list[str]]


def finish(name: str, folder: Path) -> Finished:
    """Run a protocol twice; return it, its folder, its result files, and what it said the second time."""
    cervical = name == "shao2024"
    for number in range(12 if cervical else 9):
        # Every class in every part; folds by the worst disc.
        labels = LABELS["cervical"] if cervical else LABELS["lumbar"][: 1 + number % 3] * (3 - number % 3)
        write(folder, study("cervical" if cervical else "lumbar", number, labels=labels[:4]))
    with pytest.MonkeyPatch.context() as patch:
        few_samples(patch)
        patch.setattr(selective_search, "SCALES", (300,))
        paths = run_protocol(folder, name, SHAO if cervical else LUMBAR)
        again: list[str] = []
        run_protocol(folder, name, SHAO if cervical else LUMBAR, again.append)
    return name, folder, paths, again


@pytest.fixture(scope="module")
def cervical(tmp_path_factory) -> Finished:
    return finish("shao2024", tmp_path_factory.mktemp("cervical"))


@pytest.fixture(scope="module")
def lumbar(tmp_path_factory) -> Finished:
    return finish("ppyolov2-lumbar", tmp_path_factory.mktemp("lumbar"))


@pytest.fixture(params=["cervical", "lumbar"])
def finished(request) -> Finished:
    return request.getfixturevalue(request.param)


def test_a_protocol_leaves_numbers_tables_and_a_curve_for_each_class(finished):
    name, _, (numbers, table, *pictures), _ = finished
    region = "cervical" if name == "shao2024" else "lumbar"
    assert [path.name for path in pictures] == [f"{name}-{label}-precision-recall.png" for label in LABELS[region]]
    document = json.loads(numbers.read_text())
    assert document["protocol"] == name
    assert document["command"] == f"dicomnode evaluate {name}"
    assert all(f"({path.name})" in table.read_text() for path in pictures)


def test_a_finished_network_is_not_trained_again(finished):
    name, _, _, again = finished
    networks = ("ResNet-50", "VGG-16") if name == "shao2024" else ("YOLOv5-fold-1-of-3", "PP-YOLOv2-fold-3-of-3")
    assert {f"{network}: finished before" for network in networks} <= set(again)
    assert not [line for line in again if "epoch" in line]


def test_paper_000_has_its_tables_and_paper_002_its_groups(cervical):
    _, _, (numbers, table, *_), _ = cervical
    document, text = json.loads(numbers.read_text()), table.read_text()
    assert list(document["networks"]) == ["ResNet-50", "VGG-16"]
    assert [len(times) for times in document["speed"].values()] == [2, 2, 2]
    assert list(document["speed"]) == ["R-CNN", "Fast R-CNN", "Faster R-CNN"]
    assert document["groups"]["ResNet-50"]["confusion"]["classes"] == ["injured", "disc", "normal"]
    assert "| 88.6 | 0.22 |" in text
    assert "| R-CNN | selective search | of every proposal | linear SVM |" in text


def test_paper_004_has_a_row_for_each_model_over_all_folds(lumbar):
    name, folder, (numbers, table, *_), _ = lumbar
    document, text = json.loads(numbers.read_text()), table.read_text()
    assert {model: len(folds) for model, folds in document["folds"].items()} == {"YOLOv5": 3, "PP-YOLOv2": 3}
    assert document["pooled"]["PP-YOLOv2"]["patients"] == 9
    assert list(document["compared_with_the_last"]) == ["YOLOv5"]
    assert "| 90.08 |" in text
    folds = json.loads((folder / "out" / f"{name}-folds.json").read_text())
    assert sorted(len(names) for names in folds["names"]) == [3, 3, 3]
    assert folds["sha256"] == document["folds_sha256"]


@pytest.mark.parametrize(
    "name", [name for name, module in PROTOCOLS.items() if module in ("shao2024", "ppyolov2_lumbar")]
)
def test_the_settings_are_known_and_build_their_detectors(name):
    settings = MODULES[PROTOCOLS[name]].read_settings(CONFIG / f"{name}.toml")
    for network in settings.networks:
        assert network.detection.detector in detectors.DETECTORS
        assert not (network.method.alternating and network.method.fitted_anchors)
    assert {network.detection.learning_rate for network in settings.networks}


def test_a_network_has_the_keys_of_all_but_its_own():
    shared = {"epochs": 3, "batch": 2}
    rest = {
        "augmentation": "none", "mixup": 0, "scales": [1], "learning_rate": 0.1, "weight_decay": 0, "warmup_epochs": 0,
        "drop_epochs": [], "clip_norm": 1, "average": 0, "patience": 1, "seed": 1,
    }  # fmt: skip
    table = {"one": {"detector": "yolov3", "arguments": {}, "epochs": 9, "fitted_anchors": True}}
    (network,) = spine_networks.networks(table, {**shared, **rest})
    assert (network.detection.epochs, network.detection.batch) == (9, 2)
    assert network.method.fitted_anchors
    assert not network.method.alternating


def test_settings_that_cannot_be_are_refused(tmp_path):
    few = write_settings(tmp_path, "few", LUMBAR.replace("folds = 3", "folds = 2"))
    with pytest.raises(ValueError, match="at least 3 folds"):
        ppyolov2_lumbar.read_settings(few)
    shares = write_settings(tmp_path, "shares", SHAO.replace("test = 0.25", "rest = 0.25"))
    with pytest.raises(ValueError, match="needs train, validation and test, not train, validation, rest"):
        shao2024.read_settings(shares)
    other = write_settings(tmp_path, "other", SHAO.replace('network = "ResNet-50"', 'network = "ResNet-18"'))
    with pytest.raises(ValueError, match="'ResNet-18', which is none of"):
        shao2024.read_settings(other)


def test_too_few_studies_of_a_kind_for_the_folds_are_named(tmp_path):
    for number in range(9):
        write(tmp_path, study("lumbar", number, labels=("slip",) if number == 0 else ("disc",)))
    with pytest.raises(UnusableData, match=r"worst disc of a study\); add studies, or deal fewer"):
        run_protocol(tmp_path, "ppyolov2-lumbar", LUMBAR)
