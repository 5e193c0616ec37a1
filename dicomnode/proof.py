"""Delivered means held: what a destination accepted is proven by storage commitment or by reading it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicomnode import clock
from dicomnode.claims import Claim, Claims
from dicomnode.config import Proof
from dicomnode.errors import Transient
from dicomnode.network import commitment
from dicomnode.network.find import instances_held
from dicomnode.network.send import Address, Unsupported
from dicomnode.task import StoredResult, Task

ASK_AGAIN_SECONDS = 3600.0  # for a report of storage commitment, before the next request
READ_AGAIN_SECONDS = (2.0, 3600.0)  # first and longest delay before what is missing is looked for again
GIVE_UP_SECONDS = 24 * 3600.0  # after the destination accepted everything


@dataclass(frozen=True)
class Held:
    """The destination holds everything, or need not prove it, or offers no proof and none was asked for."""

    how: str
    proven: bool = True


@dataclass(frozen=True)
class Wait:
    """Not proven yet."""

    until: float
    why: str


@dataclass(frozen=True)
class Lacking:
    """The destination does not hold everything that it accepted: it is sent again, unless it is `final`."""

    why: str
    final: bool = False


Verdict = Held | Wait | Lacking


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One delivery, and whom to ask about it."""

    task: Task
    claims: Claims
    address: Address
    calling_ae: str
    #: What may have been sent, by SOP Instance UID.
    results: Mapping[str, StoredResult]


def prove(proof: Proof | None, delivery: Delivery, earlier: Sequence[Claim], accepted: Sequence[str]) -> Verdict:
    """Ask the destination for what it accepted, now or in a try before that left `earlier` claims.

    Raises Transient if it cannot be asked at the moment.
    """
    if proof == "none" or not accepted:
        return Held("")
    try:
        return (_commitment if proof == "commitment" else _read_back)(delivery, earlier, accepted)
    except Transient as error:
        why = f"stored, not proven: {error}; see proof of this destination"
        if proof is None and isinstance(error, Unsupported):  # nobody said that it can be asked
            return Held(why, proven=False)
        if isinstance(error, Unsupported) or (earlier and _too_late(earlier)):
            return Lacking(why, final=True)
        if not delivery.claims.of(delivery.task):  # what it took is asked for again, not sent again
            delivery.claims.make(delivery.task, accepted)
        raise


def _read_back(delivery: Delivery, earlier: Sequence[Claim], accepted: Sequence[str]) -> Verdict:
    expected = [delivery.results[uid] for uid in accepted]
    series = sorted({result.series_uid for result in expected})
    held = instances_held(delivery.address, expected[0].study_uid, series, calling_ae=delivery.calling_ae)
    missing = [result.kind for result in expected if result.sop_uid not in held]
    if not missing:
        return Held("held, by query")
    why = f"accepted, and not listed by the archive: {', '.join(missing)}"
    earlier = earlier or [delivery.claims.make(delivery.task, accepted)]
    if _too_late(earlier):
        return Lacking(why, final=True)
    first, longest = READ_AGAIN_SECONDS
    now = clock.now()
    return Wait(now + min(longest, max(first, now - earlier[0].made_at)), why)


def _commitment(delivery: Delivery, earlier: Sequence[Claim], accepted: Sequence[str]) -> Verdict:
    if any(claim.lacking == {} for claim in earlier):
        return Held("held, by storage commitment")
    if lacking := [claim.lacking for claim in earlier if claim.lacking]:
        kinds = {uid: delivery.results[uid].kind for uid in lacking[-1]}
        return Lacking("; ".join(f"{kinds[uid]} not committed: {why}" for uid, why in lacking[-1].items()))
    if earlier and _too_late(earlier):
        return Lacking(
            f"no report of storage commitment came within {GIVE_UP_SECONDS / 3600:g} h: does the archive know this "
            f"node's AE title, host and port, and does receive.allow let it in?",
            final=True,
        )
    commitment.request(
        delivery.address,
        delivery.claims.make(delivery.task, accepted).transaction_uid,
        [(delivery.results[uid].sop_class_uid, uid) for uid in accepted],
        calling_ae=delivery.calling_ae,
        report=lambda report: delivery.claims.report(report, [delivery.task.name]),
    )
    return Wait(clock.now() + ASK_AGAIN_SECONDS, "stored; storage commitment was requested, its report has not come")


def _too_late(claims: Sequence[Claim]) -> bool:
    return clock.now() - claims[0].made_at > GIVE_UP_SECONDS
