"""What destinations accepted and have to prove, in the ledger: a report finds its delivery after a restart, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from pydicom.uid import generate_uid
from sqlalchemy.engine import Engine

from dicomnode import clock
from dicomnode.errors import Refused
from dicomnode.network.commitment import Report
from dicomnode.schema import claim, task
from dicomnode.settle import holding, note_attempt
from dicomnode.task import Task


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The results of one delivery that the destination said it stored."""

    transaction_uid: str
    made_at: float
    sop_uids: Sequence[str]
    #: Why the destination does not answer for some of them, by SOP Instance UID; None until it has reported.
    lacking: Mapping[str, str] | None


class Claims:
    """The claims in a ledger. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def make(self, held: Task, sop_uids: Sequence[str]) -> Claim:
        """Note what a destination accepted, under a new transaction UID."""
        made = Claim(transaction_uid=generate_uid(prefix=None), made_at=clock.now(), sop_uids=sop_uids, lacking=None)
        with self._engine.begin() as db:
            values = {"transaction_uid": made.transaction_uid, "made_at": made.made_at, "sop_uids": list(sop_uids)}
            db.execute(sa.insert(claim).values(**values, task_id=held.id))
        return made

    def of(self, held: Task) -> list[Claim]:
        """The claims of a delivery, oldest first."""
        query = sa.select(claim).where(claim.c.task_id == held.id).order_by(claim.c.made_at)
        names = ("transaction_uid", "made_at", "sop_uids", "lacking")
        with self._engine.connect().execution_options(reading=True) as db:
            return [Claim(**{name: row[name] for name in names}) for row in db.execute(query).mappings()]

    def drop(self, held: Task) -> None:
        """What was accepted is not there: everything is sent again."""
        with self._engine.begin() as db:
            db.execute(sa.delete(claim).where(claim.c.task_id == held.id))

    def wait(self, held: Task, reason: str, *, next_at: float) -> None:
        """Put a delivery back until its proof is due, which is now if a report has come meanwhile."""
        with self._engine.begin() as db:
            reported = sa.select(claim).where(claim.c.task_id == held.id, claim.c.lacking.is_not(None))
            due = clock.now() if db.execute(reported).first() else next_at
            changes = {"state": "ready", "next_at": due, "reason": reason, "owner": None}
            if db.execute(sa.update(task).where(*holding(held)).values(**changes)).rowcount:
                note_attempt(db, held.id, "later", reason)

    def report(self, news: Report, destinations: Collection[str]) -> None:
        """Keep the first report of a transaction, and have its delivery looked at.

        Raises Refused if none of these destinations was asked about the transaction, or the database is away.
        """
        asked = sa.select(claim).join(task).where(claim.c.transaction_uid == news.transaction_uid)
        try:
            with self._engine.begin() as db:
                row = db.execute(asked.where(task.c.name.in_(destinations))).mappings().first()
                if row is None:
                    raise Refused(Refused.INVALID_ARGUMENT, "no transaction of this UID waits for this AE title")
                if row["lacking"] is not None:
                    return
                mine = claim.c.transaction_uid == news.transaction_uid
                db.execute(sa.update(claim).where(mine).values(lacking=news.lacking(row["sop_uids"])))
                waiting = (task.c.id == row["task_id"], task.c.state == "ready")
                db.execute(sa.update(task).where(*waiting).values(next_at=clock.now()))
        except sa.exc.OperationalError as error:
            raise Refused(Refused.PROCESSING_FAILURE, "the database is busy or unavailable") from error
