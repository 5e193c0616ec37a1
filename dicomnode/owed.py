"""Deliveries that people should hear of: given up, or owed for too long."""

from __future__ import annotations

import time
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from dicomnode.ledger import Ledger
from dicomnode.schema import attempt, study, task

LATE_SECONDS = 3600.0  # after the answer was there


def owed(book: Ledger, *states: str) -> Sequence[RowMapping]:
    """Deliveries of current answers in these states, oldest answer first.

    Each with `study` (its short id), `name` of the destination, `state`, `attempts`, `reason`, and `since`: when the
    answer was there.
    """
    answer = task.alias()
    query = (
        sa.select(study.c.id.label("study"), task.c.name, task.c.state, task.c.attempts, task.c.reason)
        .add_columns(attempt.c.at.label("since"))
        .join(study, study.c.uid == task.c.study_uid)
        .join(answer, answer.c.id == task.c.parent_id)
        .join(attempt, sa.and_(attempt.c.task_id == answer.c.id, attempt.c.outcome == "done"))
        .where(task.c.kind == "deliver", task.c.state.in_(states), answer.c.current == 1)
    )
    with book.engine.connect().execution_options(reading=True) as db:
        return db.execute(query.order_by(attempt.c.at, task.c.id)).mappings().all()


def late(book: Ledger) -> list[RowMapping]:
    """Deliveries that are tried again and again, or not at all, for more than LATE_SECONDS."""
    before = time.time() - LATE_SECONDS
    return [row for row in owed(book, "ready", "running") if row["since"] < before]
