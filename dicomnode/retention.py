"""What is deleted, and when: by the rules of [retention] on the coordinator's clock, or by an order to erase a patient.

Nothing is deleted that was not delivered, and nothing because the disk is full; only `purge` deletes whatever there is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from dicomnode import ledger_retention, schema
from dicomnode.config import Retention
from dicomnode.ledger import Ledger
from dicomnode.spool import Spool, flush_folder

logger = logging.getLogger(__name__)

DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Gone:
    """A file that is about to be removed."""

    study_uid: str
    sop_class_uid: str
    path: Path


Told = Callable[[Sequence[Gone]], None]


def apply(
    book: Ledger,
    spool: Spool,
    rules: Retention,
    deleted: Told = lambda gone: None,
    *,
    believed: Collection[str] = (),
) -> None:
    """Delete what the rules let go, and what a crash left of earlier deletions; `deleted` hears of every file.

    `believed` are the destinations whose word counts where they prove nothing.
    """
    remove_doomed(book, deleted)
    steps = (
        (rules.inputs_days, ledger_retention.delete_inputs, "images deleted"),
        (rules.results_days, ledger_retention.delete_results, "results deleted"),
    )
    for days, delete, message in steps:
        while days is not None and (study_id := delete(book, time.time() - days * DAY, believed)) is not None:
            remove_doomed(book, deleted)
            logger.info(message, extra={"study": study_id, "days": days})
    for path in _rejected(spool):
        tombstones = book.rows(schema.tombstone, study_uid=_value(path, "StudyInstanceUID"))
        if any(row["results_at"] for row in tombstones):
            path.unlink()


def purge(book: Ledger, spool: Spool, patient_id: str, deleted: Told = lambda gone: None) -> tuple[int, list[int]]:
    """Erase a patient; returns how many studies there are, and the short ids of those that are still worked on."""
    found = [row for row in book.rows(schema.study) if _is_of(book, row["uid"], patient_id)]
    for path in _rejected(spool):
        if _value(path, "PatientID") == patient_id:
            path.unlink()
    busy = [row["id"] for row in found if not ledger_retention.erase(book, row["uid"])]
    remove_doomed(book, deleted)
    return len(found), busy


def remove_doomed(book: Ledger, deleted: Told = lambda gone: None) -> None:
    """Take files off the disk whose rows are gone. `deleted` hears of them before: rather twice than not at all."""
    rows = book.rows(schema.doomed)
    there = [Path(row["path"]) for row in rows if _is_it(row)]
    if there:
        deleted([
            Gone(
                study_uid=_value(path, "StudyInstanceUID") or "",
                sop_class_uid=_value(path, "SOPClassUID") or "",
                path=path,
            )
            for path in there
        ])  # fmt: skip
    for path in there:
        path.unlink(missing_ok=True)  # another process may do the same
    for folder in {Path(row["path"]).parent for row in rows}:
        with suppress(FileNotFoundError):
            flush_folder(folder)
        with suppress(OSError):  # there are other files in it
            folder.rmdir()
    if rows:
        ledger_retention.removed(book, rows)


def _is_it(row: Mapping[Any, Any]) -> bool:
    """Whether a doomed file is still there, and no result that was made again under its name."""
    try:
        return bool(str(Path(row["path"]).stat().st_ino) == row["inode"])
    except FileNotFoundError:  # a crash came after it
        return False


def _is_of(book: Ledger, study_uid: str, patient_id: str) -> bool:
    return any(_value(path, "PatientID") == patient_id for path in _witnesses(book, study_uid))


def _witnesses(book: Ledger, study_uid: str) -> Iterator[Path]:
    """One image of each series, and every result."""
    series = {row["series_uid"]: row["path"] for row in book.rows(schema.instance, study_uid=study_uid)}
    results = [row["path"] for row in book.rows(schema.result, study_uid=study_uid) if row["path"]]
    yield from map(Path, (*series.values(), *results))


def _rejected(spool: Spool) -> list[Path]:
    return list((spool.root / "rejected").iterdir())


def _value(path: Path, keyword: str) -> str | None:
    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[keyword]).get(keyword, "")).strip()
    except Exception as error:  # noqa: BLE001 - half a file raises anything inside the parser
        logger.warning("%s cannot be read: %s", path, type(error).__name__)
        return None
