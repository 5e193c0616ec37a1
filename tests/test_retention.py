"""What is deleted and what never is, that no file stays for ever, and that a study is known when it comes back."""
# ruff: noqa: F401, F811 - fixtures are imported by their names

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dicomnode import ledger_retention, node, retention, roles, schema
from dicomnode.config import Retention
from dicomnode.ledger import Ledger
from dicomnode.report import stored_document
from dicomnode.spool import Spool
from dicomnode.study import Instance
from dicomnode.supervise import Life
from tests.integration.programs import DICOMNODE
from tests.integration.test_recovery import write_series
from tests.receivers import soon
from tests.studies import series
from tests.test_ledger import book, deliver, infer, lease, postgres, receive, release, result, state, url
from tests.test_node import Hospital, hospital

DOCUMENT = {"state": "done", "reason": "", "pipeline": "p", "findings": [{"level": "C2"}], "scores": {"case": 0.9}}
RULES = Retention(inputs_days=1e-9, results_days=1e-9)


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool")


def images(spool: Spool, number: int = 1, *, slices: int = 3) -> list[Instance]:
    """Instances of study 1.2 with a file each."""
    items = []
    for item in series(number, slices=slices):
        path = spool.study_folder("1.2") / f"{number}-{item.sop_uid}.dcm"
        path.write_bytes(b"image")
        items.append(replace(item, path=path))
    return items


def analyse(book: Ledger, spool: Spool, *names: str, digest: str = "d1", uid: str = "2.25.1") -> None:
    """Answer the study, with one result object for the destinations of these names."""
    release(book, infer(digest))
    held = lease(book)
    path = spool.results_folder("1.2") / f"{uid}.dcm"
    path.write_bytes(b"result")
    tasks = [deliver(held, name) for name in names]
    book.finish_analysis(held, document=DOCUMENT, results=[replace(result(uid), path=path)], destinations=tasks)


def delivered(book: Ledger, spool: Spool) -> None:
    receive(book, *images(spool))
    analyse(book, spool, "pacs")
    book.finish_delivery(book.lease("deliver", "s"))
    assert state(book) == "done"


def files(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.root.rglob("*") if path.is_file())


SITUATIONS = (
    "receiving",
    "analysing",
    "no destination",
    "waiting",
    "on its way",
    "one of two",
    "refused",
    "unproven",
    "one unproven",
)


def bring_to(book: Ledger, spool: Spool, situation: str) -> None:
    receive(book, *images(spool))
    if situation == "receiving":
        return
    if situation == "analysing":
        release(book, infer())
        return
    names = {"no destination": (), "one of two": ("pacs", "other"), "one unproven": ("pacs", "other")}
    analyse(book, spool, *names.get(situation, ("pacs",)))
    if situation in ("no destination", "waiting"):
        return
    held = book.lease("deliver", "s")
    if situation == "one of two":
        book.finish_delivery(held)
    elif situation == "refused":
        book.fail(held, "refused")
    elif "unproven" in situation:
        book.finish_delivery(held, "stored, not proven: it takes no queries", proven=False)
        if situation == "one unproven":
            book.finish_delivery(book.lease("deliver", "s"))
        assert state(book) == "done"


@pytest.mark.parametrize("situation", SITUATIONS)
def test_nothing_is_deleted_that_not_every_destination_has(book, spool, situation):
    bring_to(book, spool, situation)
    before = files(spool)
    assert before
    retention.apply(book, spool, RULES)
    assert files(spool) == before
    assert len(book.study("1.2").instances) == 3


def test_the_word_of_a_destination_is_enough_where_proof_is_none(book, spool):
    bring_to(book, spool, "one unproven")
    retention.apply(book, spool, RULES, believed=["other"])
    assert len(files(spool)) == 4
    retention.apply(book, spool, RULES, believed=["pacs"])
    assert files(spool) == []


