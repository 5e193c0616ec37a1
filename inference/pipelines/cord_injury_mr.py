"""Injuries of the cervical cord and herniated discs on sagittal T2 MR: the detectors of papers 000 and 002.

Read `inference.spine_series` for how a series is searched. The group is that of paper 002.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from inference import spine_findings, spine_series
from inference.findings import Analysis
from inference.spine_mr import CORD_INJURY
from inference.spine_series import Model
from inference.volume import Volume


def load(table: Mapping[str, Any], config_dir: Path, device: str) -> Callable[[Volume, Mapping[str, Volume]], Analysis]:
    """Load the networks that the table pins; the result analyses one volume at a time."""
    return partial(_analyse, spine_series.load(CORD_INJURY, table, config_dir, device))


def _analyse(model: Model, volume: Volume, companions: Mapping[str, Volume]) -> Analysis:
    seen = spine_series.see(model, volume, companions)
    if isinstance(seen, str):
        return spine_series.not_applicable(model, volume, seen)
    labels = [one.label for one in spine_series.reported(model, seen.searched)]
    return spine_series.answer(model, volume, seen, levels={}, group=spine_findings.group(labels))
