"""Every fault that the node must survive has a test at every moment where it matters, or a reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import fault_table

TABLE, PROVEN = fault_table.faults(), fault_table.proofs()


def test_every_cell_has_a_test_or_a_reason_and_no_test_claims_a_cell_that_is_none():
    wanted = {(fault["number"], moment) for fault in TABLE["fault"] for moment in fault["moments"]}
    excused = {(fault["number"], moment) for fault in TABLE["fault"] for moment in fault.get("untested", {})}
    proven = {(number, moment) for number, moments in PROVEN.items() for moment in moments}
    assert proven | excused == wanted
    assert not proven & excused
    assert len(proven) >= 60


def test_the_document_is_up_to_date():
    assert fault_table.TARGET.read_text() == fault_table.document(TABLE, PROVEN), "run scripts/fault-table"


MARK = '@pytest.mark.fault(1, "ab")\n'


def write(folder: Path, text: str, name: str = "test_some.py") -> Path:
    (folder / "tests").mkdir()
    (folder / "tests" / name).write_text(text)
    return folder


def test_a_mark_on_a_test_counts_for_each_of_its_moments(tmp_path):
    found = fault_table.proofs(write(tmp_path, f"{MARK}@pytest.mark.timeout(9)\ndef test_it(): ..."))
    assert found == {1: {"a": ["tests/test_some.py::test_it"], "b": ["tests/test_some.py::test_it"]}}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"{MARK}def it(): ...", "test_some.py"),
        (f"{MARK}def test_it(): ...", "some.py"),
        (f"class Some:\n {MARK} def test_it(): ...", "test_some.py"),
        (f"def outer():\n {MARK} def test_it(): ...", "test_some.py"),
        (f"{MARK}@pytest.mark.skip\ndef test_it(): ...", "test_some.py"),
        (f"{MARK}@pytest.mark.skipif(True, reason='')\ndef test_it(): ...", "test_some.py"),
        (f"@pytest.mark.xfail(strict=False)\n{MARK}def test_it(): ...", "test_some.py"),
        (f"pytestmark = [pytest.mark.skip]\n{MARK}def test_it(): ...", "test_some.py"),
    ],
)
def test_a_mark_on_what_pytest_does_not_run_is_an_error(tmp_path, text, name):
    with pytest.raises(ValueError, match=r"::test_it|::it"):
        fault_table.proofs(write(tmp_path, text, name))


def test_a_cell_is_unproven_if_a_run_skips_all_its_tests():
    proven = {1: {"a": ["x", "y"], "b": ["x"]}, 2: {"c": ["z"]}}
    assert fault_table.unproven(proven, skipped={"x"}, passed={"y"}) == ["fault 1, moment b: skipped x"]
    assert fault_table.unproven(proven, skipped={"x"}, passed={"x", "y"}) == [], "another parameter of it passed"