def test_images_and_results_go_when_their_days_are_over_and_not_before(book, spool):
    start = time.time()
    delivered(book, spool)
    assert ledger_retention.delete_inputs(book, start) is None
    retention.apply(book, spool, Retention())
    assert len(files(spool)) == 4, "without a rule nothing is deleted"
    told: list[retention.Gone] = []
    retention.apply(book, spool, Retention(inputs_days=1e-9, results_days=1.0), told.extend)
    assert files(spool) == ["2.25.1.dcm"]
    assert [one.path.exists() for one in told] == [False] * 3
    document = stored_document(book, "1.2")
    assert (document["instances"], len(document["results"]), state(book)) == (0, 1, "done")
    assert document["deleted"]["inputs"] and not document["deleted"]["results"]
    assert [row["instances"] for row in book.studies()] == [0], "its answer can still be looked at"
    retention.apply(book, spool, RULES)
    assert files(spool) == []
    assert not list((spool.root / "results").iterdir()) and not list((spool.root / "studies").iterdir())
    assert book.studies() == []
    document = stored_document(book, "1.2")
    assert (document["results"], document["analyses"][0]["findings"]) == ([], [])
    assert document["analyses"][0]["scores"]["case"] is None
    assert [row["sop_uid"] for row in book.rows(schema.result)] == ["2.25.1"], "our own results are still known"
    assert book.rows(schema.doomed) == []


def test_images_that_no_answer_is_about_restart_the_days(book, spool):
    delivered(book, spool)
    done = time.time()
    receive(book, *images(spool, 2))
    release(book, infer("d1"))
    assert state(book) == "done"
    assert ledger_retention.delete_inputs(book, done) is None
    assert ledger_retention.delete_inputs(book, time.time()) == 1


def test_a_crash_between_the_transaction_and_the_removal_leaves_no_file_for_ever(book, spool):
    delivered(book, spool)
    orphan = spool.results_folder("1.2") / ".cut-off.dcm.part"
    orphan.write_bytes(b"half a result")
    ledger_retention.delete_inputs(book, time.time())
    ledger_retention.delete_results(book, time.time())
    assert len(files(spool)) == 5, "cut off here: every file is still there"
    retention.apply(book, spool, Retention())
    assert files(spool) == []
    assert book.rows(schema.doomed) == []


def test_a_result_that_was_made_again_is_not_removed_for_the_old_one(book, spool):
    delivered(book, spool)
    ledger_retention.delete_inputs(book, time.time())
    ledger_retention.delete_results(book, time.time())
    again = spool.results_folder("1.2") / "2.25.1.dcm"
    again.with_suffix(".part").write_bytes(b"new")
    again.with_suffix(".part").replace(again)
    retention.remove_doomed(book)
    assert files(spool) == ["2.25.1.dcm"]


def test_a_failure_is_kept_until_it_is_acknowledged_and_is_then_beyond_retrying(book, spool):
    bring_to(book, spool, "refused")
    assert ledger_retention.acknowledge(book, "1.2")
    assert (state(book), ledger_retention.acknowledge(book, "1.2")) == ("acknowledged", False)
    retention.apply(book, spool, RULES)
    assert files(spool) == []
    assert book.retry("1.2") == 0
    assert book.lease("deliver", "s") is None


def test_an_acknowledged_failure_can_be_retried_while_its_files_are_there(book, spool):
    bring_to(book, spool, "refused")
    ledger_retention.acknowledge(book, "1.2")
    assert book.retry("1.2") == 1
    retention.apply(book, spool, RULES)
    assert len(files(spool)) == 4
    book.finish_delivery(book.lease("deliver", "s"))
    assert state(book) == "done"


def test_an_analysis_that_failed_for_good_is_done_anew_if_its_deleted_study_comes_again(book, spool):
    receive(book, *images(spool))
    release(book, infer())
    book.fail(lease(book), "no report could be written")
    ledger_retention.acknowledge(book, "1.2")
    retention.apply(book, spool, RULES)
    assert book.retry("1.2") == 0
    receive(book, *images(spool))
    assert ledger_retention.missing(book, book.study("1.2")) == 0
    release(book, infer())
    assert lease(book).digest == "d1"


