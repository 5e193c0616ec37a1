"""Ask another node what it has, by C-FIND (PS3.4 C.6.2): the count of a sender, the instances of an archive."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicomnode.errors import Transient
from dicomnode.network.send import Address, Unsupported, connect

REPLY_SECONDS = 10  # for each answer: other studies wait meanwhile
_PENDING = (0xFF00, 0xFF01)
_NOT_FOR_US = (0x0122, 0x0124)  # SOP class not supported, not authorized (PS3.7 annex C)
_MODEL = StudyRootQueryRetrieveInformationModelFind


def count_instances(address: Address, study_uid: str, *, calling_ae: str, without: Collection[str] = ()) -> int | None:
    """Number of instances that the peer has of a study, leaving out the series in `without`.

    None if it does not know the study, or does not count the instances of every series. Raises Transient if the peer
    cannot be asked.
    """
    matches = _find(address, [_count_query(study_uid)], calling_ae=calling_ae)
    counts = [_count(match) for match in matches if match.get("SeriesInstanceUID") not in without]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def instances_held(address: Address, study_uid: str, series_uids: Iterable[str], *, calling_ae: str) -> set[str]:
    """SOP Instance UIDs that the peer lists in these series of a study.

    Raises Transient if the peer cannot be asked, Unsupported if it takes no such queries.
    """
    queries = [
        _query("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid, SOPInstanceUID=None)
        for series_uid in series_uids
    ]
    return {str(match.get("SOPInstanceUID")) for match in _find(address, queries, calling_ae=calling_ae)}


def query(study_uid: str) -> tuple[str, bytes]:
    """What is asked for a count, for the audit trail: SOP class, and the identifier in implicit little endian."""
    return _MODEL, encode(_count_query(study_uid), True, True) or b""


def _count_query(study_uid: str) -> Dataset:
    return _query("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID=None, NumberOfSeriesRelatedInstances=None)


def _query(level: str, **keys: str | None) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _find(address: Address, queries: Iterable[Dataset], *, calling_ae: str) -> list[Dataset]:
    """Every match of the queries, all of them or an error."""
    association = connect(address, [build_context(_MODEL)], calling_ae=calling_ae)
    association.dimse_timeout = REPLY_SECONDS
    matches = []
    try:
        for query in queries:
            for status, identifier in association.send_c_find(query, _MODEL):
                if "Status" not in status:
                    association.abort()
                    raise Transient(f"{address} did not answer the C-FIND request")
                if status.Status in _PENDING and identifier is not None:
                    matches.append(identifier)
                elif status.Status != 0x0000:
                    kind = Unsupported if status.Status in _NOT_FOR_US else Transient
                    raise kind(f"{address} answered the C-FIND request with status {status.Status:04X}")
    except RuntimeError as error:  # pynetdicom: the association ended before the request
        raise Transient(f"the association with {address} broke off") from error
    finally:
        if association.is_established:
            association.release()
    return matches


def _count(identifier: Dataset) -> int | None:
    try:
        count = int(identifier.NumberOfSeriesRelatedInstances)
    except (AttributeError, TypeError, ValueError, OverflowError):  # absent, empty, or not a number
        return None
    return count if count >= 0 else None
