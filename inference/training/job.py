"""One training: its settings, its data, where it runs, and the model folder that it leaves."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference import engine, weights
from inference.datasets import mr_store, store
from inference.datasets.mr_store import Study
from inference.datasets.store import Case
from inference.training import parts
from inference.training.loop import History
from inference.training.model_card import write_card
from inference.training.parts import Owned

PHANTOMS_ONLY = "Never saw a patient: metrics are about phantoms and say nothing about clinical performance."
RESEARCH = "Research use only. {}, not validated on patients."


@dataclass(frozen=True, kw_only=True)
class Job:
    """What `dicomnode train` was asked for."""

    task: str
    settings: Mapping[str, Any]
    #: Where the settings are from, and the pipelines that pin other models.
    config_dir: Path
    #: A data set instead of the configured ones, such as `rsna2022:FOLDER`.
    data: str | None
    out: Path
    cache: Path
    device: torch.device
    progress: Callable[[str], None]

    def cases(self, shares: Mapping[str, float]) -> dict[str, list[Case]]:
        """The CT cases of each part. Raises UnusableData."""
        return self._parts(shares, store.prepare)

    def studies(self, shares: Mapping[str, float]) -> dict[str, list[Study]]:
        """The MR studies of each part. Raises UnusableData."""
        return self._parts(shares, mr_store.prepare_mr)

    def _parts(self, shares: Mapping[str, float], prepare: parts.Prepare[parts.C]) -> dict[str, list[parts.C]]:
        if self.data is not None:
            return parts.divided(self.data, shares, prepare, cache=self.cache, progress=self.progress)
        texts = {part: self.settings["data"][part] for part in shares}
        return parts.prepared(texts, prepare, cache=self.cache, progress=self.progress)

    def write(
        self,
        manifest: Mapping[str, Any],
        networks: Mapping[str, torch.nn.Module],
        curves: Mapping[str, History],
        *,
        measured: Sequence[str],
        seconds: float,
    ) -> Path:
        """Write weights, manifest, model card and one picture of curves per stage into `out`; return `out`.

        `manifest` says what only the task knows, with the `licence` of the data: it may bind the weights too.
        `measured` are the manifest's metrics as Markdown lines for the card.
        """
        synthetic = self.data is None
        document = {
            "schema": weights.SCHEMA,
            "manufacturer": "dicomnode-spine",
            "notice": RESEARCH.format("Trained on synthetic phantoms" if synthetic else f"Trained on {self.data}"),
            "synthetic_training_data": synthetic,
            "trained_on": self._trained_on(),
            "intended_use": "Software tests, demonstrations and research on the processing chain.",
            "out_of_scope": "Any decision about a patient.",
            "file": "weights.safetensors",
            "dtype": "float16",
            "parameters": sum(p.numel() for net in networks.values() for p in net.parameters()),
            "training": {
                "command": f"dicomnode train {self.task}" + ("" if synthetic else f" --data {self.data}"),
                "settings": self.settings,
                "torch": torch.__version__,
                "machine": engine.machine(self.device),
                "seconds": round(seconds),
                "curves": curves,
            },
            **manifest,
        }
        document["sha256"] = weights.save(self.out / document["file"], networks)
        content = (json.dumps(document, indent=2) + "\n").encode()
        (self.out / weights.MANIFEST).write_bytes(content)
        write_card(document, measured, self.out)
        self._draw(curves)
        self.progress(f'{self.out}: set manifest_sha256 = "{hashlib.sha256(content).hexdigest()}" in config/pipelines/')
        return self.out

    def _draw(self, curves: Mapping[str, History]) -> None:
        try:
            from inference.evaluation import plots
        except ImportError as error:  # a GPU host may have little more than torch: the numbers are in the manifest
            self.progress(f"no pictures of the curves: {error}")
            return
        for stage, history in curves.items():
            scores = {name: values for name, values in history.items() if name.startswith("validation")}
            losses = {name: values for name, values in history.items() if name not in scores}
            plots.save(plots.training(losses, scores, title=f"{self.task}: {stage}"), self.out / f"{stage}-curves.png")

    def _trained_on(self) -> str:
        if self.data is not None:
            return f"Cases of {self.data}, divided by patient."
        names = (
            text
            for part, texts in self.settings["data"].items()
            if part not in ("validation", "test")
            for text in parts.several(texts)
        )
        learned = ", ".join(names)
        return f"Synthetic phantoms only ({learned}; PROFILE@FIRST SEED+COUNT); no patient data."


def licence(cases: Mapping[str, Sequence[Owned]]) -> str:
    """The licences of all cases, for the manifest."""
    return "; ".join(sorted({case.licence for part in cases.values() for case in part}))


def read_settings(config_dir: Path, task: str) -> dict[str, Any]:
    """The training configuration of a task."""
    return tomllib.loads((config_dir / "training" / f"{task}.toml").read_text())


def round_to_half(net: torch.nn.Module) -> None:
    """What follows is fitted to the weights as they are stored, not as they were trained."""
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
