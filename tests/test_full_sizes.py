"""The settings of the published sizes: they parse, and build the networks of the papers."""

import tomllib
from pathlib import Path

import pytest
import torch

from inference import training
from inference.datasets.spine_images import ImageSettings
from inference.nets import detectors
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.nets.unet import VertebraUNet
from inference.nets.vertebra_fracture import VertebraFracture
from inference.training.detection import DetectionSettings
from inference.training.disc_looks import LookSettings
from inference.training.fracture_cases import SequenceSettings
from inference.training.fracture_slices import SliceSettings
from inference.training.spine_learning import MethodSettings
from inference.training.vertebra_fractures import LevelSettings
from inference.training.vertebra_segmentation import SegmentationSettings

CONFIG = Path(__file__).resolve().parents[1] / "config" / "training"
TABLES = {
    "slices": SliceSettings,
    "sequence": SequenceSettings,
    "unet": SegmentationSettings,
    "levels": LevelSettings,
    "images": ImageSettings,
    "method": MethodSettings,
    "detection": DetectionSettings,
    "look": LookSettings,
}


def settings(task: str) -> dict:
    """Return the settings of a task by table, without its data."""
    tables = tomllib.loads((CONFIG / f"{task}.toml").read_text())
    return {name: TABLES[name](**table) for name, table in tables.items() if name != "data"}


def millions(net: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in net.parameters()) / 1e6


@pytest.mark.parametrize("task", training.TASKS)
def test_every_setting_of_every_task_is_known(task):
    assert settings(task)


@pytest.mark.parametrize("task", [task for task in training.TASKS if task.endswith("-full")])
def test_a_full_size_has_the_parts_of_its_compact_size(task):
    assert settings(task).keys() == settings(task.removesuffix("-full")).keys()


def test_the_full_fracture_model_is_resnet_50_at_384_pixels_and_the_largest_lstm_of_the_paper():
    full = settings("cervical-ct-fracture-full")
    with torch.device("meta"):
        slices = ResNet(width=full["slices"].width)
        sequence = SliceSequence(features=32 * full["slices"].width, units=full["sequence"].units, dropout=0.0)
    assert full["slices"].size == 384
    assert millions(slices) == pytest.approx(23.51, abs=0.01)
    assert millions(sequence) == pytest.approx(4.72, abs=0.02)


def test_the_full_vertebra_model_has_the_published_encoder():
    full = settings("cervical-ct-vertebrae-full")["unet"]
    with torch.device("meta"):
        net = VertebraUNet(width=full.width, repeats=full.repeats)
    assert millions(net.encoder) == pytest.approx(54.3, abs=0.1)


def test_the_full_model_of_single_vertebrae_is_a_resnet_50():
    full = settings("cervical-ct-levels-full")["levels"]
    with torch.device("meta"):
        net = VertebraFracture(width=full.width, units=full.units)
    assert millions(net.slices) == pytest.approx(23.52, abs=0.02)


@pytest.mark.parametrize(
    ("task", "classes", "weights"),
    [
        ("cord-injury-mr", 4, 2.6),
        ("cord-injury-mr-full", 4, 41.4),
        ("lumbar-disc-mr", 3, 0.7),
        ("lumbar-disc-mr-full", 3, 54.2),
    ],
)
def test_the_detectors_have_the_published_weights_and_the_compact_ones_far_fewer(task, classes, weights):
    detection = settings(task)["detection"]
    with torch.device("meta"):
        net = detectors.build(detection.detector, {**detection.arguments, "classes": classes})
    assert millions(net) == pytest.approx(weights, abs=0.1)
