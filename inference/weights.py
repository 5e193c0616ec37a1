"""Trained weights that can be trusted: a manifest pinned by digest, a safetensors file pinned by the manifest.

The pipeline table in `config/pipelines/` holds the SHA-256 of `manifest.json`, the manifest that of the
weights. Nothing is unpickled, and nothing is loaded that is not exactly what was pinned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.findings import ModelIdentity

if TYPE_CHECKING:  # reading a manifest must not cost the start of torch
    import torch

MANIFEST = "manifest.json"
SCHEMA = 1
_REQUIRED = (
    "id",
    "version",
    "manufacturer",
    "notice",
    "trained_on",
    "file",
    "sha256",
    "networks",
    "input",
    "calibration",
    "operating_points",
)


class UntrustedWeights(Exception):
    """A model file is missing, unknown or not the one that was pinned; the message says what to do."""


def read_manifest(folder: Path, *, sha256: str) -> dict[str, Any]:
    """Read `manifest.json` in the folder if its digest is the pinned one."""
    path = folder / MANIFEST
    content = _verified(path, sha256, f"restore the file, or pin the new digest if you retrained ({path.parent.name})")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UntrustedWeights(f"{path}: is not valid JSON ({error}); retrain the model") from error
    if not isinstance(manifest, dict):
        raise UntrustedWeights(f"{path}: is not a JSON object; retrain the model")
    if manifest.get("schema") != SCHEMA:
        found = manifest.get("schema")
        raise UntrustedWeights(f"{path}: schema {found!r}, this version reads {SCHEMA}; retrain the model")
    missing = [key for key in _REQUIRED if key not in manifest]
    if missing:
        raise UntrustedWeights(f"{path}: lacks {', '.join(missing)}; retrain the model")
    return dict(manifest)


def identity(manifest: Mapping[str, Any]) -> ModelIdentity:
    """The part of a manifest that is written into every result."""
    return ModelIdentity(
        name=manifest["id"],
        version=manifest["version"],
        sha256=manifest["sha256"],
        manufacturer=manifest["manufacturer"],
        trained_on=manifest["trained_on"],
        notice=manifest["notice"],
    )


def read_bytes(folder: Path, manifest: Mapping[str, Any]) -> bytes:
    """The weights file if its digest is the manifest's."""
    path = folder / manifest["file"]
    if path.parent != folder:
        raise UntrustedWeights(f"{folder / MANIFEST}: file {manifest['file']!r} is not beside it; retrain the model")
    return _verified(path, manifest["sha256"], "restore the weights that belong to this manifest")


def load_tensors(folder: Path, manifest: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """All tensors of the weights file if its digest is the manifest's."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    # The bytes that were checked are the bytes that are read: the file is opened once.
    content = read_bytes(folder, manifest)
    try:
        return load(content)
    except SafetensorError as error:
        path = folder / manifest["file"]
        raise UntrustedWeights(f"{path}: is no safetensors file ({error}); retrain the model") from error


def fill(net: torch.nn.Module, tensors: Mapping[str, torch.Tensor], *, part: str) -> None:
    """Copy the tensors named `part.*` into a network: every one must fit, none may be missing or left over."""
    mine = {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
    try:
        net.load_state_dict(mine, strict=True)
    except RuntimeError as error:
        raise UntrustedWeights(f"weights of network {part!r} do not fit its architecture: {error}") from error


def save(path: Path, networks: Mapping[str, torch.nn.Module]) -> str:
    """Write the networks as half precision safetensors with names `part.*`; return the SHA-256 of the file.

    Raises FloatingPointError for a value that is not a number, or is beyond half precision, and writes nothing.
    """
    import torch
    from safetensors.torch import save as to_bytes

    tensors = {}
    for part, net in networks.items():
        for name, tensor in net.state_dict().items():
            kept = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
            if not kept.isfinite().all():
                raise FloatingPointError(f"{part}.{name} is not finite in half precision; lower the learning rate")
            tensors[f"{part}.{name}"] = kept.contiguous().cpu()
    content = to_bytes(tensors)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _verified(path: Path, expected: str, hint: str) -> bytes:
    """The bytes of a file with the expected SHA-256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); expected SHA-256 {expected}; {hint}"
        raise UntrustedWeights(message) from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise UntrustedWeights(f"{path}: expected SHA-256 {expected}, found {found}; {hint}")
    return content
