"""A small protocol in a folder of its own: its settings, its cases and its results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inference import evaluation
from inference.evaluation import bootstrap
from tests.cases import silent


def write_settings(folder: Path, name: str, text: str) -> Path:
    """Write the settings of the protocol where a configuration folder has them; return the file."""
    path = folder / "protocols" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run_protocol(folder: Path, name: str, text: str, progress: Callable[[str], None] = silent) -> list[Path]:
    """Run it on the cases in the folder; return the result files, which are in `out`."""
    write_settings(folder, name, text)
    return evaluation.run_protocol(
        name, config_dir=folder, out=folder / "out", cache=folder, device="cpu", progress=progress
    )


def few_samples(patch: pytest.MonkeyPatch) -> None:
    """Let intervals and permutation tests draw 20 samples: here it matters that they are there, not their width."""
    for function in (bootstrap.interval, bootstrap.exchange):
        patch.setattr(function, "__kwdefaults__", {**(function.__kwdefaults__ or {}), "samples": 20})
