"""Which cases learn, which choose, and which judge: the parts of the data that never share a patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, combinations
from pathlib import Path
from typing import Protocol, TypeVar

from inference.datasets.labelled import UnusableData
from inference.datasets.lots import lot
from inference.datasets.store import Case


class Owned(Protocol):
    """A labelled case or study of a patient."""

    @property
    def patient(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def licence(self) -> str: ...


C = TypeVar("C", bound=Owned)


class Prepare(Protocol[C]):
    """Opens the cases of a data set, after reading them into the cache: `store.prepare` or `mr_store.prepare_mr`."""

    def __call__(self, text: str, *, cache: Path, progress: Callable[[str], None]) -> list[C]: ...


def several(texts: str | Sequence[str]) -> list[str]:
    """The data sets of a part: one, or a list of them."""
    return [texts] if isinstance(texts, str) else list(texts)


def prepared(
    texts: Mapping[str, str | Sequence[str]], prepare: Prepare[C], *, cache: Path, progress: Callable[[str], None]
) -> dict[str, list[C]]:
    """The parts as the configuration names them, each of data sets of its own, such as ranges of phantom seeds.

    Raises UnusableData when a part is empty, or two share a patient.
    """
    parts = {
        part: [case for text in several(some) for case in prepare(text, cache=cache, progress=progress)]
        for part, some in texts.items()
    }
    for part, cases in parts.items():
        if not cases:
            raise UnusableData(f"{', '.join(several(texts[part]))}: the part {part} has no case")
    for one, other in combinations(parts, 2):
        shared = {(c.source, c.patient) for c in parts[one]} & {(c.source, c.patient) for c in parts[other]}
        if shared:
            raise UnusableData(f"the parts {one} and {other} share {len(shared)} patients, such as {min(shared)[1]}")
    return parts


def divided(
    texts: str | Sequence[str],
    shares: Mapping[str, float],
    prepare: Prepare[C],
    *,
    cache: Path,
    progress: Callable[[str], None],
) -> dict[str, list[C]]:
    """Data sets divided by patient: the same patients come to the same part on every machine, whatever is added.

    Raises UnusableData when a part stays empty.
    """
    cases = [case for text in several(texts) for case in prepare(text, cache=cache, progress=progress)]
    limits = dict(zip(shares, accumulate(shares.values()), strict=True))
    total = sum(shares.values())
    parts: dict[str, list[C]] = {part: [] for part in shares}
    for case in cases:
        place = lot(case.patient) * total
        parts[next(part for part, limit in limits.items() if place < limit)].append(case)
    empty = [part for part, chosen in parts.items() if not chosen]
    if empty:
        raise UnusableData(
            f"{', '.join(several(texts))}: {len(cases)} cases are too few, nothing is left for {', '.join(empty)}"
        )
    return parts


def require_both_classes(parts: Mapping[str, Sequence[Case]]) -> None:
    """Raises UnusableData for a part in which no case is fractured, or none is not: found out after hours otherwise."""
    for part, cases in parts.items():
        for fractured, kind in ((True, "fractured"), (False, "free of fractures")):
            if not any(case.fractured is fractured for case in cases):
                raise UnusableData(f"none of the {len(cases)} cases of the part {part} is {kind}: add cases")
