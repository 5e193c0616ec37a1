"""What people are told of results that did not arrive: not proven, asked for again, given up, or late."""
# ruff: noqa: F401, F811 - fixtures are imported by their names

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dicomnode import cli, owed, proof, report
from dicomnode.web.pages import create_app
from tests.pacs import pacs
from tests.test_delivery import ward


def test_an_archive_that_takes_no_queries_is_told_from_one_that_has_to(ward):
    with pacs(queries=False, commits=False) as archive:
        it = ward(archive, None)
        assert it.deliver()
    assert (it.delivery["state"], it.row(it.uid)["state"]) == ("unproven", "done")
    assert it.row(it.uid)["reason"] == "results stored, not proven by archive"
    assert it.delivery["reason"].startswith("stored, not proven: PEER@127.0.0.1")
    assert "accepts none of the SOP classes" in it.delivery["reason"]


@pytest.mark.parametrize("status", [0x0122, 0x0124])
def test_an_archive_that_answers_that_it_takes_no_such_queries_offers_none(ward, status):
    with pacs() as archive:
        archive.query_status = status
        it = ward(archive, None)
        assert it.deliver()
    assert it.delivery["state"] == "unproven"
    assert f"C-FIND request with status {status:04X}" in it.delivery["reason"]


@pytest.mark.parametrize("asked", ["find", None])
@pytest.mark.parametrize("status", [0xA700, 0xC000, None])
def test_an_archive_that_cannot_answer_the_first_query_is_asked_again_and_sent_nothing_twice(ward, asked, status):
    with pacs() as archive:
        archive.query_status = status
        it = ward(archive, asked)
        assert it.deliver()
        assert (it.row(it.uid)["state"], it.delivery["state"], it.delivery["attempts"]) == ("delivering", "ready", 1)
        archive.query_status = 0x0000
        it.hurry()
        assert it.deliver()
        assert len(archive.stored) == 3
    assert (it.delivery["state"], it.delivery["reason"]) == ("done", "held, by query")


def test_an_archive_that_never_answers_a_query_fails_the_delivery_in_the_end(ward, monkeypatch):
    with pacs() as archive:
        archive.query_status = 0xC000
        it = ward(archive, None)
        assert it.deliver()
        it.hurry()
        monkeypatch.setattr(proof, "GIVE_UP_SECONDS", 0.0)
        assert it.deliver()
    assert it.delivery["state"] == "failed"
    assert it.delivery["reason"].endswith("C-FIND request with status C000; see proof of this destination")


def test_what_was_given_up_is_listed_and_put_back_for_one_destination_or_all(ward):
    with pacs(queries=False, commits=False) as archive:
        it = ward(archive, "find")
        assert report.undelivered(it.node.ledger) is None
        assert it.deliver()
    [(number, name, state, tries, reason)] = report.undelivered_rows(it.node.ledger)
    assert (number, name, state, tries) == (1, "archive", "given up", 1)
    assert "stored, not proven" in reason
    page = TestClient(create_app(it.node.config), base_url="http://127.0.0.1:8080").get("/").text
    assert "Deliveries that were given up" in page and "stored, not proven" in page
    assert it.node.ledger.retry(destination="other") == 0
    assert it.node.ledger.retry(destination="archive") == 1
    assert it.row(it.uid)["state"] == "delivering"
    assert report.undelivered_rows(it.node.ledger) == []
    it.node.ledger.fail(it.lease(), "given up again")
    assert it.node.ledger.retry() == 1
    assert it.delivery["state"] == "ready"


def test_a_delivery_that_waits_for_more_than_an_hour_is_shown_with_its_reason_and_receiving_goes_on(ward, monkeypatch):
    with pacs() as archive:
        archive.action_status = 0xA700
        it = ward(archive, "commitment")
        it.send_to(replace(archive.address, ae_title="WRONG"), None)
        assert it.deliver()
    assert report.undelivered_rows(it.node.ledger) == [], "not before its time"
    pages = TestClient(create_app(it.node.config), base_url="http://127.0.0.1:8080")
    before = pages.get("/health")
    assert before.json()["late"] == {}
    monkeypatch.setattr(owed, "LATE_SECONDS", 0.0)
    [(number, name, state, tries, reason)] = report.undelivered_rows(it.node.ledger)
    assert (number, name, state[:12], tries) == (1, "archive", "waits since ", 1)
    assert "Called AE title not recognised" in reason
    assert "Called AE title not recognised" in pages.get("/").text
    after = pages.get("/health")
    assert after.json()["late"] == {"archive": {"deliveries": 1, "reason": reason}}
    assert (after.status_code, after.json()["problems"]) == (before.status_code, before.json()["problems"])
    shown = CliRunner().invoke(cli.app, ["status"], env={"DICOMNODE_DATA_DIR": str(it.node.config.data_dir)})
    assert "waits since" in " ".join(shown.output.split())
