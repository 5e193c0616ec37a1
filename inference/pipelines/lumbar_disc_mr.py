"""Herniated lumbar discs and slipped vertebrae on sagittal T2 MR: the detector of paper 004, disc by disc.

Read `inference.spine_series` for how a series is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from inference import spine_findings, spine_series
from inference.findings import Analysis
from inference.spine_levels import LEVELS
from inference.spine_mr import ABNORMAL, LUMBAR_DISC
from inference.spine_series import Model, Searched
from inference.volume import Volume


def load(table: Mapping[str, Any], config_dir: Path, device: str) -> Callable[[Volume, Mapping[str, Volume]], Analysis]:
    """Load the networks that the table pins; the result analyses one volume at a time."""
    return partial(_analyse, spine_series.load(LUMBAR_DISC, table, config_dir, device))


def _analyse(model: Model, volume: Volume, companions: Mapping[str, Volume]) -> Analysis:
    seen = spine_series.see(model, volume, companions)
    if isinstance(seen, str):
        return spine_series.not_applicable(model, volume, seen)
    return spine_series.answer(model, volume, seen, levels=_levels(seen.searched), group="")


def _levels(searched: Searched) -> dict[str, float]:
    """How probable it is that each disc is herniated or slipped; the other discs of the answer are normal."""
    found = {level: [one for one in searched.found if one.level == level] for level in LEVELS}
    return {level: spine_findings.probability(mine, ABNORMAL) for level, mine in found.items() if mine}
