"""The coded concepts of config/codes.toml: what pipelines report and result objects are written with."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from inference.findings import Code


@cache
def read(config_dir: Path) -> Mapping[str, Code]:
    """The concepts by key, such as "fracture" or "C5"."""
    entries = tomllib.loads((config_dir / "codes.toml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {key: Code(scheme=x["scheme"], value=x["value"], meaning=x["meaning"]) for key, x in entries.items()}
    )
