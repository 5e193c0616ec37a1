"""What one destination gets of an answer: the objects it asked for, within its limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom

from dicomnode.config import Destination
from dicomnode.task import StoredResult


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """The objects of one delivery, in the order to send them."""

    results: tuple[StoredResult, ...]
    #: What to send in place of a file whose SOP class the destination does not accept.
    instead: dict[Path, Path]
    #: Why an object that was asked for is not among them, one sentence each.
    withheld: tuple[str, ...]


def pack(results: Iterable[StoredResult], destination: Destination) -> Parcel:
    """Choose what a destination gets."""
    found = list(results)
    wanted = [result for result in found if result.kind.lower() in destination.results]
    withheld = {result.sop_uid: _telling(result, destination) or _too_large(result, destination) for result in wanted}
    older = [result.path for result in found if result.kind == "CSR"]
    reports = [result.path for result in found if result.kind == "SR"]
    return Parcel(
        results=tuple(result for result in wanted if not withheld[result.sop_uid]),
        instead=dict(zip(reports, older, strict=False)),  # without a destination for it, there is none
        withheld=tuple(reason for reason in withheld.values() if reason),
    )


def _telling(result: StoredResult, destination: Destination) -> str:
    """Pixels may hold what the scanner burned in, and a PDF is not taken apart."""
    if not destination.deidentify or result.kind not in ("SC", "PDF"):
        return ""
    return f"{result.kind} not sent: who the patient is cannot be taken out of it for certain (deidentify = true)"


def _too_large(result: StoredResult, destination: Destination) -> str:
    if destination.max_frames is None:
        return ""
    header = pydicom.dcmread(result.path, specific_tags=["NumberOfFrames"], stop_before_pixels=True)
    frames = int(header.get("NumberOfFrames") or 1)
    if frames <= destination.max_frames:
        return ""
    return f"{result.kind} not sent: it has {frames} frames, more than max_frames = {destination.max_frames}"
