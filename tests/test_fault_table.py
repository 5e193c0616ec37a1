"""Every fault that the node must survive has a test at every moment where it matters, or a reason why not."""

from __future__ import annotations

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
