"""What made a result, and the identifiers that follow from it.

The same run gives the same UIDs, so sending twice is harmless; a changed input, model, configuration or
program gives new ones, so an archive that keeps the first object of a UID never hides a newer answer.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydicom import Dataset

#: Root of all derived UIDs: changing it changes every UID.
_NAMESPACE = uuid.UUID("6c1b5a0e-3a55-5f0e-9d07-1f8f5f2a6a53")


class Kind(StrEnum):
    """The result objects there are, as destinations ask for them, in the order to send: what is referenced first."""

    #: Segmentation, one binary segment per mask.
    SEG = "SEG"
    #: The same segments as one label map.
    LABELMAP = "LABELMAP"
    #: Parametric map of where the network looked.
    PMAP = "PMAP"
    #: Comprehensive 3D SR.
    SR = "SR"
    #: The same report as a Comprehensive SR, for archives that know no other.
    CSR = "CSR"
    #: Key images as secondary capture.
    SC = "SC"
    #: Presentation state: boxes over the source images.
    GSPS = "GSPS"
    #: The report as encapsulated PDF.
    PDF = "PDF"
    #: Key object selection of images and results.
    KOS = "KOS"
    #: Key object selection that rejects the results of an earlier answer.
    REJECT = "REJECT"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An earlier result that the new one replaces."""

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str

    def header(self) -> Dataset:
        """As much of its header as is known."""
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID = self.sop_class_uid, self.sop_instance_uid
        item.SeriesInstanceUID, item.StudyInstanceUID = self.series_uid, self.study_uid
        return item


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of one pipeline over one set of images."""

    #: Empty when no pipeline applied.
    pipeline: str
    #: Empty when no model ran.
    weights_sha256: str
    configuration_sha256: str
    code_version: str
    #: SOP Instance UIDs of the images that were analysed, in any order.
    source_uids: tuple[str, ...]
    #: Aware; becomes the creation date and time in the objects, so that a repeated run is identical to the byte.
    created: datetime
    #: Identifies this installation (0018,1002).
    device_uid: str
    #: Every object of the earlier answers that this one supersedes.
    predecessors: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        if self.created.tzinfo is None:
            raise ValueError("Run.created has no time zone")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished object, with file meta information, ready to be saved or sent."""

    kind: str
    dataset: Dataset


def derived_uid(run: Run, kind: str, part: str = "") -> str:
    """Return the UID of one object, series or tracked finding of a run (PS3.5 B.2: "2.25." and a UUID)."""
    origin = [
        sorted(run.source_uids),
        run.pipeline,
        run.weights_sha256,
        run.configuration_sha256,
        run.code_version,
        str(kind),
        part,
    ]
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(origin)).int}"
