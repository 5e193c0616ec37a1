"""The model card: the manifest in words, written beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_card(manifest: Mapping[str, Any], folder: Path) -> Path:
    """Write `MODEL_CARD.md`, generated from the manifest and nothing else."""
    path = folder / "MODEL_CARD.md"
    path.write_text("\n".join(_lines(manifest)) + "\n")
    return path


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The measurements as Markdown tables."""
    image, case = metrics["image"], metrics["case"]
    lines = [
        f"{metrics['cases']} phantoms ({metrics['fractured_cases']} fractured), {metrics['slices']} slices "
        f"({metrics['fractured_slices']} fractured). Intervals: 95 %, bootstrap over phantoms.",
        "",
        "| what | ROC AUC | average precision |",
        "|---|---|---|",
        *(f"| slices, {name} | {_ci(row, 'auc')} | {row['average_precision']:.3f} |" for name, row in image.items()),
        *(
            f"| cases, {name} | {_ci(case[name], 'auc')} | {case[name]['average_precision']:.3f} |"
            for name in ("any slice", "sequence network")
        ),
        "",
        "| operating point | threshold | sensitivity | specificity |",
        "|---|---|---|---|",
        _point("slices, best F1", image["with sequence network"]),
        *(_point(f"cases, {name}", row) for name, row in case["operating_points"].items()),
        "",
        f"Case calibration: ECE {case['sequence network']['ece']:.3f}, Brier {case['sequence network']['brier']:.3f}.",
    ]
    cam = metrics["grad_cam"]
    return [
        *lines,
        "",
        f"Grad-CAM, pointing game on {cam['slices']} fractured slices (within {cam['tolerance_pixels']} pixels of the "
        f"fracture): {cam['hit_rate']:.2f}; a random point on bone: {cam['random_point_on_bone']:.2f}.",
    ]


def _lines(manifest: Mapping[str, Any]) -> list[str]:
    training, limits = manifest["training"], manifest["input"]
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
        f"- Input: {limits['modality']}, {limits['plane']}, slices {limits['slice_spacing_mm']} mm apart, "
        f"pixels {limits['pixel_spacing_mm']} mm, coverage {limits['coverage_mm']} mm, at least "
        f"{limits['min_slices']} slices.",
        f"- Uncertainty: {manifest['uncertainty']}.",
        "",
        "## Measured on test phantoms the model never saw",
        "",
        *metric_lines(manifest["metrics"]),
        "",
        "## Limitations",
        "",
        *(f"- {sentence}" for sentence in manifest["limitations"]),
        "",
        "Generated from `manifest.json`.",
    ]


def _ci(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_ci95"]
    return f"{row[key]:.3f} ({low:.3f} to {high:.3f})"


def _point(name: str, row: Mapping[str, Any]) -> str:
    return f"| {name} | {row['threshold']:.3f} | {_ci(row, 'sensitivity')} | {_ci(row, 'specificity')} |"
