"""Ask the sender of a study how many instances it has, by C-FIND (PS3.4 C.6.2)."""

from __future__ import annotations

from collections.abc import Collection

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicomnode.errors import Transient
from dicomnode.network.send import Address, connect

REPLY_SECONDS = 10  # for each answer: other studies wait meanwhile
_PENDING = (0xFF00, 0xFF01)


def count_instances(address: Address, study_uid: str, *, calling_ae: str, without: Collection[str] = ()) -> int | None:
    """Number of instances that the peer has of a study, leaving out the series in `without`.

    None if it does not know the study, or does not count the instances of every series. Raises Transient if the peer
    cannot be asked.
    """
    model = StudyRootQueryRetrieveInformationModelFind
    association = connect(address, [build_context(model)], calling_ae=calling_ae)
    association.dimse_timeout = REPLY_SECONDS
    counts: list[int | None] = []
    try:
        for status, identifier in association.send_c_find(_identifier(study_uid), model):
            if "Status" not in status:
                association.abort()
                raise Transient(f"{address} did not answer the C-FIND request")
            if status.Status in _PENDING and identifier is not None:
                if identifier.get("SeriesInstanceUID") not in without:
                    counts.append(_count(identifier))
            elif status.Status != 0x0000:
                raise Transient(f"{address} answered the C-FIND request with status {status.Status:04X}")
    except RuntimeError as error:  # pynetdicom: the association ended before the request
        raise Transient(f"the association with {address} broke off") from error
    finally:
        if association.is_established:
            association.release()
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def query(study_uid: str) -> tuple[str, bytes]:
    """What is asked, for the audit trail: SOP class, and the identifier in implicit little endian."""
    return StudyRootQueryRetrieveInformationModelFind, encode(_identifier(study_uid), True, True) or b""


def _identifier(study_uid: str) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = "SERIES"
    asked.StudyInstanceUID = study_uid
    asked.SeriesInstanceUID = None
    asked.NumberOfSeriesRelatedInstances = None
    return asked


def _count(identifier: Dataset) -> int | None:
    try:
        count = int(identifier.NumberOfSeriesRelatedInstances)
    except (AttributeError, TypeError, ValueError, OverflowError):  # absent, empty, or not a number
        return None
    return count if count >= 0 else None
