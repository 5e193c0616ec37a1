"""The ledger's times after the time of day was corrected: what waits is not to wait longer by what the clock was ahead.

The node's clock takes the time of day at its start (clock.py), so a correction counts from the next start on.
"""

from __future__ import annotations

import sqlalchemy as sa

from dicomnode import clock
from dicomnode.ledger import LEASE_SECONDS, Ledger
from dicomnode.schema import claim, study, task
from dicomnode.study import State

RETRY_SECONDS = 40.0  # the longest delay between two tries; a proof that would be asked for later is asked for sooner


def clamp(book: Ledger) -> None:
    """At the start, before anybody works: let no time lie further ahead than if it had been noted now."""
    now = clock.now()
    receiving = study.c.state == State.RECEIVING
    bounds = [
        (study.c.last_at, now, receiving),
        (study.c.deadline_at, now, receiving),  # it is looked at, and waits again if it must
        (task.c.next_at, now + RETRY_SECONDS, task.c.state == "ready"),
        (task.c.lease_until, now + LEASE_SECONDS, task.c.state == "running"),  # of another machine's name
        (claim.c.made_at, now, sa.true()),
    ]
    with book.engine.begin() as db:
        for column, latest, where in bounds:
            db.execute(sa.update(column.table).where(where, column > latest).values({column: latest}))
