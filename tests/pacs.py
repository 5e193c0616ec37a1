"""An archive that answers for what it stores as a test wants it: pynetdicom's acceptor, with C-FIND and N-ACTION."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from dicomnode.network.send import Address
from tests.peers import peer

Reply = tuple[int, Dataset]
COMMITMENT = build_context(StorageCommitmentPushModel)
QUERY = build_context(StudyRootQueryRetrieveInformationModelFind)


class Pacs:
    """What it was sent and asked, and how it behaves."""

    def __init__(self) -> None:
        self.stored: list[Dataset] = []
        self.actions: list[Dataset] = []
        #: Instances that it accepts and forgets.
        self.loses: Callable[[Dataset], bool] = lambda _: False
        #: Status of its answer to a query; None if it breaks off instead.
        self.query_status: int | None = 0x0000
        #: Status of its answer to a request for storage commitment.
        self.action_status = 0x0000
        #: Sends the report on the association of the request.
        self.answers_there = False
        self.statuses: list[int] = []
        self.address: Address

    def held(self) -> set[str]:
        return {str(one.SOPInstanceUID) for one in self.stored if not self.loses(one)}

    def _store(self, event: evt.Event) -> int:
        self.stored.append(event.dataset)
        return 0x0000

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.query_status is None:
            event.assoc.abort()
        if self.query_status != 0x0000:
            yield self.query_status or 0xC000, None
            return
        query = event.identifier
        assert query.QueryRetrieveLevel == "IMAGE"
        for one in self.stored:
            asked = one.StudyInstanceUID == query.StudyInstanceUID and one.SeriesInstanceUID == query.SeriesInstanceUID
            if asked and not self.loses(one):
                match = Dataset()
                match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", one.SOPInstanceUID
                yield 0xFF00, match

    def _act(self, event: evt.Event) -> tuple[int, None]:
        self.actions.append(event.action_information)
        if self.answers_there:
            threading.Timer(0.1, self._send_report, (event.assoc, self.report_of(event.action_information))).start()
        return self.action_status, None

    def report_of(self, action: Dataset) -> Dataset:
        """The truth about what an N-ACTION asks for."""
        report = Dataset()
        report.TransactionUID = action.TransactionUID
        report.ReferencedSOPSequence, failed = [], []
        for item in action.ReferencedSOPSequence:
            if item.ReferencedSOPInstanceUID in self.held():
                report.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = 0x0112
                failed.append(item)
        if failed:
            report.FailedSOPSequence = failed
        return report

    def report(self, node: Address, report: Dataset, *, calling_ae: str = "PEER") -> int:
        """Send a report on an association of our own, as its provider; return the status of the answer."""
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = AE(ae_title=calling_ae).associate(
            node.host, node.port, contexts=[COMMITMENT], ae_title=node.ae_title, ext_neg=[role]
        )
        assert association.is_established
        try:
            return self._send_report(association, report)
        finally:
            association.release()

    def _send_report(self, association, report: Dataset) -> int:
        kind = 2 if "FailedSOPSequence" in report else 1
        status, _ = association.send_n_event_report(
            report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.statuses.append(int(status.get("Status", -1)))
        return self.statuses[-1]


@contextmanager
def pacs(*, queries: bool = True, commits: bool = True) -> Iterator[Pacs]:
    it = Pacs()
    contexts = [*AllStoragePresentationContexts, *([QUERY] if queries else []), *([COMMITMENT] if commits else [])]
    handlers = {evt.EVT_C_STORE: it._store, evt.EVT_C_FIND: it._find, evt.EVT_N_ACTION: it._act}
    with peer(contexts, handlers) as it.address:
        yield it
