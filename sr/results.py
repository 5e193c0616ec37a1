"""Findings in, DICOM result objects out: the one door of this package. READ FIRST.

write_results() makes the objects a destination asked for, write_not_analysed() the report that says why there
are none; both check what they made against its sources before anything leaves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import pydicom
from pydicom import Dataset

from inference.findings import Analysis
from inference.volume import Volume
from sr import key_images, report, segmentation
from sr.check import InvalidResult, check
from sr.run import Kind, Reference, Result, Run, derived_uid

__all__ = [
    "InvalidResult", "Kind", "Reference", "Result", "Run",
    "derived_uid", "save", "write_not_analysed", "write_results",
]  # fmt: skip

T = TypeVar("T")


def write_results(
    volume: Volume, analysis: Analysis, run: Run, kinds: Collection[str] = (Kind.SEG, Kind.SR)
) -> tuple[Result, ...]:
    """Return the checked result objects of one analysis, in the order to send them: what is referenced comes first.

    Raises InvalidResult, which names the object and the problem.
    """
    kinds = {Kind(kind) for kind in kinds}
    if analysis.state != "done":
        raise InvalidResult(f"{analysis.pipeline}: {analysis.state}: only write_not_analysed() may report that")
    made: list[Result] = []
    segments = _attempt(Kind.SEG, lambda: segmentation.write(volume, analysis, run)) if Kind.SEG in kinds else None
    if segments is not None:
        made.append(Result(kind=Kind.SEG, dataset=segments))
    if Kind.SR in kinds:
        document = _attempt(Kind.SR, lambda: report.write(volume, analysis, run, segments))
        made.append(Result(kind=Kind.SR, dataset=document))
    if Kind.SC in kinds:
        images = _attempt(Kind.SC, lambda: key_images.write(volume, analysis, run))
        made += [Result(kind=Kind.SC, dataset=image) for image in images]
    sources = {header.SOPInstanceUID: header for header in volume.headers}
    for result in made:
        check(result.dataset, sources=sources, volume=volume, masks=segmentation.masks(analysis))
        sources = sources | {result.dataset.SOPInstanceUID: result.dataset}
    return tuple(made)


def write_not_analysed(
    headers: Sequence[Dataset],
    *,
    outcome: Literal["not_applicable", "failed"],
    reason: str,
    looked_at: Sequence[str],
    run: Run,
) -> Result:
    """Return the checked report that says why a study has no answer.

    `headers` are those of everything that was received, images or not. Raises InvalidResult.
    """
    if not headers:
        raise InvalidResult("SR: nothing was received, so there is no study to report on")
    document = _attempt(
        Kind.SR,
        lambda: report.write_not_analysed(headers, run, outcome=outcome, reason=reason, looked_at=looked_at),
    )
    check(document, sources={header.SOPInstanceUID: header for header in headers}, volume=None, masks=())
    return Result(kind=Kind.SR, dataset=document)


def save(result: Result, path: Path) -> None:
    """Write a result to a file that is whole and on the disk when this returns (PS3.10)."""
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        pydicom.dcmwrite(file, result.dataset, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name is only safe once the folder is
    finally:
        os.close(folder)


def _attempt(kind: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except InvalidResult:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        # What highdicom and pydicom raise for a value that does not fit the standard.
        raise InvalidResult(f"{kind}: {type(error).__name__}: {error}") from error
