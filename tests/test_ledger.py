"""The ledger on SQLite and on PostgreSQL: nothing counted twice, nothing forgotten, nothing done by two."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomnode import ledger, schema
from dicomnode.errors import ConfigError, Refused
from dicomnode.ledger import Ledger
from dicomnode.study import Instance
from dicomnode.task import NewTask, StoredResult, Task
from tests.studies import series

DOCUMENT = {"state": "done", "reason": ""}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory) -> Iterator[str]:
    """URL of a PostgreSQL server of our own on a socket."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries:
        if os.environ.get("DICOMNODE_REQUIRE_TOOLS") == "1":
            pytest.fail("PostgreSQL is not installed, and DICOMNODE_REQUIRE_TOOLS=1 promises it")
        pytest.skip("PostgreSQL is not installed")
    folder = Path(f"/tmp/pg-{os.getpid()}")  # noqa: S108 - a socket's path must be short
    folder.mkdir(mode=0o700)
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    as_user = partial(
        subprocess.run, check=True, capture_output=True, user=user if os.geteuid() == 0 else None, cwd="/"
    )
    shutil.chown(folder, user)
    control = [str(binaries[-1].with_name("pg_ctl")), "-D", str(folder / "db"), "-w"]
    as_user([str(binaries[-1]), "-D", str(folder / "db"), "-U", "test", "--no-sync"])
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    as_user([*control, "-l", str(folder / "log"), "-o", options, "start"])
    yield f"postgresql+psycopg://test@/postgres?host={folder}"
    as_user([*control, "-m", "immediate", "stop"])
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    server = request.getfixturevalue("postgres")
    engine = sa.create_engine(server)
    schema.metadata.drop_all(engine)
    engine.dispose()
    return server


@pytest.fixture
def book(url) -> Iterator[Ledger]:
    opened = ledger.connect(url)
    yield opened
    opened.engine.dispose()


def receive(book: Ledger, *items: Instance, association: str = "a") -> None:
    for item in items:
        assert book.file_instance(item, association=association, calling_ae="CT1")


def release(book: Ledger, *tasks: NewTask, uid: str = "1.2") -> bool:
    return book.release(book.study(uid), because="complete", selection=[], tasks=tasks)


def infer(digest: str = "d1", *, name: str = "p") -> NewTask:
    return NewTask(kind="infer", name=name, digest=digest, payload={"x": 1})


def lease(book: Ledger, owner: str = "w") -> Task:
    held = book.lease("infer", owner)
    assert held is not None
    return held


def result(sop_uid: str = "2.25.1", *, kind: str = "SR") -> StoredResult:
    return StoredResult(
        sop_uid=sop_uid, series_uid="2.25.9", study_uid="1.2", sop_class_uid="1.2", kind=kind, path=Path("/r")
    )


def deliver(held: Task, name: str = "pacs") -> NewTask:
    return NewTask(kind="deliver", name=name, digest=f"{held.digest}-{name}", payload={}, parent_id=held.id)


def state(book: Ledger, uid: str = "1.2") -> str:
    return str(book.rows(schema.study, uid=uid)[0]["state"])


def test_an_instance_comes_back_as_it_went_in(book):
    [item] = series(slices=1)
    receive(book, item)
    assert list(book.instances()) == [item]
    assert book.study("1.2").instances == (item,)


def test_the_same_instance_again_is_welcome_and_not_counted(book):
    [item] = series(slices=1)
    receive(book, item)
    assert book.file_instance(replace(item, path=Path("/copy")), association="b", calling_ae="CT1") is False
    assert len(book.study("1.2").instances) == 1


def test_the_same_object_in_another_lossless_transfer_syntax_is_welcome_but_another_object_is_not(book):
    [item] = series(slices=1)
    receive(book, item)
    recoded = replace(item, sha256="other", transfer_syntax_uid="1.2.840.10008.1.2.4.90")
    assert book.file_instance(recoded, association="b", calling_ae="CT1") is False
    changes = ({"header": {"Modality": "MR"}}, {"study_uid": "1.3"}, {"series_uid": "1.2.9"}, {"sop_class_uid": "1.9"})
    for other in (replace(item, sha256="other"), *(replace(recoded, **change) for change in changes)):
        with pytest.raises(Refused, match="another data set") as caught:
            book.file_instance(other, association="b", calling_ae="CT1")
        assert caught.value.status == Refused.MISMATCH


