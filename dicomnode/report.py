"""What `process` and `status` print: one JSON document for machines, a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from dicomnode import schema
from dicomnode.ledger import Ledger
from dicomnode.owed import late, owed
from dicomnode.study import State

Document = dict[str, Any]


def study_document(
    study_uid: str,
    *,
    verdict: tuple[str, str],
    released_because: str,
    choices: Sequence[Mapping[str, Any]],
    analyses: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
) -> Document:
    """One entry of "studies"; `verdict` is its state and the reason for it."""
    return {
        "study_uid": study_uid,
        "state": verdict[0],
        "reason": verdict[1],
        "released_because": released_because,
        "series": [{key: choice[key] for key in ("series_uid", "pipeline", "reason")} for choice in choices],
        "analyses": list(analyses),
        "results": list(results),
    }


def state_of(analyses: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """State and reason of a study from those of its analyses: the worst one counts."""
    for state in (State.FAILED, State.DONE):
        if reasons := [a["reason"] for a in analyses if a["state"] == state]:
            return state, "; ".join(filter(None, reasons))
    return State.NOT_APPLICABLE, "; ".join(a["reason"] for a in analyses)


def stored_document(ledger: Ledger, study_uid: str) -> Document:
    """A study in the ledger, with its times and deliveries."""
    row = ledger.rows(schema.study, uid=study_uid)[0]
    tasks = ledger.rows(schema.task, study_uid=study_uid)
    current = {task["id"] for task in tasks if task["kind"] == "infer" and task["current"]}
    answers = ledger.rows(schema.analysis, study_uid=study_uid)
    stored = sorted(ledger.rows(schema.result, study_uid=study_uid), key=lambda r: (r["task_id"], r["position"]))
    document = study_document(
        study_uid,
        verdict=(row["state"], row["reason"]),
        released_because=row["released_because"],
        choices=row["selection"],
        analyses=[answer["document"] for answer in answers if answer["task_id"] in current],
        results=[
            {"kind": r["kind"], "sop_uid": r["sop_uid"], "path": r["path"]}
            for r in _shown([row for row in stored if row["task_id"] in current and row["path"]])
        ],
    )
    document["id"] = row["id"]
    document["instances"] = len(ledger.rows(schema.instance, study_uid=study_uid))
    document["times"] = {name: _iso(row[f"{name}_at"]) for name in ("first", "last", "released")}
    gone = next(iter(ledger.rows(schema.tombstone, study_uid=study_uid)), {"inputs_at": None, "results_at": None})
    document["deleted"] = {name: _iso(gone[f"{name}_at"]) for name in ("inputs", "results")}
    document["deliveries"] = [
        {
            "destination": task["name"],
            "state": task["state"],
            "reason": task["reason"],
            "attempts": task["attempts"],
            "next": _iso(task["next_at"]) if task["state"] == "ready" else None,
        }
        for task in tasks
        if task["kind"] == "deliver" and task["parent_id"] in current
    ]
    document["superseded"] = [r["sop_uid"] for r in stored if r["task_id"] not in current]
    document["history"] = [
        {"at": _iso(item["at"]), "state": item["state"], "reason": item["reason"]}
        for item in ledger.rows(schema.history, study_uid=study_uid)
    ]
    return document


def _shown(results: Sequence[Any]) -> list[Any]:
    """All but the twins of reports in the older class: they hold nothing new, and are sent instead, if at all."""
    reported = {r["task_id"] for r in results if r["kind"] == "SR"}
    return [r for r in results if r["kind"] != "CSR" or r["task_id"] not in reported]


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


OVERVIEW = ("id", "state", "instances", "last image", "released because", "reason")


def overview_rows(ledger: Ledger) -> list[tuple[Any, ...]]:
    """All studies, one row each in the columns of OVERVIEW."""
    return [
        (row["id"], row["state"], row["instances"], _iso(row["last_at"]), row["released_because"], row["reason"])
        for row in ledger.studies()
    ]


UNDELIVERED = ("study", "not delivered to", "state", "tries", "reason")


def undelivered_rows(ledger: Ledger) -> list[tuple[Any, ...]]:
    """The deliveries that were given up or wait for long, in the columns of UNDELIVERED."""
    given_up = [
        (row["study"], row["name"], "given up", row["attempts"] + 1, row["reason"]) for row in owed(ledger, "failed")
    ]
    waiting = [
        (row["study"], row["name"], f"waits since {_iso(row['since'])}", row["attempts"], row["reason"])
        for row in late(ledger)
    ]
    return given_up + waiting


def undelivered(ledger: Ledger) -> Table | None:
    """The deliveries that were given up or wait for long in a table; None without any."""
    rows = undelivered_rows(ledger)
    return _rows(rows, *UNDELIVERED) if rows else None


def overview(ledger: Ledger) -> Table:
    """All studies in a table."""
    return _rows(overview_rows(ledger), *OVERVIEW)


def table(document: Mapping[str, Any]) -> RenderableType:
    """One study for people: verdict, findings, series, deliveries."""
    parts: list[RenderableType] = [f"study {document['study_uid']}: [bold]{document['state']}[/bold]"]
    parts += [escape(f"  {document[key]}") for key in ("reason", "released_because") if document[key]]
    parts += [f"  {what} deleted {when}" for what, when in document.get("deleted", {}).items() if when]
    for analysis in document["analyses"]:
        case = analysis["scores"]["case"]
        if case is not None:
            verdict = "present" if case >= analysis["scores"]["threshold"] else "absent"
            parts.append(f"  {analysis['pipeline']}: {verdict}, probability {case:.0%}")
        parts += [escape(f"  note: {note}") for note in analysis["quality"]]
    findings = [finding for analysis in document["analyses"] for finding in analysis["findings"]]
    if findings:
        parts.append(
            _rows([_finding_row(f) for f in findings], "finding", "level", "probability", "slices", "box (LPS mm)")
        )
    series = [(s["series_uid"], s["pipeline"] or "-", s["reason"]) for s in document["series"]]
    parts.append(_rows(series, "series", "pipeline", "because"))
    results = [(r["kind"], r["path"]) for r in document["results"]]
    if results:
        parts.append(_rows(results, "result", "file"))
    deliveries = [(d["destination"], d["state"], d["reason"], d["next"] or "") for d in document.get("deliveries", ())]
    if deliveries:
        parts.append(_rows(deliveries, "destination", "delivery", "reason", "next try"))
    return Group(*parts)


def _finding_row(finding: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = finding["box_mm"]
    span = " ".join(f"{a:.0f}..{b:.0f}" for a, b in zip(low, high, strict=True))
    uncertainty = "" if finding["uncertainty"] is None else f" ± {finding['uncertainty']:.0%}"
    probability = f"{finding['probability']:.0%}{uncertainty}"
    return finding["code"]["meaning"], finding["level"] or "-", probability, str(len(finding["slices"])), span


def _rows(rows: Sequence[Sequence[str]], *columns: str) -> Table:
    result = Table(*columns, box=box.SIMPLE)
    for row in rows:
        result.add_row(*(escape(str(cell)) for cell in row))
    return result
