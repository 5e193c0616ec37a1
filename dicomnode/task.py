"""Plain data about the node's work: tasks, and the result objects that finished ones leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """Work to be queued."""

    kind: str
    name: str
    digest: str
    payload: Mapping[str, Any]
    #: Of a delivery: the analysis whose results it sends.
    parent_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work that this process holds a lease on."""

    id: int
    kind: str
    study_uid: str
    study_id: int
    name: str
    digest: str
    payload: Mapping[str, Any]
    attempts: int
    #: Why the last attempt failed.
    reason: str
    owner: str


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """A result object on the disk, ready to be sent."""

    sop_uid: str
    series_uid: str
    study_uid: str
    sop_class_uid: str
    kind: str
    path: Path
