"""What the node knows and owes: instances, studies, tasks, analyses, results. The only home of SQL.

Every step of the flow is one transaction here: a step's output and the next step's task appear together or
not at all. SQLite by default, PostgreSQL by URL, the same statements on both.

Task states: ready -> running -> done | unproven | failed | obsolete. `running` with a lease that ran out is ready.
A task is unique on (kind, study, pipeline or destination, digest of its input): queueing twice is impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Table
from sqlalchemy.engine import Connection, Engine, RowMapping

from dicomnode import clock, schema
from dicomnode.copies import refuse_unless_copy
from dicomnode.errors import Refused
from dicomnode.schema import analysis, history, instance, result, study, task, tombstone, transfer
from dicomnode.settle import close, holding, move, note_attempt, queue, remember, settle
from dicomnode.study import Instance, State, Study, Transfer
from dicomnode.task import NewTask, StoredResult, Task

LEASE_SECONDS = 30.0

# What every instance needs is built once: building a statement costs as much as running it.
_FILE_INSTANCE = sa.insert(instance)
_BRINGING = sa.select(transfer.c.association).where(
    transfer.c.association == sa.bindparam("bringer"), transfer.c.study_uid == sa.bindparam("study")
)
_TOUCH_STUDY = (
    sa.update(study)
    .where(study.c.uid == sa.bindparam("study"), study.c.state == State.RECEIVING, _BRINGING.exists())
    .values(last_at=sa.bindparam("now"))
)


class Ledger:
    """A connection pool to the node's database. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # -- receiving ------------------------------------------------------------------------------------------

    def file_instance(self, item: Instance, *, association: str, calling_ae: str) -> bool:
        """Record a durable instance; returns False if it, or a copy of it, is stored already.

        Raises Refused (MISMATCH) if what is stored under its UID is no copy of it, and (OUT_OF_RESOURCES) if
        the database cannot take it now.
        """
        now = clock.now()
        values = {name: getattr(item, name) for name in schema.INSTANCE_FIELDS}
        values |= {"path": str(item.path), "association": association, "received_at": now}
        try:
            with self._begin() as db:
                db.execute(_FILE_INSTANCE, values)
                self._touch_study(db, item.study_uid, association, calling_ae, now)
            return True
        except sa.exc.IntegrityError:
            if self._is_known(item):
                return False
            # Another association began the same study in the same moment; now that is there.
            return self.file_instance(item, association=association, calling_ae=calling_ae)
        except sa.exc.OperationalError as error:
            raise Refused(Refused.OUT_OF_RESOURCES, "the database is busy or unavailable") from error

    def _is_known(self, item: Instance) -> bool:
        """Whether this instance is stored already; raises Refused if what is stored is no copy of it."""
        with self._read() as db:
            known = db.execute(sa.select(instance).where(instance.c.sop_uid == item.sop_uid)).mappings().first()
        if known is not None:
            refuse_unless_copy(item, schema.instance_of(known))
        return known is not None

    def _touch_study(self, db: Connection, study_uid: str, association: str, calling_ae: str, now: float) -> None:
        """An instance arrived: the study exists, is receiving, and knows the association."""
        names = {"bringer": association, "study": study_uid}
        if db.execute(_TOUCH_STUDY, {**names, "now": now}).rowcount:
            return  # the usual case: another instance of a study on the same association
        if db.execute(_BRINGING, names).first() is None:
            values = {"association": association, "study_uid": study_uid, "calling_ae": calling_ae}
            db.execute(sa.insert(transfer).values(**values, ending="open"))
        known = db.execute(sa.select(study.c.state).where(study.c.uid == study_uid)).scalar_one_or_none()
        changes: dict[str, Any] = {"state": State.RECEIVING, "last_at": now, "deadline_at": now}
        if known is None:
            db.execute(sa.insert(study).values(uid=study_uid, first_at=now, calling_ae=calling_ae, **changes))
            remember(db, study_uid, State.RECEIVING, "first instance")
            return
        db.execute(sa.update(study).where(study.c.uid == study_uid).values(**changes))
        if known != State.RECEIVING:
            remember(db, study_uid, State.RECEIVING, "late instance")

    def forget(self, item: Instance) -> None:
        """Take back an instance that was recorded but did not reach the disk."""
        with self._begin() as db:
            db.execute(sa.delete(instance).where(instance.c.sop_uid == item.sop_uid))

    def has_file(self, path: Path) -> bool:
        """Whether a file is that of a recorded instance."""
        with self._read() as db:
            mine = instance.c.path.endswith(f"/{path.name}", autoescape=True)
            return db.execute(sa.select(instance.c.id).where(mine)).first() is not None

    def end_association(self, association: str, ending: str) -> None:
        """Record how an association ended, and have assembly look at its studies now."""
        with self._begin() as db:
            _end(db, transfer.c.association == association, ending)

    def lose_open_associations(self, whole: Callable[[Instance], bool]) -> int:
        """At the receiver's start: associations that were open when it ended brought all they ever will.

        The last instance of each may have been recorded while its bytes were still on the way to the disk, before
        its sender was answered: if it is not `whole`, it is forgotten. Returns how many were.
        """
        with self._begin() as db:
            were_open = sa.select(transfer.c.association).where(transfer.c.ending == "open")
            last = sa.select(sa.func.max(instance.c.id)).where(instance.c.association.in_(were_open))
            rows = db.execute(
                sa.select(instance).where(instance.c.id.in_(last.group_by(instance.c.association)))
            ).mappings()
            broken = [row["id"] for row in rows.all() if not whole(schema.instance_of(row))]
            db.execute(sa.delete(instance).where(instance.c.id.in_(broken)))
            _end(db, transfer.c.ending == "open", "lost")
            return len(broken)

    # -- assembly -------------------------------------------------------------------------------------------

    def studies_to_assemble(self, now: float) -> list[str]:
        """UIDs of the studies whose deadline has come."""
        with self._read() as db:
            due = sa.select(study.c.uid).where(study.c.state == State.RECEIVING, study.c.deadline_at <= now)
            return list(db.execute(due.order_by(study.c.deadline_at)).scalars())

    def study(self, uid: str) -> Study:
        """A study with its instances and transfers as they are now.

        Without the node's own results: a PACS that routes them back must not set off another analysis.
        """
        with self._read() as db:
            row = db.execute(sa.select(study).where(study.c.uid == uid)).mappings().one()
            foreign = instance.c.sop_uid.not_in(sa.select(result.c.sop_uid))
            instances = db.execute(sa.select(instance).where(instance.c.study_uid == uid, foreign)).mappings()
            transfers = db.execute(sa.select(transfer).where(transfer.c.study_uid == uid)).mappings()
            return Study(
                uid=uid,
                instances=tuple(schema.instance_of(item) for item in instances),
                transfers=tuple(Transfer(calling_ae=t["calling_ae"], ending=t["ending"]) for t in transfers),
                first_at=row["first_at"],
                last_at=row["last_at"],
                deadline_at=row["deadline_at"],
            )

    def drop_empty(self, uid: str) -> None:
        """Forget a study whose only instance did not reach the disk."""
        with self._begin() as db:
            if db.execute(sa.select(instance.c.id).where(instance.c.study_uid == uid).limit(1)).first() is None:
                for table in (transfer, history):
                    db.execute(sa.delete(table).where(table.c.study_uid == uid))
                db.execute(sa.delete(study).where(study.c.uid == uid))

    def wait(self, seen: Study, deadline: float, why: str) -> None:
        """Look at a study again later, unless an association of it ended meanwhile."""
        with self._begin() as db:
            same = (study.c.uid == seen.uid, study.c.deadline_at == seen.deadline_at)
            db.execute(sa.update(study).where(*same).values(deadline_at=deadline, reason=why))

    def release(
        self, seen: Study, *, because: str, selection: Sequence[Mapping[str, Any]], tasks: Sequence[NewTask]
    ) -> bool:
        """Queue the work of a complete study; False if an instance arrived since `seen` was read.

        Work that an earlier release did on the very same input stands; other earlier work becomes obsolete.
        """
        now = clock.now()
        with self._begin() as db:
            row = db.execute(sa.select(study).where(study.c.uid == seen.uid).with_for_update()).mappings().one()
            if row["state"] != State.RECEIVING or row["last_at"] != seen.last_at:
                return False
            remember(db, seen.uid, State.COMPLETE, because)
            earlier = (task.c.study_uid == seen.uid, task.c.kind == "infer")
            db.execute(sa.update(task).where(*earlier).values(current=0))
            db.execute(sa.update(task).where(*earlier, task.c.state == "ready").values(state="obsolete"))
            for new in tasks:
                queue(db, seen.uid, new, now)
            changes = {"released_because": because, "selection": list(selection), "released_at": now}
            db.execute(sa.update(study).where(study.c.uid == seen.uid).values(**changes, deadline_at=None))
            move(db, seen.uid, State.ANALYSING, f"{len(tasks)} analysis task(s)")
            settle(db, seen.uid)
            return True

    # -- tasks ----------------------------------------------------------------------------------------------

    def lease(self, kind: str, owner: str, *, name: str | None = None) -> Task | None:
        """Take the oldest task that is due; it is ours until the lease runs out."""
        now = clock.now()
        ready = sa.or_(task.c.state == "ready", sa.and_(task.c.state == "running", task.c.lease_until < now))
        query = sa.select(task, study.c.id.label("study_id")).join(study, study.c.uid == task.c.study_uid)
        query = query.where(task.c.kind == kind, ready, task.c.next_at <= now)
        if name is not None:
            query = query.where(task.c.name == name)
        query = query.order_by(task.c.next_at, task.c.id).limit(1)
        with self._begin() as db:
            if db.dialect.name != "sqlite":
                query = query.with_for_update(skip_locked=True, of=task)
            row = db.execute(query).mappings().first()
            if row is None:
                return None
            held = {"state": "running", "owner": owner, "lease_until": now + LEASE_SECONDS}
            db.execute(sa.update(task).where(task.c.id == row["id"]).values(**held))
            names = ("id", "kind", "study_uid", "study_id", "name", "digest", "payload", "attempts", "reason")
            return Task(owner=owner, **{field: row[field] for field in names})

    def extend(self, held: Task) -> None:
        """Heartbeat: keep a lease while the work goes on."""
        with self._begin() as db:
            db.execute(sa.update(task).where(*holding(held)).values(lease_until=clock.now() + LEASE_SECONDS))

    def finish_analysis(
        self,
        held: Task,
        *,
        document: Mapping[str, Any],
        results: Sequence[StoredResult],
        destinations: Sequence[NewTask],
    ) -> None:
        """Record an answer, its result objects and their deliveries in one step.

        If a later release made this work obsolete, the answer is kept for the record and nothing is sent.
        """
        now = clock.now()
        with self._begin() as db:
            if not close(db, held, "done", ""):
                return
            db.execute(sa.insert(analysis).values(task_id=held.id, study_uid=held.study_uid, document=dict(document)))
            for position, item in enumerate(results):
                values = {name: getattr(item, name) for name in schema.RESULT_FIELDS}
                db.execute(sa.insert(result).values(**values, path=str(item.path), task_id=held.id, position=position))
            current = db.execute(sa.select(task.c.current).where(task.c.id == held.id)).scalar_one()
            for new in destinations if current else ():
                queue(db, held.study_uid, new, now)
            settle(db, held.study_uid)

    def set_aside(self, held: Task) -> None:
        """The study has changed since the task was queued: its next release queues what is to be done instead."""
        with self._begin() as db:
            close(db, held, "obsolete", "the study has changed")

    def finish_delivery(self, held: Task, reason: str = "", *, proven: bool = True) -> None:
        """A destination has what it was owed, or took it and offers no proof."""
        with self._begin() as db:
            if close(db, held, "done" if proven else "unproven", reason):
                settle(db, held.study_uid)

    def fail(self, held: Task, reason: str) -> None:
        """Give a task up for good."""
        with self._begin() as db:
            if close(db, held, "failed", reason):
                settle(db, held.study_uid)

    def try_later(self, held: Task, reason: str, *, next_at: float) -> None:
        """Count a failure of the task and put it back for `next_at`."""
        with self._begin() as db:
            changes = {"state": "ready", "next_at": next_at, "attempts": task.c.attempts + 1, "reason": reason}
            if db.execute(sa.update(task).where(*holding(held)).values(**changes, owner=None)).rowcount:
                note_attempt(db, held.id, "later", reason)

    def release_owner(self, owner: str, *, died: str | None) -> None:
        """Put back what a process held that ended.

        `died` says how it died on its own: that counts as a failure of the task. None means that the whole node
        was stopped or killed: that says nothing about the task and does not count.
        """
        with self._begin() as db:
            mine = sa.and_(task.c.state == "running", task.c.owner.startswith(owner, autoescape=True))
            for row in db.execute(sa.select(task.c.id).where(mine)).scalars().all():
                changes: dict[str, Any] = {"state": "ready", "owner": None, "lease_until": None}
                if died:
                    changes |= {"attempts": task.c.attempts + 1, "reason": died}
                db.execute(sa.update(task).where(task.c.id == row).values(**changes))
                note_attempt(db, row, "later" if died else "interrupted", died or "the node stopped")

    def retry(self, study_uid: str | None = None, destination: str | None = None) -> int:
        """Put failed tasks back, all or those of a study or a destination; returns how many there were."""
        mine = [task.c.current == 1]
        mine += [task.c.study_uid == study_uid] if study_uid else []
        mine += [task.c.kind == "deliver", task.c.name == destination] if destination else []
        now = clock.now()
        with self._begin() as db:
            failed = (*mine, task.c.state == "failed")
            studies = db.execute(sa.select(task.c.study_uid).where(*failed)).scalars().all()
            db.execute(sa.update(task).where(*mine, task.c.state == "ready").values(next_at=now))
            db.execute(sa.update(task).where(*failed).values(state="ready", attempts=0, next_at=now, reason=""))
            for uid in set(studies):
                settle(db, uid)
            return len(studies)

    # -- reading --------------------------------------------------------------------------------------------

    def studies(self) -> list[RowMapping]:
        """Every study of which there is a file, oldest first, with its number of instances."""
        counted = sa.select(instance.c.study_uid, sa.func.count().label("instances")).group_by(instance.c.study_uid)
        counts = counted.subquery()
        here = sa.func.coalesce(counts.c.instances, 0).label("instances")
        query = sa.select(study, here).outerjoin(counts, counts.c.study_uid == study.c.uid)
        query = query.outerjoin(tombstone, tombstone.c.study_uid == study.c.uid)
        answered = sa.and_(tombstone.c.inputs_at.is_not(None), tombstone.c.results_at.is_(None))
        query = query.where(sa.or_(counts.c.instances.is_not(None), answered))
        with self._read() as db:
            return list(db.execute(query.order_by(study.c.id)).mappings())

    def study_uid(self, uid_or_id: str) -> str | None:
        """A study's UID from its UID or its short id."""
        with self._read() as db:
            match = study.c.uid == uid_or_id
            if uid_or_id.isdecimal() and len(uid_or_id) < 10:
                match = sa.or_(match, study.c.id == int(uid_or_id))
            return db.execute(sa.select(study.c.uid).where(match)).scalar_one_or_none()

    def predecessors(self, held: Task) -> list[StoredResult]:
        """Objects of earlier answers about the same study that a new one supersedes."""
        query = (
            sa.select(result)
            .join(task, task.c.id == result.c.task_id)
            .where(result.c.study_uid == held.study_uid, task.c.current == 0)
        )
        with self._read() as db:
            return [schema.stored_result_of(row) for row in db.execute(query.order_by(result.c.sop_uid)).mappings()]

    def result_series(self, study_uid: str) -> set[str]:
        """UIDs of all series that this node made for a study."""
        with self._read() as db:
            mine = sa.select(result.c.series_uid).where(result.c.study_uid == study_uid)
            return set(db.execute(mine).scalars())

    def results(self, task_id: int) -> list[StoredResult]:
        """The result objects of one analysis, in the order they are sent."""
        query = sa.select(result).where(result.c.task_id == task_id).order_by(result.c.position)
        with self._read() as db:
            return [schema.stored_result_of(row) for row in db.execute(query).mappings()]

    def parent(self, delivery: Task) -> tuple[int, bool]:
        """The analysis whose results a delivery sends, and whether they are still the study's answer."""
        with self._read() as db:
            parent_id = db.execute(sa.select(task.c.parent_id).where(task.c.id == delivery.id)).scalar_one()
            return parent_id, bool(db.execute(sa.select(task.c.current).where(task.c.id == parent_id)).scalar_one())

    def released_at(self, study_uid: str) -> float:
        """When the study was last released: the time its results bear, so that a repeated run equals the first."""
        with self._read() as db:
            return float(db.execute(sa.select(study.c.released_at).where(study.c.uid == study_uid)).scalar_one())

    def rows(self, table: Table, **equal: Any) -> list[RowMapping]:
        """Rows of one table for reports, in order of their primary key."""
        where = [table.c[name] == value for name, value in equal.items()]
        with self._read() as db:
            return list(db.execute(sa.select(table).where(*where).order_by(*table.primary_key)).mappings())

    def instances(self) -> Iterator[Instance]:
        """Every stored instance."""
        with self._read() as db:
            for row in db.execute(sa.select(instance).order_by(instance.c.id)).mappings().all():
                yield schema.instance_of(row)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self.engine.begin() as db:
            yield db

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        # A reader must not queue for the write lock, or polling would slow the receiver down.
        with self.engine.connect().execution_options(reading=True) as db:
            yield db


def _end(db: Connection, mine: sa.ColumnElement[bool], ending: str) -> None:
    """Associations have ended: their studies, which may have been put off until then, are looked at now."""
    uids = sa.select(transfer.c.study_uid).where(mine)
    brought = (study.c.uid.in_(uids), study.c.state == State.RECEIVING)
    db.execute(sa.update(study).where(*brought).values(deadline_at=clock.now()))
    db.execute(sa.update(transfer).where(mine).values(ending=ending))


def connect(url: str) -> Ledger:
    """Open the ledger, creating its tables at first use; raises ConfigError if that cannot be done."""
    return Ledger(schema.connect(url))
