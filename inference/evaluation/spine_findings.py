"""What an MR pipeline says of whole studies: levels, slips and herniations, and whom it should not have looked at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference import spine_findings, spine_series
from inference.datasets.labelled_mr import EXCLUSIONS
from inference.datasets.mr_store import StoredSeries, Study
from inference.datasets.spine_images import with_companions
from inference.disc_measures import meyerding
from inference.evaluation import detection, markdown_tables
from inference.evaluation.markdown_tables import number
from inference.spine_findings import DiscMeasures, Found
from inference.spine_series import Model, Searched

#: Of the box of a finding with the box of a reader in the same slice: both are about the same thing.
OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A lesion or disc that was found where a reader has drawn a box."""

    patient: str
    label: str
    true_label: str
    level: str | None
    true_level: str
    #: As measured, and as the data set says, by the names of `DiscMeasures`; empty where either is missing.
    measured: Mapping[str, float]
    true: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class JudgedSeries:
    """A series that somebody has read."""

    found: Sequence[Judged]
    #: Why papers 000 and 004 would leave the patient out.
    exclusions: Collection[str]
    #: Is any level named? And does the spine bend further than the validated ones?
    named: bool
    bends: bool


def judge(model: Model, study: Study) -> list[JudgedSeries]:
    """Search every series of a study that somebody has read, and find what the reader says of the same places."""
    judged = []
    for series, grids in with_companions(study):
        searched = spine_series.search(model, grids)
        judged.append(
            JudgedSeries(
                found=list(_found(searched, study, series)),
                exclusions=study.exclusions,
                named=bool(searched.outlines.named),
                bends=searched.outlines.bends,
            )
        )
    return judged


def _found(searched: Searched, study: Study, series: StoredSeries) -> Iterator[Judged]:
    for one in searched.found:
        truth = _truth(one, series) if one.probability >= searched.decision.boxes[one.label] else None
        if truth is None:
            continue
        true_label, true_level = truth
        slices = {box.slice for box in one.shown.boxes}
        known = one.level and "/" in one.level and one.level in study.measurements
        values = searched.series["T2"].array
        measured = spine_findings.measures(searched.outlines, values, one.level or "", slices) if known else None
        yield Judged(
            patient=study.patient,
            label=one.label,
            true_label=true_label,
            level=one.level,
            true_level=true_level,
            measured=_values(measured),
            true=study.measurements[one.level] if measured and one.level else {},
        )


def _values(measured: DiscMeasures | None) -> dict[str, float]:
    return {} if measured is None else {name: mm for name, mm in vars(measured).items() if mm is not None}


def _truth(found: Found, series: StoredSeries) -> tuple[str, str] | None:
    """Class and level of the reader's box that lies over a finding best; None where nobody has drawn a named one."""
    mine = detection.drawn([box for box in series.boxes or () if box.slice == found.key.slice and box.level])
    shared = detection.overlaps(np.array([found.key.edges]), mine.edges)[0]
    if not len(shared) or shared.max() < OVERLAP:
        return None
    best = int(shared.argmax())
    return str(mine.labels[best]), str(mine.levels[best])


def measure(series: Sequence[JudgedSeries]) -> dict[str, Any]:
    """Shares of named levels, and errors in mm and per cent; None where there is nothing to measure."""
    judged = [one for each in series for one in each.found]
    named = [one for one in judged if one.level]
    right = [one for one in named if one.level == one.true_level]
    pairs = {
        name: [
            one
            for one in right
            if what in (one.label, one.true_label) and name in one.true.keys() & one.measured.keys()
        ]
        for name, what in (("herniation_mm", "herniation"), ("slip_mm", "slip"), ("slip_percent", "slip"))
    }
    grades = [
        meyerding(one.measured["slip_percent"]) == meyerding(one.true["slip_percent"]) for one in pairs["slip_percent"]
    ]
    return markdown_tables.plain({  # type: ignore[no-any-return]
        "findings": len(judged),
        "patients": len({one.patient for one in judged}),
        "named": len(named),
        "rightly_named": len(right),
        "errors": {name: _errors(mine, name) for name, mine in pairs.items()},
        "meyerding_agreement": float(np.mean(grades)) if grades else None,
        "outlines": {
            "none of these": _remarked([one for one in series if not one.exclusions]),
            **{name: _remarked([one for one in series if name in one.exclusions]) for name in EXCLUSIONS},
        },
    })  # fmt: skip


def _remarked(series: Sequence[JudgedSeries]) -> dict[str, int]:
    """Of how many series the outlines say that something is unusual."""
    return {
        "series": len(series),
        "without_names": sum(not one.named for one in series),
        "bend": sum(one.bends for one in series),
    }


def _errors(judged: Sequence[Judged], name: str) -> dict[str, Any]:
    error = np.array([one.measured[name] - one.true[name] for one in judged])
    if not len(error):
        return {"discs": 0}
    low, high = np.percentile(error, [2.5, 97.5])
    return {
        "discs": len(error),
        "bias": float(error.mean()),
        "mean_absolute": float(np.abs(error).mean()),
        "limits_of_agreement": [float(low), float(high)],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as Markdown."""
    rows = [
        [
            name.replace("_", ", ", 1),
            str(row["discs"]),
            *(number(row.get(key), 2) for key in ("bias", "mean_absolute")),
            " to ".join(number(end, 2) for end in row.get("limits_of_agreement", (None, None))),
        ]
        for name, row in found["errors"].items()
    ]
    wrong = found["named"] - found["rightly_named"]
    return [
        f"Of {found['findings']} lesions and discs that were found where a reader has drawn a box (IoU {OVERLAP}), "
        f"{found['named']} were given a level: {found['rightly_named']} the right one, {wrong} a wrong one. "
        f"Meyerding grade as measured on the shape: {number(found['meyerding_agreement'], 3)} of the slips.",
        "",
        markdown_tables.table(["measure", "discs", "bias", "mean absolute error", "95 % of the errors"], rows),
        "",
        "What outlines say of patients whom the papers would have left out, and of the others:",
        "",
        markdown_tables.table(
            ["patients with", "series", "levels not named", "bend to the side"],
            [[name, *(str(count) for count in row.values())] for name, row in found["outlines"].items()],
        ),
    ]
