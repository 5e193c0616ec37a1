"""Evaluates the pinned cervical fracture model on the test phantoms and writes the result table."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

from inference import weights
from inference.evaluation import fracture
from inference.phantom.specification import SEEDS
from inference.pipelines.cervical_ct_fracture import NAME, load_nets
from inference.training.model_card import metric_lines
from inference.training.phantom_cases import prepare


def evaluate(config_dir: Path, out: Path, *, cache: Path, progress: Callable[[str], None]) -> list[Path]:
    """Write `<task>.json` and `<task>.md` into `out`."""
    model = tomllib.loads((config_dir / "pipelines" / f"{NAME}.toml").read_text())["model"]
    folder = config_dir / model["directory"]
    manifest = weights.read_manifest(folder, sha256=model["manifest_sha256"])
    nets = load_nets(folder, manifest, "cpu")
    data = manifest["training"]["settings"]["data"]
    seeds = SEEDS["test"][: data["test_cases"]]
    cases = prepare(seeds, profile=data["profile"], size=data["size"], cache=cache, progress=progress)
    scored = []
    for number, case in enumerate(cases, start=1):
        scored.append(fracture.score(nets, case))
        if number % 20 == 0:
            progress(f"scored {number} of {len(cases)} cases")
    metrics = fracture.measure(scored, manifest["calibration"], manifest["operating_points"])
    metrics["grad_cam"] = fracture.pointing_game(nets, cases, progress)
    command = f"dicomnode evaluate {NAME}"
    origin = {"command": command, "model_sha256": manifest["sha256"], "profile": data["profile"]}
    out.mkdir(parents=True, exist_ok=True)
    document, table = out / f"{NAME}.json", out / f"{NAME}.md"
    document.write_text(json.dumps({**origin, "seeds": [seeds[0], seeds[-1]], **metrics}, indent=2) + "\n")
    text = [
        f"# {NAME}: results on phantoms",
        "",
        f"Made by `{command}`. Model {manifest['version']}, weights SHA-256 `{manifest['sha256']}`. "
        f"Test phantoms: profile {data['profile']}, seeds {seeds[0]} to {seeds[-1]}. {manifest['notice']}",
        "",
        *metric_lines(metrics),
    ]
    table.write_text("\n".join(text) + "\n")
    return [document, table]
