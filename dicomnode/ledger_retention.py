"""The ledger's part of deleting: which studies may go, and what is left of them so that they are known again.

Deleting is one transaction: the rows go, the files that they named are put down as doomed, and a tombstone stays.
The files are removed afterwards, by whoever comes first: a crash between the two leaves no file for ever.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dicomnode.ledger import Ledger
from dicomnode.schema import analysis, attempt, doomed, history, instance, result, study, task, tombstone, transfer
from dicomnode.settle import move, settle
from dicomnode.study import State, Study

_OPEN = ("ready", "running")


def delete_inputs(book: Ledger, before: float, believed: Collection[str] = ()) -> int | None:
    """Delete the images of one study that was answered `before`; returns its short id, None if there is no such.

    `believed` are the destinations whose word counts where they prove nothing.
    """
    has_images = sa.exists().where(instance.c.study_uid == study.c.uid)
    with book.engine.begin() as db:
        row = db.execute(_let_go(before, believed).where(has_images).limit(1).with_for_update()).first()
        if row is None:
            return None
        mine = instance.c.study_uid == row.uid
        _doom(db, db.execute(sa.select(instance.c.path).where(mine)).scalars())
        foreign = instance.c.sop_uid.not_in(sa.select(result.c.sop_uid))
        images = {_hash(uid) for uid in db.execute(sa.select(instance.c.sop_uid).where(mine, foreign)).scalars()}
        _bury(db, row.uid, images)
        db.execute(sa.delete(instance).where(mine))
        db.execute(sa.delete(transfer).where(transfer.c.study_uid == row.uid))
        # What has failed for good can only be analysed if the study comes again.
        db.execute(sa.update(task).where(*_failed(row.uid), task.c.kind == "infer").values(state="obsolete"))
        return int(row.id)


def delete_results(book: Ledger, before: float, believed: Collection[str] = ()) -> int | None:
    """Delete the results and findings of one study that was answered `before` and whose images are deleted.

    Their UIDs stay: a newer answer names what it supersedes, and results that come back are known as our own.
    """
    buried = sa.exists().where(tombstone.c.study_uid == study.c.uid, tombstone.c.results_at.is_(None))
    has_images = sa.exists().where(instance.c.study_uid == study.c.uid)
    with book.engine.begin() as db:
        row = db.execute(_let_go(before, believed).where(buried, ~has_images).limit(1).with_for_update()).first()
        if row is None:
            return None
        _doom(db, _result_files(db, row.uid))
        db.execute(sa.update(result).where(result.c.study_uid == row.uid).values(path=""))
        for answer in db.execute(sa.select(analysis).where(analysis.c.study_uid == row.uid)).all():
            stripped = _without_findings(answer.document)
            db.execute(sa.update(analysis).where(analysis.c.task_id == answer.task_id).values(document=stripped))
        db.execute(sa.update(task).where(*_failed(row.uid)).values(current=0))  # there is nothing to deliver any more
        db.execute(sa.update(study).where(study.c.uid == row.uid).values(selection=[]))
        db.execute(sa.update(tombstone).where(tombstone.c.study_uid == row.uid).values(results_at=time.time()))
        return int(row.id)


def missing(book: Ledger, seen: Study) -> int:
    """How many images of a study were deleted and have not come again."""
    with book.engine.connect().execution_options(reading=True) as db:
        deleted = db.execute(sa.select(tombstone.c.images).where(tombstone.c.study_uid == seen.uid)).scalar()
    return len(set(deleted or ()) - {_hash(image.sop_uid) for image in seen.instances})


def keep_answer(book: Ledger, seen: Study, *, because: str) -> None:
    """Close a study that was opened again without all its images, unless an instance arrived since `seen` was read."""
    with book.engine.begin() as db:
        row = db.execute(sa.select(study).where(study.c.uid == seen.uid).with_for_update()).mappings().one()
        if row["state"] == State.RECEIVING and row["last_at"] == seen.last_at:
            move(db, seen.uid, State.COMPLETE, because)
            db.execute(sa.update(study).where(study.c.uid == seen.uid).values(deadline_at=None))
            settle(db, seen.uid)


def acknowledge(book: Ledger, uid: str) -> bool:
    """Note that somebody has seen a failure; False if the study has not failed."""
    with book.engine.begin() as db:
        row = db.execute(sa.select(study).where(study.c.uid == uid).with_for_update()).mappings().one()
        if row["state"] == State.FAILED:
            move(db, uid, State.ACKNOWLEDGED, row["reason"])
        return bool(row["state"] == State.FAILED)


def erase(book: Ledger, uid: str) -> bool:
    """Delete every row and file of a study; False if a process is at work on it."""
    mine = task.c.study_uid == uid
    with book.engine.begin() as db:
        state = db.execute(sa.select(study.c.state).where(study.c.uid == uid).with_for_update()).scalar()
        running = db.execute(sa.select(task.c.id).where(mine, task.c.state == "running").limit(1)).first()
        if state in (State.RECEIVING, State.ANALYSING) or running:
            return False
        images = db.execute(sa.select(instance.c.path).where(instance.c.study_uid == uid)).scalars()
        _doom(db, [*images, *_result_files(db, uid)])
        db.execute(sa.delete(attempt).where(attempt.c.task_id.in_(sa.select(task.c.id).where(mine))))
        for table in (analysis, result):
            db.execute(sa.delete(table).where(table.c.study_uid == uid))
        db.execute(sa.delete(task).where(mine, task.c.parent_id.is_not(None)))
        for table in (task, instance, transfer, history, tombstone):
            db.execute(sa.delete(table).where(table.c.study_uid == uid))
        db.execute(sa.delete(study).where(study.c.uid == uid))
        return True


def removed(book: Ledger, rows: Sequence[RowMapping]) -> None:
    """These doomed files are off the disk."""
    same = sa.delete(doomed).where(doomed.c.path == sa.bindparam("old"), doomed.c.inode == sa.bindparam("number"))
    with book.engine.begin() as db:
        db.execute(same, [{"old": row["path"], "number": row["inode"]} for row in rows])


def _let_go(before: float, believed: Collection[str]) -> sa.Select[Any]:
    """Studies whose every destination has the current answer, or whose failure was acknowledged, since `before`."""
    mine = task.c.study_uid == study.c.uid
    delivery = task.alias()
    sent = delivery.c.parent_id == task.c.id
    held = sa.or_(delivery.c.state == "done", sa.and_(delivery.c.state == "unproven", delivery.c.name.in_(believed)))
    delivered = sa.and_(sa.exists().where(sent), ~sa.exists().where(sent, ~held))
    unproven = sa.exists().where(mine, task.c.kind == "infer", task.c.current == 1, ~delivered)
    proven = sa.and_(study.c.state.in_((State.DONE, State.NOT_APPLICABLE)), ~unproven)
    busy = sa.exists().where(mine, task.c.state.in_(_OPEN))
    recent = sa.exists().where(history.c.study_uid == study.c.uid, history.c.at > before)
    return sa.select(study.c.id, study.c.uid).where(
        sa.or_(proven, study.c.state == State.ACKNOWLEDGED), ~busy, ~recent
    )  # fmt: skip


def _failed(uid: str) -> tuple[Any, ...]:
    return task.c.study_uid == uid, task.c.state == "failed"


def _result_files(db: Connection, uid: str) -> set[str]:
    """All files beside the results of a study: one that was cut off before its commit has left some without a row."""
    paths = db.execute(sa.select(result.c.path).where(result.c.study_uid == uid, result.c.path != "")).scalars()
    folders = {Path(path).parent for path in paths}
    return {str(path) for folder in folders if folder.exists() for path in folder.iterdir()}


def _bury(db: Connection, uid: str, images: set[str]) -> None:
    mine = tombstone.c.study_uid == uid
    images |= set(db.execute(sa.select(tombstone.c.images).where(mine)).scalar() or ())
    values = {"images": sorted(images), "inputs_at": time.time(), "results_at": None}
    if db.execute(sa.update(tombstone).where(mine).values(**values)).rowcount == 0:
        db.execute(sa.insert(tombstone).values(study_uid=uid, **values))


def _doom(db: Connection, paths: Iterable[str]) -> None:
    rows = [{"path": path, "inode": str(Path(path).stat().st_ino)} for path in paths if Path(path).exists()]
    if rows:
        db.execute(sa.delete(doomed).where(doomed.c.path == sa.bindparam("path")), rows)
        db.execute(sa.insert(doomed), rows)


def _without_findings(document: Mapping[str, Any]) -> dict[str, Any]:
    scores: dict[str, Any] = {"case": None, "threshold": None, "slices": [], "levels": {}, "group": None}
    return {**document, "findings": [], "quality": [], "refused": [], "scores": scores}


def _hash(uid: str) -> str:
    """Short: it tells the images of one study apart."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]
