"""The security page claims nothing without a test: each that it names exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 40
    functions = {
        file: {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        for file, _ in named
    }
    assert [f"{file}::{name}" for file, name in named if name not in functions[file]] == []


def test_every_requirement_names_a_test():
    table = PAGE.partition("## Requirements and their tests")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert rows
    assert [row for row in rows if "::test_" not in row] == []
