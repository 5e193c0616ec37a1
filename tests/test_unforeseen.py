"""What nobody foresaw goes wrong inside a step: the study ends where people see it, and nothing goes round for ever."""
# ruff: noqa: F401, F811 - fixtures are imported by their names

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomnode import answer, assembly, dispatch, ledger, node, schema, selection, supervise
from dicomnode.config import Assembly
from dicomnode.report import stored_document
from tests.test_node import Hospital, _no_space, neck
from tests.test_survival import locked, ward


def broken(*_, **__):
    raise KeyError("nobody foresaw this")


def again(ward: Hospital, uid: str, step: Callable[[], bool]) -> bool:
    """Do a step without the delay before its next try."""
    ward.node.ledger.retry(uid)
    return step()


@pytest.mark.fault(28, "d")
@pytest.mark.parametrize(
    "lose", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(bytes(9999))]
)
def test_a_stored_image_that_is_lost_is_reported_to_the_archive_as_a_failure(ward, tmp_path, lose):
    files = neck(tmp_path)
    uid = ward.receive(files)
    ward.assemble(uid)
    lose(files[0])
    assert ward.infer() and ward.deliver()
    assert ward.row(uid)["state"] == "failed"
    assert f"1 of {len(files)} stored images cannot be read" in ward.row(uid)["reason"]
    assert [f"1 of {len(files)} stored images cannot be read" in report for report in ward.reports()] == [True]


@pytest.mark.fault(28, "d")
def test_a_study_whose_images_are_all_lost_fails_in_the_ledger_for_no_report_can_be_written(ward, tmp_path):
    files = neck(tmp_path)
    uid = ward.receive(files)
    ward.assemble(uid)
    for file in files:
        file.unlink()
    assert ward.infer()
    shown = stored_document(ward.node.ledger, uid)
    assert shown["state"] == "failed"
    assert f"{len(files)} of {len(files)} stored images cannot be read" in shown["reason"]
    assert not ward.deliver()


@pytest.mark.fault(28, "d")
@pytest.mark.parametrize("where", [(node, "_save"), (answer, "analyse"), (node, "_job")])
def test_an_analysis_in_which_something_unforeseen_goes_wrong_is_tried_twice_and_fails_visibly(
    ward, tmp_path, monkeypatch, where
):  # fmt: skip
    uid = ward.receive(neck(tmp_path))
    ward.assemble(uid)
    monkeypatch.setattr(*where, broken)
    if where == (answer, "analyse"):
        monkeypatch.setattr(answer, "decline", broken)
    assert ward.infer()
    assert ward.row(uid)["state"] == "analysing", "it is tried once more"
    assert not ward.infer(), "not at once"
    assert again(ward, uid, ward.infer)
    assert (ward.row(uid)["state"], ward.row(uid)["reason"]) == ("failed", "the analysis failed: KeyError")
    monkeypatch.undo()
    assert again(ward, uid, ward.infer) and ward.deliver()
    assert ward.row(uid)["state"] == "done"


@pytest.mark.fault(28, "b")
@pytest.mark.parametrize("where", [(assembly, "decide"), (selection, "choose")])
def test_a_study_that_cannot_be_assembled_is_waited_for_and_then_reported_as_a_failure(
    ward, tmp_path, monkeypatch, where
):  # fmt: skip
    files = neck(tmp_path)
    uid = ward.receive(files[:-1])
    with monkeypatch.context() as patch:
        patch.setattr(*where, broken)
        ward.assemble(uid)
        assert ward.row(uid)["state"] == "receiving", "its other images may be on their way"
        assert ward.row(uid)["deadline_at"] == ward.row(uid)["last_at"] + ward.node.config.assembly.max_wait_seconds
        short = Assembly(quiet_seconds=0.001, max_wait_seconds=0.001)
        ward.node = replace(ward.node, config=ward.node.config.model_copy(update={"assembly": short}))
        ward.assemble(uid)
        assert ward.infer() and ward.deliver()
    assert (ward.row(uid)["state"], ward.row(uid)["reason"]) == ("failed", "the study cannot be assembled: KeyError")
    assert ["cannot be assembled: KeyError" in report for report in ward.reports()] == [True]
    ward.receive(files)
    ward.assemble(uid)
    assert ward.infer() and ward.deliver()
    assert ward.row(uid)["state"] == "done"


@pytest.mark.fault(28, "e")
def test_a_delivery_in_which_something_unforeseen_goes_wrong_fails_after_a_few_tries(ward, tmp_path, monkeypatch):
    uid = ward.receive(neck(tmp_path))
    ward.assemble(uid)
    ward.infer()
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "store", broken)
        for _ in range(node.MAX_LOSSES):
            assert ward.row(uid)["state"] == "delivering"
            assert again(ward, uid, ward.deliver)
            assert not ward.deliver(), "not at once"
    assert ward.row(uid)["state"] == "failed"
    assert ward.row(uid)["reason"] == "not delivered to archive: internal error, see the log: KeyError"
    assert again(ward, uid, ward.deliver)
    assert ward.row(uid)["state"] == "done"


@pytest.mark.fault(28, "e")
def test_a_result_that_is_lost_fails_its_delivery(ward, tmp_path):
    uid = ward.receive(neck(tmp_path))
    ward.assemble(uid)
    ward.infer()
    few = ward.node.config.destination[0].model_copy(update={"max_frames": 100})
    for row in ward.node.ledger.rows(schema.result):
        Path(row["path"]).unlink()
    for _ in range(node.MAX_LOSSES):
        ward.node.ledger.retry(uid)
        node.deliver(ward.node, ward.node.ledger.lease("deliver", "s"), few)
    assert ward.row(uid)["state"] == "failed"
    assert "FileNotFoundError" in ward.row(uid)["reason"]


@pytest.mark.fault(7, "d")
@pytest.mark.parametrize("name", ["worker-0", "sender"])
def test_a_death_while_the_database_is_away_does_not_end_the_node(ward, tmp_path, monkeypatch, caplog, name):
    ward.assemble(ward.receive(neck(tmp_path)))
    monkeypatch.setattr(ledger, "LEASE_SECONDS", 0.0)
    task = ward.node.ledger.lease("infer", f"{supervise.HOST}/{name}/7")
    child = SimpleNamespace(exitcode=-9)
    with locked(ward.node.ledger):
        supervise._bury(name, child, ward.node.config, ward.node.ledger)
    assert "the ledger is away" in caplog.text
    assert ward.node.ledger.lease("infer", "its successor") == replace(task, owner="its successor"), "and not counted"


@pytest.mark.fault(5, "e")
def test_a_full_disk_during_a_delivery_does_not_count_as_a_try(ward, tmp_path, monkeypatch):
    uid = ward.receive(neck(tmp_path))
    ward.assemble(uid)
    ward.infer()
    monkeypatch.setattr(dispatch, "store", _no_space)
    with pytest.raises(OSError, match="No space left"):
        ward.deliver()
    [delivery] = ward.node.ledger.rows(schema.task, kind="deliver")
    assert (delivery["state"], delivery["attempts"]) == ("running", 0)
