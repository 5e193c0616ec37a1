"""Key object selections: which images and results to look at, and which results of an earlier answer not to."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.findings import Analysis
from inference.volume import Volume
from sr import codes, headers, report
from sr.run import Kind, Run, derived_uid

_TITLES = {Kind.KOS: "of_interest", Kind.REJECT: "rejected_for_quality"}
_SERIES_NUMBERS = {Kind.KOS: 9005, Kind.REJECT: 9010}


def write(volume: Volume, analysis: Analysis, run: Run, results: Sequence[Dataset] = ()) -> Dataset | None:
    """Return a Key Object Selection (PS3.3 A.35.4) "Of Interest", or None for a negative answer.

    It names the key image of every finding, most probable first, and the `results` that go out with it.
    """
    ranked = sorted(analysis.findings, key=lambda finding: -finding.probability)
    keys = dict.fromkeys(finding.key_slice for finding in ranked)
    if not keys:
        return None
    selected = [(volume.headers[n], volume.frames[n]) for n in keys] + [(result, None) for result in results]
    description = ". ".join(report.label(finding) for finding in ranked) + f". {analysis.model.notice}"
    return _document(volume.headers[0], selected, run, analysis, kind=Kind.KOS, description=description)


def write_rejection(header: Dataset, analysis: Analysis, run: Run) -> Dataset | None:
    """Return the note that rejects every object of the earlier answers (IHE IOCM), or None where there is none."""
    if not run.predecessors:
        return None
    selected: list[tuple[Dataset, int | None]] = [(old.header(), None) for old in run.predecessors]
    description = "Superseded by a newer answer about the study."
    return _document(header, selected, run, analysis, kind=Kind.REJECT, description=description)


def _document(
    header: Dataset,
    selected: Sequence[tuple[Dataset, int | None]],
    run: Run,
    analysis: Analysis,
    *,
    kind: Kind,
    description: str,
) -> Dataset:
    made_by = headers.equipment(run, analysis.model)
    title = _TITLES[kind]
    evidence = list({item.SOPInstanceUID: item for item, _ in selected}.values())
    content = hd.ko.KeyObjectSelection(
        document_title=codes.concept(title),
        referenced_objects=[item for item, _ in selected],
        observer_device_context=report.observer(made_by),
        description=description,
    )
    dataset: Dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=[_described(item, header) for item in evidence],
        content=content,
        series_instance_uid=derived_uid(run, kind, "series"),
        series_number=_SERIES_NUMBERS[kind],
        sop_instance_uid=derived_uid(run, kind),
        instance_number=1,
        manufacturer=made_by.manufacturer,
        series_description=headers.short(f"AI {codes.table()[title].meaning.lower()}"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    references = [x for x in dataset.ContentSequence if x.ValueType in ("IMAGE", "COMPOSITE")]
    for reference, (_, frame) in zip(references, selected, strict=True):
        # TID 2010 has no name there, and validators refuse one.
        del reference.ConceptNameCodeSequence
        if frame is not None:
            reference.ReferencedSOPSequence[0].ReferencedFrameNumber = frame
    headers.finish(dataset, header, run, made_by)
    return dataset


def _described(item: Dataset, header: Dataset) -> Dataset:
    """Return what evidence needs: the identifiers of an object, and the empty patient of a stand-in."""
    result = headers.stand_in(header)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        result[keyword] = item[keyword]
    return result
