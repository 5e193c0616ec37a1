"""What `dicomnode evaluate PROTOCOL` was asked for: one paper's experiment, from training to its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run of a protocol."""

    #: Names the settings file and the results; several sizes of one protocol have several names.
    name: str
    #: The file in `config/protocols/`, where every key is explained.
    settings: Path
    #: A data set instead of the configured one, such as `rsna2022:FOLDER`.
    data: str | None
    #: Keeps the cases, and the state from which an interrupted run goes on.
    cache: Path
    #: For the tables and pictures.
    out: Path
    device: torch.device
    progress: Callable[[str], None]
