"""What a pipeline is: a module in `inference/pipelines/` and a table in `config/pipelines/` of the same name.

The module has one function, `load(table, model_dir, device)`, which gives back a function from Volume to
Analysis. Listing pipelines and their models needs no torch; loading one does.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference import weights
from inference.findings import Analysis, ModelIdentity

if TYPE_CHECKING:
    from inference.volume import Volume


class UnknownPipeline(ValueError):
    """No pipeline has this name, or its table cannot be used; the message lists what there is."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A loaded pipeline: models in memory, ready to run."""

    name: str
    identity: ModelIdentity
    #: SHA-256 of the table that configures it; comments and order do not count.
    configuration_sha256: str
    #: Analyse one volume.
    run: Callable[[Volume], Analysis]


def names(config_dir: Path) -> list[str]:
    """Every configured pipeline."""
    return sorted(path.stem for path in (config_dir / "pipelines").glob("*.toml"))


def identity(name: str, config_dir: Path) -> ModelIdentity:
    """Which model the pipeline would run, from its verified manifest."""
    table = _table(name, config_dir)
    manifest = weights.read_manifest(_model_dir(table, config_dir), sha256=table["model"]["manifest_sha256"])
    return weights.identity(manifest)


def load(name: str, config_dir: Path, device: str = "auto") -> Pipeline:
    """Load the models of a pipeline onto a device: "auto", "cpu" or "cuda:N"."""
    table = _table(name, config_dir)
    model = identity(name, config_dir)
    module_name = f"inference.pipelines.{name.replace('-', '_')}"
    if importlib.util.find_spec(module_name) is None:
        raise UnknownPipeline(f"pipeline {name!r} has a table but no module {module_name}")
    module = importlib.import_module(module_name)
    return Pipeline(
        name=name,
        identity=model,
        configuration_sha256=hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest(),
        run=module.load(table, _model_dir(table, config_dir), device),
    )


def _table(name: str, config_dir: Path) -> dict[str, Any]:
    known = names(config_dir)
    if name not in known:
        there = ", ".join(known) or "none"
        raise UnknownPipeline(f"no pipeline {name!r} in {config_dir / 'pipelines'}: there is {there}")
    path = config_dir / "pipelines" / f"{name}.toml"
    table = tomllib.loads(path.read_text())
    for key in ("directory", "manifest_sha256"):
        if not isinstance(table.get("model", {}).get(key), str):
            raise UnknownPipeline(f"{path}: [model] {key} is missing or no text")
    return table


def _model_dir(table: dict[str, Any], config_dir: Path) -> Path:
    return config_dir / str(table["model"]["directory"])
