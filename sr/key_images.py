"""Key images: one colour Secondary Capture per finding, the one object every archive and viewer shows."""

from __future__ import annotations

import highdicom as hd
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.findings import Analysis, Finding
from inference.volume import Volume
from sr import headers, overlay
from sr.run import Kind, Run, derived_uid


def write(volume: Volume, analysis: Analysis, run: Run) -> tuple[Dataset, ...]:
    """Return the pictures of all findings as one series (PS3.3 A.8.1), most probable first; none if negative."""
    ranked = sorted(analysis.findings, key=lambda finding: -finding.probability)
    return tuple(_picture(volume, analysis, run, finding, n) for n, finding in enumerate(ranked, start=1))


def _picture(volume: Volume, analysis: Analysis, run: Run, finding: Finding, number: int) -> Dataset:
    header = volume.headers[finding.key_slice]
    made_by = headers.equipment(run, analysis.model)
    notice = analysis.model.notice or "Not for primary diagnosis."
    source = headers.stand_in(header)
    dataset: Dataset = hd.sc.SCImage.from_ref_dataset(
        source,
        pixel_array=overlay.render(volume, analysis, finding),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),
        series_instance_uid=derived_uid(run, Kind.SC, "series"),
        series_number=9003,
        sop_instance_uid=derived_uid(run, Kind.SC, finding.tracking_id),
        instance_number=number,
        **made_by.arguments,
        series_description=headers.short(f"AI key images, not for diagnosis. {notice}"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dataset.BodyPartExamined = headers.body_part(header)
    headers.finish(dataset, header, run, made_by)
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = dataset.ContentDate, dataset.ContentTime
    return dataset
