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
from sr import (
    comprehensive,
    heat_map,
    key_images,
    key_objects,
    label_map,
    pdf,
    presentation,
    report,
    segmentation,
)
from sr.check import InvalidResult, check
from sr.run import Kind, Reference, Result, Run, derived_uid

__all__ = [
    "InvalidResult", "Kind", "Reference", "Result", "Run",
    "derived_uid", "save", "with_fallback", "write_not_analysed", "write_results",
]  # fmt: skip

T = TypeVar("T")


def write_results(
    volume: Volume,
    analysis: Analysis,
    run: Run,
    kinds: Collection[str] = (Kind.SEG, Kind.SR),
    refused: Callable[[InvalidResult], None] | None = None,
) -> tuple[Result, ...]:
    """Return the checked result objects of one analysis, in the order to send them: what is referenced comes first.

    Raises InvalidResult, which names the object and the problem. With `refused`, only for the answer itself, which is
    SR and SEG: any other object that cannot be made is left out, and `refused` hears why.
    """
    wanted = {Kind(kind) for kind in kinds}
    if analysis.state != "done":
        raise InvalidResult(f"{analysis.pipeline}: {analysis.state}: only write_not_analysed() may report that")
    made = _Made(volume, analysis, run)
    for kind in (kind for kind in Kind if kind in wanted):
        try:
            made.add(kind)
        except InvalidResult as error:
            if refused is None or kind in (Kind.SEG, Kind.SR):
                raise
            refused(error)
    return tuple(made.results)


class _Made:
    """The objects of one analysis as they come into being: later ones refer to earlier ones."""

    def __init__(self, volume: Volume, analysis: Analysis, run: Run) -> None:
        self.volume, self.analysis, self.run = volume, analysis, run
        self.results: list[Result] = []
        self.sources = {header.SOPInstanceUID: header for header in volume.headers}

    def add(self, kind: Kind) -> None:
        """Make and check what there is of one kind. Raises InvalidResult and then has added nothing."""
        datasets = [dataset for dataset in _attempt(kind, lambda: self._write(kind)) if dataset is not None]
        known = self.sources | {old.sop_instance_uid: old.header() for old in self.run.predecessors}
        for dataset in datasets:
            sources = known if kind == Kind.REJECT else self.sources
            check(dataset, sources=sources, volume=self.volume, masks=segmentation.masks(self.analysis))
        self.results += [Result(kind=kind, dataset=dataset) for dataset in datasets]
        self.sources = self.sources | {dataset.SOPInstanceUID: dataset for dataset in datasets}

    def _write(self, kind: Kind) -> Sequence[Dataset | None]:
        context = (self.volume, self.analysis, self.run)
        writers: dict[Kind, Callable[[], Sequence[Dataset | None]]] = {
            Kind.SEG: lambda: [segmentation.write(*context)],
            Kind.LABELMAP: lambda: [label_map.write(*context)],
            Kind.PMAP: lambda: [heat_map.write(*context)],
            Kind.SR: lambda: [self._report()],
            Kind.CSR: lambda: [comprehensive.write(self._report())],
            Kind.SC: lambda: key_images.write(*context),
            Kind.GSPS: lambda: [presentation.write(*context)],
            Kind.PDF: lambda: [pdf.write(self._report(), self.volume.headers[0], self.analysis, self.run)],
            Kind.KOS: lambda: [key_objects.write(*context, self._of(Kind.SEG, Kind.SR))],
            Kind.REJECT: lambda: [key_objects.write_rejection(self.volume.headers[0], self.analysis, self.run)],
        }
        return writers[kind]()

    def _report(self) -> Dataset:
        """The report, which may have been made already."""
        segments = self._of(Kind.SEG)
        made = self._of(Kind.SR)
        return made[0] if made else report.write(self.volume, self.analysis, self.run, *segments)

    def _of(self, *kinds: Kind) -> list[Dataset]:
        return [result.dataset for result in self.results if result.kind in kinds]


def with_fallback(results: Sequence[Result]) -> tuple[Result, ...]:
    """Add to every report the same as a Comprehensive SR, for destinations that refuse the newer class."""
    older = [
        Result(kind=Kind.CSR, dataset=comprehensive.write(result.dataset))
        for result in results
        if result.kind == Kind.SR and not any(other.kind == Kind.CSR for other in results)
    ]
    return (*results, *older)


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