def test_two_associations_that_begin_a_study_together_both_succeed(book):
    parts = [series(number, slices=20) for number in range(1, 5)]
    failures: list[BaseException] = []

    def bring(part: list[Instance]) -> None:
        try:
            receive(book, *part, association=part[0].series_uid)
        except BaseException as error:  # noqa: BLE001 - shown below, from the main thread
            failures.append(error)

    threads = [threading.Thread(target=bring, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(book.study("1.2").instances) == 80
    assert len(book.study("1.2").transfers) == 4


def test_a_study_is_looked_at_when_its_deadline_comes(book):
    receive(book, *series(slices=2))
    seen = book.study("1.2")
    book.wait(seen, seen.last_at + 50, "an association is still open")
    assert book.studies_to_assemble(seen.last_at + 49) == []
    assert book.studies_to_assemble(seen.last_at + 50) == ["1.2"]


def test_the_end_of_an_association_has_its_studies_looked_at_now(book):
    receive(book, *series(slices=2))
    seen = book.study("1.2")
    book.wait(seen, time.time() + 500, "open")
    book.end_association("a", "released")
    assert book.studies_to_assemble(time.time()) == ["1.2"]
    assert book.study("1.2").transfers[0].ending == "released"
    book.wait(seen, time.time() + 500, "decided before the end was known")
    assert book.studies_to_assemble(time.time()) == ["1.2"], "a decision on old evidence must not push it away"


def test_a_release_that_missed_an_instance_does_not_count(book):
    receive(book, *series(slices=2))
    seen = book.study("1.2")
    receive(book, *series(2, slices=1))
    assert book.release(seen, because="complete", selection=[], tasks=[infer()]) is False
    assert book.lease("infer", "w") is None


def test_a_late_instance_opens_the_study_again_and_the_new_answer_replaces_the_old(book):
    receive(book, *series(slices=2))
    assert release(book, infer("d1"))
    first = lease(book)
    book.finish_analysis(first, document=DOCUMENT, results=[result("2.25.1")], destinations=[])
    receive(book, *series(2, slices=1))
    assert state(book) == "receiving"
    assert release(book, infer("d2"))
    second = lease(book)
    assert [old.sop_uid for old in book.predecessors(second)] == ["2.25.1"]
    book.finish_analysis(second, document=DOCUMENT, results=[result("2.25.2")], destinations=[])
    assert state(book) == "done"


def test_a_late_instance_that_changes_no_input_leaves_the_answer_in_place(book):
    receive(book, *series(slices=2))
    release(book, infer("d1"))
    book.finish_analysis(lease(book), document=DOCUMENT, results=[result()], destinations=[])
    receive(book, *series(2, slices=1))
    assert release(book, infer("d1"))
    assert book.lease("infer", "w") is None
    assert state(book) == "done"


def test_work_that_a_later_release_made_obsolete_is_not_begun(book):
    receive(book, *series(slices=2))
    release(book, infer("d1"))
    receive(book, *series(2, slices=1))
    release(book, infer("d2"))
    assert lease(book).digest == "d2"
    assert book.lease("infer", "w") is None


def test_work_that_was_set_aside_is_taken_up_if_it_is_asked_for_again(book):
    receive(book, *series(slices=2))
    release(book, infer("d1"))
    book.set_aside(lease(book))
    assert book.lease("infer", "w") is None
    receive(book, *series(2, slices=1))
    release(book, infer("d1"))
    assert lease(book).digest == "d1"


def test_the_answer_of_an_obsolete_analysis_is_kept_and_not_sent(book):
    receive(book, *series(slices=2))
    release(book, infer("d1"))
    old = lease(book)
    receive(book, *series(2, slices=1))
    release(book, infer("d2"))
    book.finish_analysis(old, document=DOCUMENT, results=[result()], destinations=[deliver(old)])
    assert book.lease("deliver", "s") is None
    assert state(book) == "analysing"


def test_the_nodes_own_results_are_no_instances_of_the_study(book):
    receive(book, *series(slices=2))
    release(book, infer())
    book.finish_analysis(lease(book), document=DOCUMENT, results=[result("1.2.7.1")], destinations=[])
    receive(book, *series(7, slices=1))
    assert len(book.study("1.2").instances) == 2
    assert book.result_series("1.2") == {"2.25.9"}


def test_a_task_belongs_to_one_worker_however_many_ask(book):
    receive(book, *series(slices=1))
    release(book, *[infer(f"d{n}", name=f"p{n}") for n in range(12)])
    taken: list[int] = []

    def work(owner: str) -> None:
        while held := book.lease("infer", owner):
            taken.append(held.id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(set(taken))
    assert len(taken) == 12


def test_a_lease_that_ran_out_passes_to_another_and_the_first_holder_changes_nothing_more(book, monkeypatch):
    receive(book, *series(slices=1))
    release(book, infer())
    monkeypatch.setattr(ledger, "LEASE_SECONDS", -1.0)
    slow = lease(book, "slow")
    monkeypatch.setattr(ledger, "LEASE_SECONDS", 30.0)
    fast = lease(book, "fast")
    assert fast.id == slow.id
    book.finish_analysis(slow, document=DOCUMENT, results=[result("2.25.1")], destinations=[])
    assert book.results(fast.id) == []
    book.finish_analysis(fast, document=DOCUMENT, results=[result("2.25.2")], destinations=[])
    assert [r.sop_uid for r in book.results(fast.id)] == ["2.25.2"]


def test_a_heartbeat_keeps_the_lease(book, monkeypatch):
    receive(book, *series(slices=1))
    release(book, infer())
    monkeypatch.setattr(ledger, "LEASE_SECONDS", -1.0)
    held = lease(book)
    monkeypatch.setattr(ledger, "LEASE_SECONDS", 30.0)
    book.extend(held)
    assert book.lease("infer", "other") is None


@pytest.mark.parametrize(("died", "attempts"), [("exit code 9", 1), (None, 0)])
def test_what_a_dead_process_held_is_put_back_and_only_its_own_death_counts(book, died, attempts):
    receive(book, *series(slices=1))
    release(book, infer())
    lease(book, "host/worker-0/1")
    book.release_owner("host/worker-1/", died=died)
    assert book.lease("infer", "w") is None
    book.release_owner("host/worker-0/", died=died)
    again = lease(book)
    assert (again.attempts, again.reason) == (attempts, died or "")


def test_a_delivery_waits_for_its_time_and_a_study_is_done_when_all_are(book):
    receive(book, *series(slices=1))
    release(book, infer())
    held = lease(book)
    book.finish_analysis(
        held, document=DOCUMENT, results=[result()], destinations=[deliver(held, "a"), deliver(held, "b")]
    )
    assert state(book) == "delivering"
    a = book.lease("deliver", "s", name="a")
    book.finish_delivery(a)
    b = book.lease("deliver", "s", name="b")
    book.try_later(b, "does not answer", next_at=time.time() + 100)
    assert book.lease("deliver", "s", name="b") is None
    assert state(book) == "delivering"
    book.retry("1.2")
    b = book.lease("deliver", "s", name="b")
    assert (b.attempts, b.reason) == (1, "does not answer")
    book.finish_delivery(b)
    assert state(book) == "done"


def test_a_refused_delivery_fails_the_study_visibly_and_can_be_tried_again(book):
    receive(book, *series(slices=1))
    release(book, infer())
    held = lease(book)
    book.finish_analysis(held, document=DOCUMENT, results=[result()], destinations=[deliver(held)])
    book.fail(book.lease("deliver", "s"), "SEG: refused with status 0122")
    row = book.rows(schema.study, uid="1.2")[0]
    assert (row["state"], row["reason"]) == ("failed", "not delivered to pacs: SEG: refused with status 0122")
    assert book.retry("1.2") == 1
    book.finish_delivery(book.lease("deliver", "s"))
    assert state(book) == "done"


def test_after_the_receivers_death_open_associations_are_lost_and_an_unflushed_image_is_forgotten(book):
    receive(book, *series(1, slices=3), association="cut")
    receive(book, *series(2, slices=3), association="ended")
    book.end_association("ended", "released")
    torn = {"1.2.1.3"}
    assert book.lose_open_associations(lambda item: item.sop_uid not in torn) == 1
    it = book.study("1.2")
    assert {t.ending for t in it.transfers} == {"lost", "released"}
    assert torn.isdisjoint(i.sop_uid for i in it.instances)
    assert len(it.instances) == 5


def test_after_the_receivers_death_a_study_that_waited_for_an_open_association_is_looked_at_now(book):
    receive(book, *series(1, slices=3), association="cut")
    seen = book.study("1.2")
    book.wait(seen, seen.last_at + 500, "an association is still open")
    assert book.studies_to_assemble(time.time() + 1) == []
    book.lose_open_associations(lambda item: True)
    assert book.studies_to_assemble(time.time() + 1) == ["1.2"]


def test_a_study_whose_only_image_was_forgotten_disappears_and_may_come_again(book):
    [item] = series(slices=1)
    receive(book, item)
    book.forget(item)
    book.drop_empty("1.2")
    assert book.studies() == []
    receive(book, item)
    book.drop_empty("1.2")
    assert [row["instances"] for row in book.studies()] == [1]


def test_everything_is_there_after_a_restart(book, url):
    receive(book, *series(slices=3))
    book.end_association("a", "released")
    release(book, infer())
    book.engine.dispose()
    again = ledger.connect(url)
    assert len(again.study("1.2").instances) == 3
    assert again.lease("infer", "w").payload == {"x": 1}
    again.engine.dispose()


def test_a_short_id_and_the_uid_name_the_same_study(book):
    receive(book, *series(slices=1))
    assert book.study_uid("1.2") == book.study_uid("1") == "1.2"
    assert book.study_uid("2") is None


def test_a_ledger_of_another_version_is_refused(book, url):
    with book.engine.begin() as db:
        db.execute(sa.update(schema.meta).values(schema_version=schema.VERSION + 1))
    with pytest.raises(ConfigError, match="schema"):
        ledger.connect(url)


def test_a_database_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"ledger\.url"):
        ledger.connect(f"sqlite:///{tmp_path}/no/such/folder/x.sqlite")
