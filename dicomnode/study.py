"""What arrived, and where it lies: Instance, Series, Study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class State(StrEnum):
    """Where a study stands: receiving -> complete -> analysing -> delivering -> an end.

    An instance that arrives late takes a study from anywhere back to `receiving`.
    """

    RECEIVING = "receiving"  # instances arrive, or may still arrive
    COMPLETE = "complete"  # released by the evidence; its work is being queued
    ANALYSING = "analysing"  # a worker has, or will get, its series
    DELIVERING = "delivering"  # results are written; destinations are being served
    DONE = "done"  # every destination has the results
    NOT_APPLICABLE = "not_applicable"  # no series fits a pipeline; a report says why
    FAILED = "failed"  # no answer could be given or delivered; the reason says why
    ACKNOWLEDGED = "acknowledged"  # a failure that somebody has seen and lets go


ENDED = (State.DONE, State.NOT_APPLICABLE, State.FAILED, State.ACKNOWLEDGED)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One stored SOP Instance, with the header attributes that assembly and selection look at."""

    sop_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    path: Path
    #: SHA-256 of the data set as received, without file meta information.
    sha256: str
    #: Values by DICOM keyword (see header.KEYWORDS), as JSON can hold them; absent if missing or unreadable.
    header: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Instances that share a Series Instance UID."""

    uid: str
    instances: tuple[Instance, ...]

    def value(self, keyword: str) -> Any:
        """The first instance's value of an attribute that is the same in the whole series; None if absent."""
        return next((i.header[keyword] for i in self.instances if keyword in i.header), None)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One association that brought instances of a study, and how it ended."""

    calling_ae: str
    #: "open", "released", "aborted" or "lost".
    ending: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """All that is known of a study at one moment."""

    uid: str
    instances: tuple[Instance, ...]
    transfers: tuple[Transfer, ...] = ()
    #: Seconds since 1970, UTC.
    first_at: float = 0.0
    last_at: float = 0.0
    #: When assembly is to look at it (again); None once released.
    deadline_at: float | None = None

    @property
    def series(self) -> tuple[Series, ...]:
        """The study's series, in order of their UIDs."""
        groups: dict[str, list[Instance]] = {}
        for instance in self.instances:
            groups.setdefault(instance.series_uid, []).append(instance)
        return tuple(Series(uid=uid, instances=tuple(groups[uid])) for uid in sorted(groups))
