"""Ask the sender of a study how many instances it has, by C-FIND (PS3.4 C.6.2)."""

from __future__ import annotations

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicomnode.errors import Transient
from dicomnode.network.send import Address, connect

_PENDING = (0xFF00, 0xFF01)


def count_instances(address: Address, study_uid: str, *, calling_ae: str) -> int | None:
    """Number of Study Related Instances at the peer; None if it does not know the study or does not count.

    Raises Transient if the peer cannot be asked.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study_uid
    query.NumberOfStudyRelatedInstances = None
    model = StudyRootQueryRetrieveInformationModelFind
    association = connect(address, [build_context(model)], calling_ae=calling_ae)
    try:
        for status, identifier in association.send_c_find(query, model):
            if "Status" not in status:
                raise Transient(f"{address} did not answer the C-FIND request")
            if status.Status in _PENDING and identifier is not None:
                count = identifier.get("NumberOfStudyRelatedInstances")
                return int(count) if count not in (None, "") else None
        return None
    finally:
        if association.is_established:
            association.release()
