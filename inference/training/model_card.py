"""The model card: the manifest in words, written beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_card(manifest: Mapping[str, Any], measured: Sequence[str], folder: Path) -> Path:
    """Write `MODEL_CARD.md`, generated from the manifest; `measured` are its metrics as Markdown lines."""
    path = folder / "MODEL_CARD.md"
    path.write_text("\n".join(_lines(manifest, measured)) + "\n")
    return path


def _lines(manifest: Mapping[str, Any], measured: Sequence[str]) -> list[str]:
    training = manifest["training"]
    return [
        f"# Model card: {manifest['id']} {manifest['version']}",
        "",
        f"**{manifest['notice']}**",
        "",
        f"{manifest['task']}. {manifest['algorithm']}. {manifest['parameters'] / 1e6:.2f} million parameters, "
        f"{manifest['dtype']}, licence {manifest['licence']}.",
        "",
        f"- Intended use: {manifest['intended_use']}",
        f"- Out of scope: {manifest['out_of_scope']}",
        f"- Trained on: {manifest['trained_on']}",
        f"- Made by: `{training['command']}` (settings in `manifest.json`), torch {training['torch']}, "
        f"{training['machine']}.",
        f"- Input: {'; '.join(f'{name} {value}' for name, value in manifest['input'].items())}.",
        f"- Uncertainty: {manifest['uncertainty']}.",
        "",
        "## Measured on test cases the model never saw",
        "",
        *measured,
        "",
        "## Limitations",
        "",
        *(f"- {sentence}" for sentence in manifest["limitations"]),
        "",
        "Generated from `manifest.json`.",
    ]
