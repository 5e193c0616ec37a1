"""What a pipeline is: a module in `inference/pipelines/` and a table in `config/pipelines/` of the same name.

The module has one function, `load(table, config_dir, device)`, which gives back a function from a Volume, and those of
the same study that go with it, to Analysis. Every table that names a `directory` and a `manifest_sha256` pins a model;
the first is the main one.
Listing pipelines and their models needs no torch; loading one does.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference import weights
from inference.findings import Analysis, ModelIdentity

if TYPE_CHECKING:
    from inference.volume import Volume


PIN = {"directory", "manifest_sha256"}


class UnknownPipeline(ValueError):
    """No pipeline has this name, or its table cannot be used; the message lists what there is."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A loaded pipeline: models in memory, ready to run."""

    name: str
    identity: ModelIdentity
    #: SHA-256 of the table that configures it; comments and order do not count.
    configuration_sha256: str
    analyse: Callable[[Volume, Mapping[str, Volume]], Analysis]

    def run(self, volume: Volume, companions: Mapping[str, Volume] | None = None) -> Analysis:
        """Analyse one volume; companions are volumes in the same coordinates, by contrast: "T1", "STIR"."""
        return self.analyse(volume, companions or {})


def names(config_dir: Path) -> list[str]:
    """Every configured pipeline."""
    return sorted(path.stem for path in (config_dir / "pipelines").glob("*.toml"))


def identity(name: str, config_dir: Path) -> ModelIdentity:
    """Which model the pipeline would run, from its verified manifests."""
    return identity_of(manifests(read_table(name, config_dir), config_dir))


def verify(name: str, config_dir: Path) -> ModelIdentity:
    """The same, after the weights were read and found to be those of the manifests. Raises UntrustedWeights."""
    table = read_table(name, config_dir)
    read = manifests(table, config_dir)
    for part, manifest in read.items():
        weights.read_bytes(config_dir / table[part]["directory"], manifest)
    return identity_of(read)


def manifests(table: Mapping[str, Any], config_dir: Path) -> dict[str, Mapping[str, Any]]:
    """The verified manifest of every model that a pipeline table pins, by the name of its table."""
    return {
        part: weights.read_manifest(config_dir / pin["directory"], sha256=pin["manifest_sha256"])
        for part, pin in _pins(table).items()
    }


def pinned(name: str, config_dir: Path, part: str) -> tuple[Path, dict[str, Any]]:
    """Folder and verified manifest of one model of a pipeline. Raises UnknownPipeline if the table does not pin it."""
    pins = _pins(read_table(name, config_dir))
    if part not in pins:
        raise UnknownPipeline(
            f"{config_dir / 'pipelines' / name}.toml pins no [{part}]: train and pin that model first"
        )
    folder = config_dir / pins[part]["directory"]
    return folder, weights.read_manifest(folder, sha256=pins[part]["manifest_sha256"])


def identity_of(read: Mapping[str, Mapping[str, Any]]) -> ModelIdentity:
    """The main model's identity; with several models, its digest is that of their digests, in order."""
    main, *others = [weights.identity(manifest) for manifest in read.values()]
    if not others:
        return main
    digests = " ".join(one.sha256 for one in (main, *others))
    return replace(main, sha256=hashlib.sha256(digests.encode()).hexdigest())


def load(name: str, config_dir: Path, device: str = "auto") -> Pipeline:
    """Load the models of a pipeline onto a device: "auto", "cpu" or "cuda:N"."""
    table = read_table(name, config_dir)
    module_name = f"inference.pipelines.{name.replace('-', '_')}"
    if importlib.util.find_spec(module_name) is None:
        raise UnknownPipeline(f"pipeline {name!r} has a table but no module {module_name}")
    module = importlib.import_module(module_name)
    return Pipeline(
        name=name,
        identity=identity_of(manifests(table, config_dir)),
        configuration_sha256=hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest(),
        analyse=module.load(table, config_dir, device),
    )


def read_table(name: str, config_dir: Path) -> dict[str, Any]:
    """The table of a pipeline. Raises UnknownPipeline where it is missing or cannot be used."""
    known = names(config_dir)
    if name not in known:
        there = ", ".join(known) or "none"
        raise UnknownPipeline(f"no pipeline {name!r} in {config_dir / 'pipelines'}: there is {there}")
    path = config_dir / "pipelines" / f"{name}.toml"
    table = tomllib.loads(path.read_text())
    if "model" not in table:
        raise UnknownPipeline(f"{path}: the table [model] is missing")
    for part, pin in _pins(table).items():
        for key in PIN:
            if not isinstance(pin.get(key), str):
                raise UnknownPipeline(f"{path}: [{part}] {key} is missing or no text")
    return table


def _pins(table: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """The tables that pin a model."""
    return {part: pin for part, pin in table.items() if isinstance(pin, dict) and (part == "model" or PIN & set(pin))}
