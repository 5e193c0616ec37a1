"""Writes docs/faults.md: every fault of tests/faults.toml with the tests that prove what must hold."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "faults.md"
HEAD = """# Faults, and the tests that provoke them

Written by `scripts/fault-table` from `tests/faults.toml` and the marks of the tests; do not edit.

After every fault: what a sender was told is safe is in the spool with the same bytes (or in the lossless encoding that
came first, docs/decisions/0007); the PACS has one set of results for each study; every study ends in a result, a "not
applicable" or a failure with its reason; the node answers C-ECHO.

Some tests need a program or a right that a machine may lack: a run of the tests names the cells of which it skipped
every test.
"""

Proofs = Mapping[int, Mapping[str, list[str]]]
_EXCUSED = re.compile(r"pytest\.mark\.(skip|xfail)")


def faults() -> dict[str, Any]:
    """The moments, and the faults with the moments at which they matter."""
    return tomllib.loads((ROOT / "tests" / "faults.toml").read_text())


def proofs(root: Path = ROOT) -> Proofs:
    """Which tests carry @pytest.mark.fault, by the fault's number and the moment.

    Raises ValueError for a mark that proves nothing: on what pytest does not collect, or is told to skip or to forgive.
    """
    found: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((root / "tests").rglob("*.py")):
        module = ast.parse(path.read_text())
        tests = _tests(module) if path.name.startswith("test_") else []
        for function in ast.walk(module):
            for number, moments in _marks(function):
                name = f"{path.relative_to(root)}::{getattr(function, 'name', '')}"
                if function not in tests:
                    raise ValueError(f"{name} is marked as a proof, and pytest may not run it, or forgive it")
                for moment in moments:
                    found[number][moment].append(name)
    return found


def _tests(module: ast.Module) -> list[ast.FunctionDef]:
    """The functions that pytest collects and runs, as far as their names and marks tell."""
    if any(isinstance(line, ast.Assign) and _EXCUSED.search(ast.unparse(line)) for line in module.body):
        return []
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return [f for f in functions if not any(_EXCUSED.search(ast.unparse(mark)) for mark in f.decorator_list)]


def _marks(function: ast.AST) -> Iterator[tuple[int, str]]:
    for decorator in getattr(function, "decorator_list", ()):
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            number, moments = map(ast.literal_eval, decorator.args)
            yield number, moments


def unproven(proven: Proofs, skipped: Collection[str], passed: Collection[str]) -> list[str]:
    """The cells of which a run of the tests has skipped every proof."""
    return [
        f"fault {number}, moment {moment}: skipped {', '.join(tests)}"
        for number, moments in sorted(proven.items())
        for moment, tests in sorted(moments.items())
        if set(tests) <= set(skipped) - set(passed)
    ]


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