def test_a_deleted_study_that_comes_in_part_keeps_its_answer(book, spool):
    delivered(book, spool)
    retention.apply(book, spool, RULES)
    receive(book, *images(spool, slices=2))
    seen = book.study("1.2")
    assert ledger_retention.missing(book, seen) == 1
    receive(book, *images(spool, 2, slices=1))
    ledger_retention.keep_answer(book, seen, because="decided before the last image came")
    assert state(book) == "receiving"
    ledger_retention.keep_answer(book, book.study("1.2"), because="images are missing")
    assert state(book) == "done"
    assert book.studies_to_assemble(time.time()) == []
    retention.apply(book, spool, RULES)
    assert files(spool) == []


@pytest.mark.parametrize("situation", [*SITUATIONS, "delivered"])
def test_erasing_leaves_no_row_and_no_file_unless_a_process_is_at_work(book, spool, situation):
    delivered(book, spool) if situation == "delivered" else bring_to(book, spool, situation)
    busy = situation in ("receiving", "analysing", "on its way")
    assert ledger_retention.erase(book, "1.2") is not busy
    retention.remove_doomed(book)
    assert bool(files(spool)) is busy
    left = [table.name for table in schema.metadata.sorted_tables if book.rows(table)]
    assert (left == ["meta"]) is not busy


def through(hospital: Hospital, paths: list[Path]) -> str:
    """Bring files from their arrival to the archive, if there is anything to do."""
    uid = hospital.receive(paths)
    hospital.assemble(uid)
    while hospital.infer() or hospital.deliver():
        pass
    return uid


def clean(hospital: Hospital) -> None:
    """The archive of these tests takes no queries."""
    retention.apply(hospital.node.ledger, hospital.node.spool, RULES, believed=["archive"])


def test_a_deleted_study_that_comes_again_gives_no_second_set_of_results(hospital, tmp_path):
    uid = through(hospital, write_series(tmp_path / "in"))
    sent = dict(hospital.archive.stored)
    for _ in range(2):
        clean(hospital)
        assert hospital.node.ledger.studies() == []
        through(hospital, write_series(tmp_path / "in"))
        assert hospital.archive.stored == sent
        assert hospital.row(uid)["state"] == "not_applicable"


def test_a_deleted_study_that_comes_with_more_images_gets_an_answer_that_names_the_old_one(hospital, tmp_path):
    uid = through(hospital, write_series(tmp_path / "in"))
    [old] = hospital.archive.stored
    clean(hospital)
    through(hospital, write_series(tmp_path / "in", slices=26)[24:])
    assert list(hospital.archive.stored) == [old], "two late images alone are no study"
    assert (
        "24 of its images were deleted"
        in [h["reason"] for h in stored_document(hospital.node.ledger, uid)["history"]][-2]
    )
    through(hospital, write_series(tmp_path / "in", slices=26))
    [new] = set(hospital.archive.stored) - {old}
    report = pydicom.dcmread(hospital.archive.stored[new][1])
    [predecessor] = report.PredecessorDocumentsSequence
    named = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == old


def test_our_own_result_that_comes_back_after_the_images_are_deleted_closes_the_study_again(hospital, tmp_path):
    uid = through(hospital, write_series(tmp_path / "in"))
    clean(hospital)
    [(_, path)] = hospital.archive.stored.values()
    through(hospital, [path])
    assert hospital.row(uid)["state"] == "not_applicable"
    assert len(hospital.archive.stored) == 1


