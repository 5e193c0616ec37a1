"""A clock that was ahead when the node worked and is right when it starts again: nothing waits for the clock."""
# ruff: noqa: F401, F811 - fixtures are imported by their names

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicomnode import clock, ledger, ledger_clock, schema, supervise
from dicomnode.claims import Claims
from tests.test_node import neck
from tests.test_survival import HOUR, advance, finish, ward


@pytest.fixture
def ahead() -> Iterator[pytest.MonkeyPatch]:
    """The clock is ahead until this is undone."""
    patch = pytest.MonkeyPatch()
    patch.setattr(clock, "_START", clock._START + HOUR)
    yield patch
    patch.undo()


@pytest.mark.fault(22, "s")
def test_a_study_that_arrived_when_the_clock_was_ahead_is_assembled_after_the_start(ward, tmp_path, ahead):
    uid = ward.receive(neck(tmp_path))
    seen = ward.node.ledger.study(uid)
    ward.node.ledger.wait(seen, seen.last_at + ward.node.config.assembly.max_wait_seconds, "more may come")
    ahead.undo()
    assert ward.node.ledger.studies_to_assemble(clock.now() + 600) == []
    supervise._take_over(ward.node.config).engine.dispose()
    assert ward.node.ledger.studies_to_assemble(clock.now()) == [uid]
    assert ward.row(uid)["last_at"] <= clock.now()
    finish(ward, uid)


@pytest.mark.fault(22, "s")
@pytest.mark.parametrize("steps", [1, 2])
def test_work_that_was_put_off_when_the_clock_was_ahead_is_done_after_the_start(ward, tmp_path, ahead, steps):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, steps)
    held = ward.node.ledger.lease("infer" if steps == 1 else "deliver", "w")
    ward.node.ledger.try_later(held, "busy", next_at=clock.now() + 30)
    ahead.undo()
    supervise._take_over(ward.node.config).engine.dispose()
    [next_at] = [row["next_at"] for row in ward.node.ledger.rows(schema.task, state="ready")]
    assert next_at <= clock.now() + ledger_clock.RETRY_SECONDS


@pytest.mark.fault(22, "s")
def test_a_lease_of_a_dead_process_on_another_machine_ends_after_the_start(ward, tmp_path, ahead):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, 1)
    assert ward.node.ledger.lease("infer", "old-name/worker-0/7")
    ahead.undo()
    supervise._take_over(ward.node.config).engine.dispose()
    [row] = ward.node.ledger.rows(schema.task)
    assert row["lease_until"] <= clock.now() + ledger.LEASE_SECONDS


@pytest.mark.fault(22, "s")
def test_the_time_to_give_a_proof_up_counts_from_the_start(ward, tmp_path, ahead):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, 2)
    held = ward.node.ledger.lease("deliver", "w")
    Claims(ward.node.ledger.engine).make(held, ["2.25.1"])
    ahead.undo()
    supervise._take_over(ward.node.config).engine.dispose()
    [claim] = Claims(ward.node.ledger.engine).of(held)
    assert claim.made_at <= clock.now()


def test_a_start_with_a_clock_that_was_right_changes_no_wait_that_is_shorter(ward, tmp_path):
    uid = ward.receive(neck(tmp_path))
    advance(ward, uid, 1)
    held = ward.node.ledger.lease("infer", "w")
    ward.node.ledger.try_later(held, "busy", next_at=clock.now() + 30)
    before = ward.node.ledger.rows(schema.task)
    supervise._take_over(ward.node.config).engine.dispose()
    assert ward.node.ledger.rows(schema.task) == before
