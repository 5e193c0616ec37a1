"""Orthanc proves that it holds what it was sent, and says so on an association of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.programs import Orthanc, free_port, local, orthanc, wait_for
from tests.test_delivery import Ward


@contextmanager
def ward(folder: Path, proof: str | None, *, known: bool = True) -> Iterator[tuple[Ward, Orthanc]]:
    """A node that sends to Orthanc; with `known`, Orthanc has it among its peers."""
    port = free_port()
    with orthanc(folder / "pacs", routes_to=local("DICOMNODE", port) if known else None) as pacs:
        it = Ward(folder, pacs.address, proof)
        it.listen(port)
        yield it, pacs
        it.go_offline()


@pytest.mark.parametrize("proof", ["find", None])
def test_what_orthanc_lists_is_delivered(tmp_path, proof):
    with ward(tmp_path, proof) as (it, pacs):
        assert it.deliver()
        assert len(pacs.instances()) == 3
    assert (it.delivery["state"], it.delivery["reason"]) == ("done", "held, by query")


def test_what_orthanc_commits_to_is_delivered(tmp_path):
    with ward(tmp_path, "commitment") as (it, pacs):
        assert it.deliver()
        wait_for("the report", it.deliver)
        assert len(pacs.instances()) == 3
    assert (it.delivery["state"], it.delivery["reason"]) == ("done", "held, by storage commitment")


def test_what_orthanc_lost_is_sent_again(tmp_path):
    with ward(tmp_path, "commitment") as (it, pacs):
        port = it.listener.port
        it.go_offline()  # the first report finds nobody
        assert it.deliver()
        pacs.delete(f"/instances/{pacs.instances('SEG')[0]}")
        it.listen(port)
        it.hurry()
        assert it.deliver()
        wait_for("the report", it.deliver)
        assert (it.delivery["state"], it.delivery["reason"]) == ("ready", "SEG not committed: 0112 no such object")
        it.hurry()
        assert it.deliver()
        wait_for("the second report", it.deliver)
        assert len(pacs.instances("SEG")) == 1
    assert it.delivery["state"] == "done"


def test_an_orthanc_that_does_not_know_the_node_gives_no_proof_and_the_delivery_says_why(tmp_path):
    with ward(tmp_path, "commitment", known=False) as (it, _):
        assert it.deliver()
    assert it.delivery["state"] == "ready"
    assert "did not answer the storage commitment request" in it.delivery["reason"]
