"""Storage commitment (PS3.4 annex J) as its user: ask an archive to answer for what it stored, and read its report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicomnode.errors import Refused, Transient
from dicomnode.network.send import Address, connect

REPORT_SECONDS = 1.0  # for a report on the association of the request; most archives open one of their own
_REQUEST = 1  # the only action type
_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
#: Failure Reason (0008,1197), PS3.3 C.14.1.1.
REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object",
    0x0119: "the object has another class",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "out of resources",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an archive says about the instances that it was asked for."""

    transaction_uid: str
    held: frozenset[str]
    #: Why not, by SOP Instance UID.
    failed: Mapping[str, str]

    def lacking(self, asked: Sequence[str]) -> dict[str, str]:
        """Which of these instances the archive does not answer for, and why."""
        silent = {uid: "not mentioned in the report" for uid in asked if uid not in self.held}
        return silent | {uid: why for uid, why in self.failed.items() if uid in asked}


def reporting() -> PresentationContext:
    """What a receiver of reports offers: whoever opens the association is the provider (PS3.4 J.3.3)."""
    context = build_context(StorageCommitmentPushModel, _SYNTAXES)
    context.scu_role, context.scp_role = False, True
    return context


def request(
    address: Address,
    transaction_uid: str,
    instances: Sequence[tuple[str, str]],
    *,
    calling_ae: str,
    report: Callable[[Report], None],
) -> None:
    """Ask an archive to commit to instances, given as SOP class and instance.

    `report` is called if the archive reports on the same association. Raises Transient if the request is not taken.
    """
    arrived = threading.Event()

    def keep(event: evt.Event) -> tuple[int, None]:
        try:
            report(_report(event.event_information))
        except Refused as refusal:
            return refusal.status, None
        finally:
            arrived.set()
        return 0x0000, None

    action = Dataset()
    action.TransactionUID = transaction_uid
    action.ReferencedSOPSequence = [_reference(*instance) for instance in instances]
    contexts = [build_context(StorageCommitmentPushModel, _SYNTAXES)]
    association = connect(address, contexts, calling_ae=calling_ae)
    association.bind(evt.EVT_N_EVENT_REPORT, keep)
    try:
        reply, _ = association.send_n_action(
            action, _REQUEST, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        if "Status" not in reply:
            raise Transient(f"{address} did not answer the storage commitment request")
        if reply.Status != 0x0000:
            raise Transient(f"{address} answered the storage commitment request with status {reply.Status:04X}")
        del association._serve_request  # `connect` keeps pynetdicom from serving requests; here one may come
        arrived.wait(REPORT_SECONDS)
    except RuntimeError as error:  # pynetdicom: the association ended before the request
        raise Transient(f"the association with {address} broke off") from error
    finally:
        if association.is_established:
            association.release()


def read(data: bytes, transfer_syntax_uid: str) -> Report:
    """Decode the data set of a report; raises Refused for one that is damaged."""
    syntax = UID(transfer_syntax_uid)
    try:
        return _report(read_dataset(BytesIO(data), syntax.is_implicit_VR, syntax.is_little_endian))
    except Refused:
        raise
    except Exception as error:  # hostile bytes raise anything inside the decoder
        raise Refused(Refused.INVALID_ARGUMENT, f"the report cannot be read: {type(error).__name__}") from error


def _report(information: Dataset) -> Report:
    if not information.get("TransactionUID"):
        raise Refused(Refused.INVALID_ARGUMENT, "the report names no transaction")
    return Report(
        transaction_uid=str(information.TransactionUID),
        held=frozenset(str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()),
        failed={
            str(item.ReferencedSOPInstanceUID): _reason(item.get("FailureReason"))
            for item in information.get("FailedSOPSequence") or ()
        },
    )


def _reason(code: int | None) -> str:
    return "no reason given" if code is None else f"{code:04X} {REASONS.get(code, '')}".rstrip()


def _reference(sop_class_uid: str, sop_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_uid
    return item
