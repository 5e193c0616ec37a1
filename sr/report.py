"""The Structured Report: a Comprehensive 3D SR by template TID 1500 (PS3.16) that says what was found, or why not.

The layout is the one every reader understands: a group with a box on the key image (TID 1410), a second group
with the numbers (TID 1411 by segment) under the same Tracking UID, and one container for the whole case. There is
no image library: it multiplies the size of the document, and evidence is listed in the header anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import highdicom as hd
import numpy as np
from highdicom.sr import utils as evidence_utils
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import Comprehensive3DSRStorage

from inference.findings import Analysis, Code, Finding, Mask, Measurement
from inference.volume import Volume
from sr import codes, frames, headers, segmentation
from sr.run import Kind, Run, derived_uid

CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS


def write(volume: Volume, analysis: Analysis, run: Run, segments: Dataset | None = None) -> Dataset:
    """Return the report about an analysed volume.

    `segments` is the Segmentation of the same run, if one goes out with the report: only then may it be
    referenced.
    """
    numbers = {mask.tracking_id: n for n, mask in enumerate(segmentation.masks(analysis), start=1)}
    groups = []
    # The first group is where viewers jump to.
    for finding in sorted(analysis.findings, key=lambda x: -x.probability):
        number = numbers.get(finding.tracking_id) if segments is not None else None
        groups += [_region(volume, analysis, finding, run), _numbers(volume, analysis, finding, run, segments, number)]
    found = "succeeded_with_findings" if analysis.positive or groups else "succeeded_without_findings"
    summary = [
        _code(analysis.target, _answer(analysis)),
        _code("summary_of_analyses", "succeeded"),
        _code("processing_and_findings_summary", found),
        _text("probability", _case_probability(analysis)),
        *(_text("comment", sentence) for sentence in _sentences(volume, analysis)),
    ]
    evidence = [*({header.SOPInstanceUID: header for header in volume.headers}.values())]
    if segments is not None:
        evidence.append(segments)
    made_by = headers.equipment(run, analysis.model)
    root = _root(volume.headers[0], groups, summary, made_by)
    return _document(evidence, root, run, made_by, description=f"AI report. {analysis.model.notice}")


def write_not_analysed(
    received: Sequence[Dataset],
    run: Run,
    *,
    outcome: Literal["not_applicable", "failed"],
    reason: str,
    looked_at: Sequence[str],
) -> Dataset:
    """Return a report that says in words and codes (CID 6042, 6047) why there is no answer.

    `received` are the headers that arrived, at least one; `looked_at` describes them for people, such as one
    line per series.
    """
    summary = [
        _code("summary_of_analyses", "not_attempted" if outcome == "not_applicable" else "failed"),
        _code("processing_and_findings_summary", "no_algorithm_succeeded"),
        _text("comment", f"Not analysed: {reason}" if outcome == "not_applicable" else f"Analysis failed: {reason}"),
        *(_text("comment", f"Looked at: {line}") for line in looked_at),
    ]
    made_by = headers.equipment(run, None)
    root = _root(received[0], [], summary, made_by)
    # A second attempt that ends otherwise is another document.
    part = f"{outcome}: {reason}"
    return _document(received, root, run, made_by, description="AI report: not analysed", part=part)


def _document(
    evidence: Sequence[Dataset],
    root: hd.sr.ContainerContentItem,
    run: Run,
    made_by: headers.Equipment,
    *,
    description: str,
    part: str = "",
) -> Dataset:
    header = evidence[0]
    dataset: Dataset = hd.sr.Comprehensive3DSR(
        evidence=[headers.stand_in(header), *evidence],
        content=root,
        series_instance_uid=derived_uid(run, Kind.SR, f"series{part}"),
        series_number=9002,
        sop_instance_uid=derived_uid(run, Kind.SR, part),
        instance_number=1,
        **made_by.arguments,
        series_description=headers.short(description),
        is_complete=True,
        is_final=False,
        # Documents, not the objects beside them (PS3.3 C.17.2.3).
        previous_versions=[old.header() for old in run.predecessors if old.sop_class_uid == Comprehensive3DSRStorage]
        or None,
    )
    # highdicom has listed the stand-in; the evidence is the images themselves.
    current, other = evidence_utils.collect_evidence(evidence, root, header.StudyInstanceUID)
    dataset.CurrentRequestedProcedureEvidenceSequence = current
    if other:
        dataset.PertinentOtherEvidenceSequence = other
    headers.finish(dataset, header, run, made_by)
    return dataset


def observer(made_by: headers.Equipment) -> hd.sr.ObserverContext:
    """Return who looked: the model, as a device (TID 1004)."""
    return hd.sr.ObserverContext(
        observer_type=standard.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=made_by.device_uid,
            name=made_by.model_name,
            manufacturer_name=made_by.manufacturer,
            model_name=made_by.model_name,
            serial_number=made_by.serial_number,
        ),
    )


def _root(
    header: Dataset,
    groups: Sequence[hd.sr.ContentSequence],
    summary: Sequence[hd.sr.ContentItem],
    made_by: headers.Equipment,
) -> hd.sr.ContainerContentItem:
    """Return the TID 1500 tree; highdicom's MeasurementReport cannot be without groups, and a negative one is."""
    procedure = f"procedure_{header.get('Modality', '')}"
    measurements = _container(standard.DCM.ImagingMeasurements)
    for group in groups:
        measurements.ContentSequence.extend(group)
    if not groups:
        # Viewers open this container unasked; empty it is legal, missing it stops them.
        del measurements.ContentSequence
    evaluations = _container(codes.concept("qualitative_evaluations"))
    evaluations.ContentSequence.extend(summary)
    root = hd.sr.ContainerContentItem(name=standard.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = hd.sr.ContentSequence(
        [
            *hd.sr.LanguageOfContentItemAndDescendants(codes.concept("language")),
            *hd.sr.ObservationContext(observer_device_context=observer(made_by)),
            hd.sr.CodeContentItem(
                name=standard.DCM.ProcedureReported,
                value=codes.concept(procedure if procedure in codes.table() else "procedure"),
                relationship_type=hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
            ),
            measurements,
            evaluations,
        ]
    )
    return root


def _region(volume: Volume, analysis: Analysis, finding: Finding, run: Run) -> hd.sr.ContentSequence:
    """Group A: the box on the image that shows the finding best. No numbers: viewers cannot import them here."""
    header, frame = volume.headers[finding.key_slice], volume.frames[finding.key_slice]
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(finding, run),
        referenced_region=hd.sr.ImageRegion(
            graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
            graphic_data=corners(finding),
            source_image=hd.sr.SourceImageForRegion(
                header.SOPClassUID, header.SOPInstanceUID, None if frame is None else [frame]
            ),
        ),
        finding_type=codes.concept(finding.code),
        finding_sites=[hd.sr.FindingSite(codes.concept(finding.site))],
        algorithm_id=_algorithm(analysis),
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(codes.concept(finding.code), codes.concept("present"))],
        geometric_purpose=codes.concept("bounded_by"),
    )
    group[0].ContentSequence.append(_text("comment", label(finding)))
    return group


