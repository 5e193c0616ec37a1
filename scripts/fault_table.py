"""Writes docs/faults.md: every fault of tests/faults.toml with the tests that prove what must hold."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "faults.md"
HEAD = """# Faults, and the tests that provoke them

Written by `scripts/fault-table` from `tests/faults.toml` and the marks of the tests; do not edit.

After every fault: what a sender was told is safe is in the spool with the same bytes (or in the lossless encoding that
came first, docs/decisions/0007); the PACS has one set of results for each study; every study ends in a result, a "not
applicable" or a failure with its reason; the node answers C-ECHO.
"""

Proofs = Mapping[int, Mapping[str, list[str]]]


def faults() -> dict[str, Any]:
    """The moments, and the faults with the moments at which they matter."""
    return tomllib.loads((ROOT / "tests" / "faults.toml").read_text())


def proofs() -> Proofs:
    """Which tests carry @pytest.mark.fault, by the fault's number and the moment."""
    found: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef):
                for number, moments in filter(None, map(_mark, function.decorator_list)):
                    for moment in moments:
                        found[number][moment].append(f"{path.relative_to(ROOT)}::{function.name}")
    return found


def _mark(decorator: ast.expr) -> tuple[int, str] | None:
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
        number, moments = map(ast.literal_eval, decorator.args)
        return number, moments
    return None


def document(table: Mapping[str, Any], proven: Proofs) -> str:
    """The Markdown text."""
    cells = sum(len(fault["moments"]) for fault in table["fault"])
    covered = sum(len(moments) for moments in proven.values())
    lines = [HEAD, f"{len(table['fault'])} faults, {cells} cells of fault and moment, {covered} with a test.\n"]
    lines += ["| | Moment |", "|---|---|", *(f"| {letter} | {text} |" for letter, text in table["moments"].items())]
    for fault in table["fault"]:
        lines += [
            f"\n## {fault['number']}. {fault['name']}\n",
            f"{fault['holds']}\n",
            "| Moments | Test |",
            "|---|---|",
        ]
        lines += [f"| {moments} | `{test}` |" for test, moments in _by_test(proven[fault["number"]]).items()]
        lines += [f"| {moment} | none: {why} |" for moment, why in fault.get("untested", {}).items()]
    return "\n".join(lines) + "\n"


def _by_test(moments: Mapping[str, list[str]]) -> dict[str, str]:
    found: dict[str, str] = defaultdict(str)
    for moment in sorted(moments):
        for test in moments[moment]:
            found[test] += moment
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


if __name__ == "__main__":
    TARGET.write_text(document(faults(), proofs()))
