"""Files that an administrator may damage: each is read, or refused with the error that names it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from dicomnode import config, selection
from dicomnode.config import CONFIG_DIR
from dicomnode.errors import ConfigError
from inference import weights
from inference.weights import UntrustedWeights
from tests.fuzzing import corpus, damaged
from tests.models import manifest
from tests.studies import series, study

TEXT = st.one_of(
    st.sampled_from([b"nan", b"inf", b"1e999", b'"a\\u0000b"', b"-1", b"[]", b"{}", b'["("]', b"\xff"]),
    st.binary(max_size=8),
)
SENSIBLE = b"""data_dir = "x"
[receive]
ae_title = "NODE"
port = 104
allow = ["PACS@10.0.0.5"]
[assembly]
quiet_seconds = 20.0
[inference]
timeout_seconds = 900.0
workers = 1
[[sender]]
ae_title = "PACS"
quiet_seconds = 5.0
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "10.0.0.5"
port = 104
"""
RULES = (CONFIG_DIR / "selection.toml").read_bytes()
TENSORS = save({"part.weight": torch.ones(2, 3), "part.bias": torch.zeros(3)})


@st.composite
def edited(draw: st.DrawFn, text: bytes) -> bytes:
    """A TOML file with one value replaced, or damaged anywhere."""
    lines = text.splitlines()
    at = draw(st.sampled_from([n for n, line in enumerate(lines) if b" = " in line]))
    lines[at] = lines[at].partition(b" = ")[0] + b" = " + draw(TEXT)
    return draw(st.one_of(st.just(b"\n".join(lines)), damaged(text)))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files") / "file"


def configures(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        found = config.load(path)
    except ConfigError as error:
        assert str(path) in str(error)
    else:
        waits = [found.assembly.quiet_seconds, found.assembly.max_wait_seconds, found.inference.timeout_seconds]
        assert all(map(math.isfinite, waits))


@given(data=edited(SENSIBLE))
def test_a_damaged_configuration_is_read_or_refused_by_name(path, data):
    configures(path, data)


@pytest.mark.parametrize("data", corpus("config"))
def test_what_once_did_harm_as_a_configuration_does_none(path, data):
    configures(path, data)


def selects(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        selection.choose(study(series(Modality="CT"), series(2, Modality="MR")), selection.load(path))


@given(data=edited(RULES))
def test_damaged_rules_are_read_or_refused(path, data):
    selects(path, data)


@pytest.mark.parametrize("data", corpus("selection"))
def test_what_once_did_harm_as_rules_does_none(path, data):
    selects(path, data)


def identifies(folder: Path, data: bytes) -> None:
    """A manifest whose digest is pinned is read, or refused by name."""
    (folder / "manifest.json").write_bytes(data)
    try:
        weights.identity(weights.read_manifest(folder, sha256=hashlib.sha256(data).hexdigest()))
    except UntrustedWeights as error:
        assert "manifest.json" in str(error)


@given(data=damaged(json.dumps(manifest()).encode()))
def test_a_damaged_manifest_is_read_or_refused_even_if_it_is_pinned(path, data):
    identifies(path.parent, data)


@pytest.mark.parametrize("data", corpus("manifest"))
def test_what_once_did_harm_as_a_manifest_does_none(path, data):
    identifies(path.parent, data)


@given(data=damaged(TENSORS, [0, 8, 30, 60, 90]))
def test_damaged_tensors_are_read_or_refused_even_if_they_are_pinned(path, data):
    folder = path.parent
    (folder / "weights.safetensors").write_bytes(data)
    with contextlib.suppress(UntrustedWeights):
        loaded = weights.load_tensors(folder, manifest(sha256=hashlib.sha256(data).hexdigest()))
        assert sum(tensor.nbytes for tensor in loaded.values()) <= len(data)