def _numbers(
    volume: Volume, analysis: Analysis, finding: Finding, run: Run, segments: Dataset | None, number: int | None
) -> hd.sr.ContentSequence:
    """Group B: measurements and probability, by segment (TID 1411) or, without one, by key image (TID 1501)."""
    values = list(finding.measurements)
    mask = next((x for x in segmentation.masks(analysis) if x.tracking_id == finding.tracking_id), None)
    if mask is not None and codes.table()["volume"].value not in {x.name.value for x in values}:
        values.append(_volume_of(mask, volume))
    values.append(Measurement(name=codes.table()["probability"], value=percent(finding.probability), unit="%"))
    shared = {
        "tracking_identifier": _tracking(finding, run),
        "finding_type": codes.concept(finding.code),
        "finding_sites": [hd.sr.FindingSite(codes.concept(finding.site))],
        "algorithm_id": _algorithm(analysis),
        "measurements": [
            hd.sr.Measurement(codes.concept(x.name), float(f"{x.value:.6g}"), codes.unit(x.unit)) for x in values
        ],
    }
    header, frame = volume.headers[finding.key_slice], volume.frames[finding.key_slice]
    if segments is None or number is None:
        image = hd.sr.SourceImageForMeasurementGroup(
            header.SOPClassUID, header.SOPInstanceUID, None if frame is None else [frame]
        )
        return hd.sr.MeasurementsAndQualitativeEvaluations(source_images=[image], **shared)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=hd.sr.ReferencedSegment(
            segments.SOPClassUID,
            segments.SOPInstanceUID,
            number,
            source_series=hd.sr.SourceSeriesForSegmentation(header.SeriesInstanceUID),
        ),
        **shared,
    )


