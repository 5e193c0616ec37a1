"""A report once more as Comprehensive SR (PS3.3 A.35.3), for archives that do not know Comprehensive 3D SR."""

from __future__ import annotations

import uuid
from copy import deepcopy

from pydicom import Dataset
from pydicom.uid import UID, ComprehensiveSRStorage

_NAMESPACE = uuid.UUID("0d9f3c56-2ac4-5c0b-9c80-b4a5a0b1c7de")


def write(report: Dataset) -> Dataset:
    """Return the same document in the older class: its regions are all SCOORD, which both classes allow.

    Series and instance UIDs follow from those of the report; the series number keeps the two apart.
    """
    dataset = deepcopy(report)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _follows(report.SOPInstanceUID)
    dataset.SeriesInstanceUID = _follows(report.SeriesInstanceUID)
    dataset.SeriesNumber = 9009
    for study in dataset.get("PredecessorDocumentsSequence", ()):
        for series in study.ReferencedSeriesSequence:  # where the new one is refused, so was the old one
            series.SeriesInstanceUID = _follows(series.SeriesInstanceUID)
            for item in series.ReferencedSOPSequence:
                item.ReferencedSOPClassUID = ComprehensiveSRStorage
                item.ReferencedSOPInstanceUID = _follows(item.ReferencedSOPInstanceUID)
    return dataset


def _follows(uid: str) -> UID:
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, uid).int}")
