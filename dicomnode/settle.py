"""How tasks begin and end inside a transaction, and how the state of their study follows from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomnode.schema import analysis, attempt, history, study, task
from dicomnode.study import State
from dicomnode.task import NewTask, Task


def queue(db: Connection, study_uid: str, new: NewTask, now: float) -> None:
    """Add a task; one that exists already for the same input stands, and counts again."""
    same = (
        task.c.kind == new.kind, task.c.study_uid == study_uid, task.c.name == new.name, task.c.digest == new.digest,
    )  # fmt: skip
    db.execute(sa.update(task).where(*same, task.c.state == "obsolete").values(state="ready", next_at=now))
    if db.execute(sa.update(task).where(*same).values(current=1)).rowcount == 0:
        values: dict[str, Any] = {
            "kind": new.kind,
            "name": new.name,
            "digest": new.digest,
            "payload": dict(new.payload),
        }
        values |= {"study_uid": study_uid, "state": "ready", "next_at": now, "parent_id": new.parent_id}
        db.execute(sa.insert(task).values(**values))


def holding(held: Task) -> tuple[Any, ...]:
    """The condition that a task is still ours."""
    return task.c.id == held.id, task.c.state == "running", task.c.owner == held.owner


def close(db: Connection, held: Task, state: str, reason: str) -> bool:
    """End a task if we still hold it; False if its lease went to somebody else, whose answer counts."""
    changes = {"state": state, "reason": reason, "owner": None, "lease_until": None}
    if db.execute(sa.update(task).where(*holding(held)).values(**changes)).rowcount == 0:
        return False
    note_attempt(db, held.id, state, reason)
    return True


def note_attempt(db: Connection, task_id: int, outcome: str, reason: str) -> None:
    """Keep how a try at a task ended."""
    db.execute(sa.insert(attempt).values(task_id=task_id, at=time.time(), outcome=outcome, reason=reason))


def remember(db: Connection, study_uid: str, state: str, reason: str) -> None:
    """Add to the history that people are shown."""
    db.execute(sa.insert(history).values(study_uid=study_uid, at=time.time(), state=state, reason=reason))


def move(db: Connection, study_uid: str, state: State, reason: str) -> None:
    """Change a study's state, with its time and reason in the history."""
    changed = db.execute(
        sa.update(study).where(study.c.uid == study_uid, study.c.state != state).values(state=state, reason=reason)
    )
    if changed.rowcount:
        remember(db, study_uid, state, reason)


def settle(db: Connection, study_uid: str) -> None:
    """Derive a released study's state from its current tasks."""
    if db.execute(sa.select(study.c.state).where(study.c.uid == study_uid)).scalar_one() == State.RECEIVING:
        return
    current = (task.c.study_uid == study_uid, task.c.current == 1, task.c.kind == "infer")
    analyses = db.execute(
        sa.select(task.c.id, task.c.state, task.c.reason, analysis.c.document).outerjoin(analysis).where(*current)
    ).all()
    ids = [row.id for row in analyses]
    deliveries = db.execute(sa.select(task.c.state, task.c.name, task.c.reason).where(task.c.parent_id.in_(ids))).all()
    answers = [(row.state, row.document or {"state": "failed", "reason": row.reason}) for row in analyses]
    state, reason = derive(answers, [tuple(row) for row in deliveries])
    move(db, study_uid, state, reason)


def derive(
    analyses: Sequence[tuple[str, Mapping[str, Any]]], deliveries: Sequence[tuple[str, str, str]]
) -> tuple[State, str]:
    """The state of a study with these analyses (task state, answer) and deliveries (task state, name, reason)."""
    if any(state in ("ready", "running") for state, _ in analyses):
        return State.ANALYSING, "waiting for the analysis"
    if any(state in ("ready", "running") for state, _, _ in deliveries):
        return State.DELIVERING, "results are on their way"
    undelivered = [f"not delivered to {name}: {reason}" for state, name, reason in deliveries if state == "failed"]
    answers = [document for _, document in analyses]
    failures = [answer["reason"] for answer in answers if answer["state"] == "failed"]
    if undelivered or failures:
        return State.FAILED, "; ".join([*failures, *undelivered])
    if all(answer["state"] == "not_applicable" for answer in answers):
        return State.NOT_APPLICABLE, "; ".join(answer["reason"] for answer in answers)
    if unproven := [name for state, name, _ in deliveries if state == "unproven"]:
        return State.DONE, f"results stored, not proven by {', '.join(unproven)}"
    return State.DONE, "results delivered" if deliveries else "results written, no destination is configured"