def label(finding: Finding) -> str:
    """Return how a finding is called in viewers and pictures, such as "AI: C5 fracture 93%"."""
    return f"AI: {finding.level or finding.site.meaning} {finding.code.meaning.lower()} {finding.probability:.0%}"


def corners(finding: Finding) -> np.ndarray:
    """Return the box as a closed line, (5, 2) of (column, row).

    SCOORD and presentation states count from the outer corner of the first pixel (PS3.3 C.18.6.1.2, C.10.5.1.2): one
    past the last is its far edge.
    """
    (_, top, left), (_, bottom, right) = finding.box
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], float)


def percent(probability: float) -> float:
    """Return a probability of 0..1 in percent, with the one decimal it deserves."""
    return round(100 * probability, 1)


def _sentences(volume: Volume, analysis: Analysis) -> list[str]:
    """Everything about the case that has no code: limits first, because they change how the answer is read."""
    model = analysis.model
    lines = [model.notice, analysis.reason, *analysis.quality, frames.obstacle(volume)]
    lines += [_in_words(finding) for finding in analysis.findings]
    if analysis.group:
        lines.append(f"Group: {analysis.group}")
    if analysis.level_probabilities:
        levels = ", ".join(f"{level} {percent(p)} %" for level, p in analysis.level_probabilities.items())
        lines.append(f"Probability by level: {levels}")
    if analysis.slice_probabilities:
        best = int(np.argmax(analysis.slice_probabilities))
        above = sum(p >= analysis.threshold for p in analysis.slice_probabilities)
        lines.append(
            f"Images at or above the threshold: {above} of {len(analysis.slice_probabilities)}; highest "
            f"{percent(analysis.slice_probabilities[best])} % on image {_number(volume, best)}"
        )
    lines.append(f"Model {model.name} version {model.version}, weights SHA-256 {model.sha256}")
    lines.append(f"Training data: {model.trained_on}")
    return [line for line in lines if line]


def _in_words(finding: Finding) -> str:
    uncertainty = f", standard deviation {percent(finding.uncertainty)} %" if finding.uncertainty is not None else ""
    return (
        f"{finding.tracking_id}: {label(finding).removeprefix('AI: ')}, before calibration "
        f"{percent(finding.raw_probability)} %{uncertainty}"
    )


def _number(volume: Volume, index: int) -> str:
    """What a viewer calls an image: its Instance Number, or frame."""
    return str(volume.frames[index] or volume.headers[index].get("InstanceNumber") or index + 1)


def _answer(analysis: Analysis) -> str:
    """Return the key of the answer (CID 240): nothing is "absent" that was not estimated."""
    if analysis.case_probability is None:
        return "undetermined"
    return "present" if analysis.positive else "absent"


def _case_probability(analysis: Analysis) -> str:
    if analysis.case_probability is None:
        return "not estimated"
    return f"{percent(analysis.case_probability)} % (present from {percent(analysis.threshold)} %)"


def _volume_of(mask: Mask, volume: Volume) -> Measurement:
    voxel = abs(float(np.linalg.det(volume.affine[:3, :3])))  # mm3
    return Measurement(name=codes.table()["volume"], value=float(mask.array.sum()) * voxel / 1000, unit="cm3")


def _tracking(finding: Finding, run: Run) -> hd.sr.TrackingIdentifier:
    return hd.sr.TrackingIdentifier(segmentation.tracking_uid(run, finding.tracking_id), finding.tracking_id)


def _algorithm(analysis: Analysis) -> hd.sr.AlgorithmIdentification:
    model = analysis.model
    return hd.sr.AlgorithmIdentification(
        name=model.name,
        version=model.version,
        manufacturer=model.manufacturer,
        family=codes.concept("artificial_intelligence"),
        parameters=[f"weights_sha256={model.sha256}"],
    )


def _container(name: hd.sr.CodedConcept) -> hd.sr.ContainerContentItem:
    item = hd.sr.ContainerContentItem(name=name, relationship_type=CONTAINS)
    item.ContentSequence = hd.sr.ContentSequence()
    return item


def _code(name: Code | str, value: str) -> hd.sr.CodeContentItem:
    return hd.sr.CodeContentItem(name=codes.concept(name), value=codes.concept(value), relationship_type=CONTAINS)


def _text(name: str, value: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(name=codes.concept(name), value=value, relationship_type=CONTAINS)
