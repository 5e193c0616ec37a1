"""The C-STORE of a delivery: the objects as they are, or copies without the patient, and word to the audit trail."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from dicomnode.audit import Trail
from dicomnode.config import Config, Destination
from dicomnode.deidentify import key_of, rename, strip
from dicomnode.errors import Permanent, Transient
from dicomnode.network import send
from dicomnode.parcel import Parcel
from dicomnode.task import StoredResult, Task

logger = logging.getLogger(__name__)


def store(
    config: Config, trail: Trail, task: Task, parcel: Parcel, destination: Destination, address: send.Address
) -> list[str]:
    """Send a parcel; returns the SOP Instance UIDs that were accepted. Raises Transient or Permanent if one is not."""
    if not task.attempts:
        trail.begins(destination, parcel.results)
    try:
        with ExitStack() as stack:
            sent = parcel
            if destination.deidentify:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="dicomnode-")))
                sent = strip(parcel, folder, key_of(config.data_dir))
            paths = [result.path for result in sent.results]
            outcomes = send.send(paths, address, calling_ae=config.receive.ae_title, instead=sent.instead)
    except Transient as error:
        if not task.attempts:
            trail.not_sent(destination, parcel.results, str(error))
        raise
    trail.sent(destination, parcel.results, outcomes)
    refused = [f"{r.kind}: {o.problem}" for r, o in zip(parcel.results, outcomes, strict=True) if o.problem]
    if refused:
        kind = Transient if any(outcome.transient for outcome in outcomes) else Permanent
        raise kind("; ".join(refused))
    logger.info("results sent", extra={"study": task.study_id, "destination": task.name})
    return [outcome.sop_uid for outcome in outcomes]


def as_sent(config: Config, results: Sequence[StoredResult], destination: Destination) -> list[StoredResult]:
    """The results under the UIDs by which a destination knows them."""
    if not destination.deidentify:
        return list(results)
    key = key_of(config.data_dir)
    return [rename(result, key) for result in results]