@pytest.fixture
def two_patients(hospital, tmp_path) -> Iterator[Hospital]:
    """Patient R1 with studies 1 and 2, patient R3 with study 3; write_series names patients after studies."""
    for study, patient in (("1", "R1"), ("2", "R1"), ("3", "R3")):
        paths = write_series(tmp_path / study, study=study, slices=2)
        for path in paths:
            dataset = pydicom.dcmread(path)
            dataset.PatientID = patient
            dataset.save_as(path)
        through(hospital, paths)
    yield hospital


def test_purge_erases_one_patient_and_no_other(two_patients, tmp_path):
    book, spool = two_patients.node.ledger, two_patients.node.spool
    rejected = pydicom.dcmread(next((tmp_path / "1").iterdir()))
    spool.keep_rejected(rejected)
    retention.apply(
        book, spool, Retention(inputs_days=1e-9), believed=["archive"]
    )  # only the results say whose they are
    assert retention.purge(book, spool, "R1") == (2, [])
    assert [row["uid"] for row in book.studies()] == ["1.2.3.3"]
    assert not list((spool.root / "rejected").iterdir())
    left = [path for path in spool.root.rglob("*.dcm")]
    assert {str(pydicom.dcmread(path).PatientID) for path in left} == {"R3"}
    assert retention.purge(book, spool, "R1") == (0, [])
    assert retention.purge(book, spool, "R") == (0, []), "an ID is matched whole"


def test_purge_names_the_study_that_is_being_worked_on(two_patients, tmp_path):
    book, spool = two_patients.node.ledger, two_patients.node.spool
    two_patients.receive(write_series(tmp_path / "more", study="1", slices=3)[2:])
    assert retention.purge(book, spool, "R1") == (2, [1])
    node.assemble(two_patients.node, "1.2.3.1")
    assert {row["uid"] for row in book.studies()} == {"1.2.3.1", "1.2.3.3"}


def test_rejected_objects_go_with_the_results_of_their_study(hospital, tmp_path):
    paths = write_series(tmp_path / "in", slices=2)
    uid = hospital.receive(paths)
    hospital.node.spool.keep_rejected(pydicom.dcmread(paths[0]))
    folder = hospital.node.spool.root / "rejected"
    clean(hospital)
    assert len(list(folder.iterdir())) == 1
    hospital.assemble(uid)
    assert hospital.infer() and hospital.deliver()
    clean(hospital)
    assert not list(folder.iterdir())


def test_the_coordinator_applies_the_rules(hospital, tmp_path, monkeypatch):
    monkeypatch.setattr(roles, "RETENTION_SECONDS", 0.05)
    through(hospital, write_series(tmp_path / "in", slices=2))
    [usual] = hospital.node.config.destination
    for proof in (None, "none"):
        destination = usual.model_copy(update={"proof": proof})
        config = hospital.node.config.model_copy(update={"retention": RULES, "destination": (destination,)})
        life, looked = Life("test"), threading.Event()
        monkeypatch.setattr(retention, "_rejected", lambda _spool, looked=looked: looked.set() or [])
        thread = threading.Thread(target=roles.coordinate, args=(config, life))
        thread.start()
        soon("the look", looked.is_set)
        life.stop.set()
        thread.join(20)
        assert bool(files(hospital.node.spool)) is (proof is None)


def test_the_commands_take_the_patient_id_from_standard_input_and_never_show_it(two_patients):
    environment = {"DICOMNODE_DATA_DIR": str(two_patients.node.config.data_dir)}
    book = two_patients.node.ledger

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DICOMNODE, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | environment,
        )

    nobody, done = run("purge", stdin="\n"), run("purge", stdin="R1\n")
    assert (nobody.returncode, nobody.stderr) == (1, "dicomnode: no Patient ID on standard input\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 of 2 study(ies) deleted\n", "")
    assert [row["uid"] for row in book.studies()] == ["1.2.3.3"]
    well = run("acknowledge", "1.2.3.3")
    assert (well.returncode, well.stderr) == (1, "dicomnode: study 1.2.3.3 has not failed\n")
