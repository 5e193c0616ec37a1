"""The ledger's tables: what each column means, which values its states take, and how the database is opened."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)
from sqlalchemy.engine import Connection, Engine, RowMapping

from dicomnode.errors import ConfigError
from dicomnode.study import Instance
from dicomnode.task import StoredResult

VERSION = 2  # 1 had neither claim nor tombstone nor doomed
BUSY_SECONDS = 30  # how long a writer waits for another before it is an error
#: What a database raises that is away, locked or out of space; its other errors are the fault of what is asked of it.
AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
#: Columns that are fields of the same name of a StoredResult, and of an Instance.
RESULT_FIELDS = ("sop_uid", "series_uid", "study_uid", "sop_class_uid", "kind")
INSTANCE_FIELDS = tuple(field.name for field in fields(Instance) if field.name != "path")

metadata = MetaData()

meta = Table("meta", metadata, Column("schema_version", Integer, nullable=False))

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),  # the short name used in messages
    Column("uid", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text, nullable=False, default=""),
    Column("released_because", Text, nullable=False, default=""),
    Column("selection", JSON, nullable=False, default=list),  # per series: pipeline or null, and why
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("deadline_at", Float),  # when assembly looks again; null once released
    Column("released_at", Float),
    Column("calling_ae", String(16), nullable=False),
)

instance = Table(
    "instance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_uid", String(64), nullable=False, unique=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("header", JSON, nullable=False),
    Column("association", String(32), nullable=False, index=True),
    Column("received_at", Float, nullable=False),
)

transfer = Table(  # one association that brought instances of one study
    "transfer",
    metadata,
    Column("association", String(32), primary_key=True),
    Column("study_uid", String(64), primary_key=True),
    Column("calling_ae", String(16), nullable=False),
    Column("ending", String(8), nullable=False),  # open -> released | aborted | lost
    Index("transfer_study", "study_uid"),
)

task = Table(
    "task",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(8), nullable=False),  # infer | deliver
    Column("study_uid", String(64), nullable=False, index=True),
    Column("name", String(64), nullable=False),  # pipeline or destination
    Column("digest", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("state", String(8), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("current", Integer, nullable=False, default=1),  # of an analysis: 0 once a later release replaced it
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Float, nullable=False),
    Column("lease_until", Float),
    Column("owner", String(64)),
    Column("parent_id", ForeignKey("task.id")),  # of a delivery: the analysis whose results it sends
    UniqueConstraint("kind", "study_uid", "name", "digest"),
    Index("task_due", "kind", "state", "next_at"),
)

attempt = Table(
    "attempt",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task_id", ForeignKey("task.id"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("outcome", String(12), nullable=False),  # done | failed | later | interrupted
    Column("reason", Text, nullable=False),
)

analysis = Table(
    "analysis",
    metadata,
    Column("task_id", ForeignKey("task.id"), primary_key=True),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("document", JSON, nullable=False),
)

result = Table(
    "result",
    metadata,
    Column("sop_uid", String(64), primary_key=True),
    Column("task_id", ForeignKey("task.id"), nullable=False, index=True),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("series_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("path", Text, nullable=False),
    Column("position", Integer, nullable=False),  # order of sending: a SEG before the SR that refers to it
)

claim = Table(  # what a destination accepted and has to prove, named as in the request for storage commitment
    "claim",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("task_id", ForeignKey("task.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("made_at", Float, nullable=False),
    Column("sop_uids", JSON, nullable=False),
    Column("lacking", JSON(none_as_null=True)),  # why, by SOP Instance UID; null until the destination has reported
)

history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
)

tombstone = Table(  # of a study whose files were deleted by rule; its rows in study, task and result stay too
    "tombstone",
    metadata,
    Column("study_uid", String(64), primary_key=True),
    Column("images", JSON, nullable=False),  # a hash of each SOP Instance UID that was deleted
    Column("inputs_at", Float, nullable=False),
    Column("results_at", Float),  # null while the results are kept
)

doomed = Table(  # files that nothing refers to any more and that are still to be removed from the disk
    "doomed",
    metadata,
    Column("path", Text, primary_key=True),
    Column("inode", String(20), nullable=False),  # a result that is made again has the same path and another inode
)


def connect(url: str) -> Engine:
    """Open the database, creating the tables at first use.

    Raises ConfigError if the database cannot be opened or belongs to a newer version.
    """
    try:
        engine = _sqlite(url) if url.startswith("sqlite:") else sa.create_engine(url, pool_pre_ping=True)
        version = _version(engine)
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", error)).splitlines()[0]
        raise ConfigError(f"ledger.url: cannot open the database: {cause}", hint="see docs/operations.md") from error
    if version != VERSION:
        engine.dispose()
        raise ConfigError(f"the ledger has schema {version}, this version needs {VERSION}")
    return engine


def check(engine: Engine) -> None:
    """Read the whole database; raises ConfigError if SQLite finds it damaged."""
    if engine.dialect.name != "sqlite":
        return
    try:
        with engine.connect().execution_options(reading=True) as db:
            found = db.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    except sa.exc.DatabaseError as error:
        found = error.orig
    if found != "ok":
        raise ConfigError(
            f"the ledger is damaged: {found}", hint="restore it from the backup, see docs/operations.md; keep the spool"
        )


def _version(engine: Engine) -> int:
    """The schema version of the database, whose tables are created at first use; one of an older version gets ours.

    So far later versions only added tables, and creating what is not there is all that an older one needs.
    """
    metadata.create_all(engine, [meta])
    with engine.begin() as db:
        found: int | None = db.execute(sa.select(meta.c.schema_version)).scalars().first()
        if found is not None and found > VERSION:
            return found
        metadata.create_all(db)
        if found is None:
            db.execute(sa.insert(meta).values(schema_version=VERSION))
        elif found < VERSION:
            db.execute(sa.update(meta).values(schema_version=VERSION))
    return VERSION


def _sqlite(url: str) -> Engine:
    """SQLite with a commit that survives a power cut.

    SQLite before 3.51.3 can corrupt a WAL database with several writers, so an older one uses TRUNCATE.
    """
    try:
        from pysqlite3 import dbapi2 as driver
    except ImportError:  # no wheel for this machine: the standard library's own SQLite
        import sqlite3 as driver
    engine = sa.create_engine(url, module=driver, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
    journal = "WAL" if driver.sqlite_version_info >= (3, 51, 3) else "TRUNCATE"

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in (f"journal_mode={journal}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def instance_of(row: RowMapping) -> Instance:
    """A row of `instance`."""
    return Instance(**{name: row[name] for name in INSTANCE_FIELDS}, path=Path(row["path"]))


def stored_result_of(row: RowMapping) -> StoredResult:
    """A row of `result`."""
    return StoredResult(**{name: row[name] for name in RESULT_FIELDS}, path=Path(row["path"]))
