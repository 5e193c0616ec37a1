"""Is this study complete, and how do we know? Pure functions over a Study and the clock.

A count that comes from the sender is proof. Everything else is evidence that shortens or lengthens the wait for
silence: an association's end, Images in Acquisition, and gaps in the slice positions. None of these alone says
that no other series will follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dicomnode.study import Series, Study

GOOD, CONTRARY = 0.25, 3.0  # factors on the quiet period
GAP = 1.5  # of the usual slice step


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long to wait without proof, in seconds."""

    quiet_seconds: float
    max_wait_seconds: float


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Look again at `until`."""

    until: float
    because: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """The study is as complete as it will get."""

    because: str


def decide(study: Study, now: float, policy: Policy, *, expected: int | None = None) -> Wait | Release:
    """Weigh the evidence. `expected` is the number of instances the sender says it has, if it was asked."""
    latest = study.last_at + policy.max_wait_seconds
    count = len(study.instances)
    expected = expected if expected is not None else _declared(study)
    if expected is not None and count >= expected:
        return Release(because=f"complete: {count} of {expected} instances by the sender's count")
    silent = max(0.0, now - study.last_at)
    if now >= latest:
        missing = f", {expected - count} of {expected} are missing" if expected is not None else ""
        return Release(because=f"nothing for {silent:.0f} s, the longest wait{missing}")
    if expected is not None:
        return Wait(until=latest, because=f"{count} of {expected} instances by the sender's count")
    if any(transfer.ending == "open" for transfer in study.transfers):
        return Wait(until=latest, because="an association is still open")
    against, for_it = contrary(study), supporting(study)
    factor = CONTRARY if against else GOOD if for_it else 1.0
    until = min(study.last_at + policy.quiet_seconds * factor, latest)
    reasons = "; ".join(against or for_it) or "no evidence either way"
    if now >= until:
        return Release(because=f"nothing for {silent:.1f} s; {reasons}")
    return Wait(until=until, because=reasons)


def give_up(study: Study, now: float, policy: Policy, because: str) -> Wait | Release:
    """The evidence cannot be weighed: only the longest wait is left."""
    latest = study.last_at + policy.max_wait_seconds
    return Release(because=because) if now >= latest else Wait(until=latest, because=because)


def contrary(study: Study) -> list[str]:
    """Signs that something is still to come."""
    signs = [f"association {t.ending}" for t in study.transfers if t.ending in ("aborted", "lost")]
    for series in study.series:
        if missing := _gaps(series):
            signs.append(f"series {_name(series)} has {missing} gap(s) between its slices")
        short = _acquisition_shortfall(series)
        if short:
            signs.append(f"series {_name(series)} lacks {short} image(s) of its acquisition")
    return list(dict.fromkeys(signs))


def supporting(study: Study) -> list[str]:
    """Signs that everything has come; only called for when nothing speaks against it."""
    stacks = [series for series in study.series if _steps(series) is not None]
    if not study.transfers or not stacks:
        return []
    return ["associations released", "no gap between slices"]


def _declared(study: Study) -> int | None:
    """The count that instances themselves carry, where every one that carries it says the same."""
    counts: set[float] = {
        i.header["NumberOfStudyRelatedInstances"]
        for i in study.instances
        if "NumberOfStudyRelatedInstances" in i.header
    }
    return int(counts.pop()) if len(counts) == 1 else None


def _acquisition_shortfall(series: Series) -> int:
    """How many images the acquisitions of a series still lack by Images in Acquisition (0020,1002)."""
    acquisitions: dict[float, list[float]] = {}
    for instance in series.instances:
        expected = instance.header.get("ImagesInAcquisition")
        if expected is not None:
            acquisitions.setdefault(instance.header.get("AcquisitionNumber") or 0.0, []).append(expected)
    return sum(max(0, int(max(counts)) - len(counts)) for counts in acquisitions.values())


def _gaps(series: Series) -> int:
    steps = _steps(series)
    return 0 if steps is None else int((steps > GAP * np.median(steps)).sum())


def _steps(series: Series) -> np.ndarray | None:
    """Distances in mm between neighbouring slices of a parallel stack; None for anything else."""
    headers = [i.header for i in series.instances]
    if len(headers) < 4 or not all(_has_plane(header) for header in headers):
        return None
    planes = np.array([header["ImageOrientationPatient"] for header in headers])
    if np.abs(planes - planes[0]).max() > 1e-3:
        return None
    normal = np.cross(planes[0][:3], planes[0][3:])
    steps = np.diff(np.sort(np.array([header["ImagePositionPatient"] for header in headers]) @ normal))
    steps = steps[steps > 0.01]
    return steps if len(steps) >= 3 else None


def _has_plane(header: Mapping[str, Any]) -> bool:
    orientation, position = header.get("ImageOrientationPatient"), header.get("ImagePositionPatient")
    return isinstance(orientation, list) and len(orientation) == 6 and isinstance(position, list) and len(position) == 3


def _name(series: Series) -> str:
    number = series.value("SeriesNumber")
    return f"{number:.0f}" if isinstance(number, float) else "without a number"
