"""Untrained cervical fracture models in a configuration folder, and volumes for them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom import Dataset

from inference import weights
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.novelty import Novelty
from inference.volume import Volume

NAME = "cervical-ct-fracture"
WIDTH, UNITS = 2, 3
TABLE = """
[model]
directory = "models/cervical-ct-fracture"
manifest_sha256 = "{sha256}"

[output]
operating_point = "balanced"

[output.regions]
cam_share = 0.5
bone_margin_mm = 2.0
min_volume_mm3 = 1.0
max_findings = 3
"""


def manifest(**changes: Any) -> dict[str, Any]:
    """Return a manifest of an untrained model; `sha256` has to be set to that of its weights."""
    values = {
        "schema": weights.SCHEMA,
        "id": NAME,
        "version": "0.0.1",
        "manufacturer": "tests",
        "notice": "Untrained.",
        "trained_on": "Nothing.",
        "file": "weights.safetensors",
        "sha256": "",
        "networks": {
            "slices": {"architecture": "resnet50", "arguments": {"width": WIDTH}},
            "sequence": {"architecture": "slice-sequence", "arguments": {"features": 32 * WIDTH, "units": UNITS}},
        },
        "input": {
            "modality": "CT",
            "plane": "axial",
            "size": 32,
            "min_slices": 4,
            "slice_spacing_mm": [1.0, 2.5],
            "pixel_spacing_mm": [0.5, 1.0],
            "coverage_mm": [5, 100],
            "max_tilt_degrees": 20,
        },
        "calibration": {"case_temperature": 2.0, "slice_temperature": 0.5, "indeterminate": [0.0, 0.0]},
        "operating_points": [
            {"name": "balanced", "threshold": 0.5, "slice_threshold": 0.5},
            {"name": "screen", "threshold": 0.1, "slice_threshold": 0.2},
        ],
        "content": {},
        "novelty": {"threshold": 1e6},
    }
    return values | changes


def networks(*, case_bias: float = 0.0, slice_bias: float = 0.0) -> Mapping[str, torch.nn.Module]:
    """Return untrained networks whose answers the biases push to one side."""
    torch.manual_seed(5)
    slices, sequence = ResNet(width=WIDTH).eval(), SliceSequence(features=32 * WIDTH, units=UNITS).eval()
    with torch.no_grad():
        sequence.case_head.bias.fill_(case_bias)
        sequence.slice_head.bias.fill_(slice_bias)
    return {"slices": slices, "sequence": sequence, "novelty": Novelty(features=64 * WIDTH)}


def write_model(folder: Path, *, nets: Mapping[str, torch.nn.Module] | None = None, **changes: Any) -> str:
    """Write weights and manifest into the folder; return the digest that pins them."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = weights.save(folder / "weights.safetensors", nets or networks())
    content = json.dumps(manifest(**{"sha256": digest} | changes)).encode()
    (folder / weights.MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def write_config(folder: Path, *, table: str = TABLE, **model: Any) -> Path:
    """Write a configuration folder with one pipeline and its model; `table` gets the digest as `{sha256}`."""
    digest = write_model(folder / "models" / NAME, **model)
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    (folder / "pipelines" / f"{NAME}.toml").write_text(table.format(sha256=digest))
    return folder


def bare_headers(count: int, *, modality: str = "CT") -> tuple[Dataset, ...]:
    """Return headers with nothing but a Modality."""
    header = Dataset()
    header.Modality = modality
    return (header,) * count


def neck_volume(*, slices: int = 12, spacing: tuple[float, float, float] = (2.0, 0.7, 0.7), **changes: Any) -> Volume:
    """Return soft tissue in air with a leaning column of bone that is different in every slice."""
    array = np.full((slices, 48, 56), 40, np.float32)
    array[:, :4] = -1000
    for index in range(slices):
        array[index, 14 + index % 5 : 34, 18:38] = 500 + 20 * index
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1
    values = {"array": array, "affine": affine, "headers": bare_headers(slices), "frames": (None,) * slices}
    return Volume(**values | changes)


class Spotlight(ResNet):
    """A slice network that looks where a slice is brightest: its last stage is the image at 1/8 resolution."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__(width=1)
        self.layer4 = torch.nn.AvgPool2d(8)
        self.fc = torch.nn.Linear(3, 1, bias=False)
        self.fc.weight.data = torch.tensor([[0.0, weight, 0.0]])  # the standard bone window

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer4(images).mean((2, 3)))
