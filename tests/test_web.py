"""The status page: what it shows, and that neither it nor its URLs can be turned against the node."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicomnode import disk, ledger
from dicomnode.config import Config, Receive
from dicomnode.disk import Room
from dicomnode.network import ports
from dicomnode.spool import Spool
from dicomnode.study import Instance
from dicomnode.task import NewTask, StoredResult
from dicomnode.web.pages import create_app
from sr.results import save, write_results
from tests.sources import analysis_of, ct_headers, run_for, volume_of

HOSTILE = "<script>alert(1)</script>"


def client(data_dir: Path, receive: Receive = Receive(port=1)) -> TestClient:  # noqa: B008 - frozen
    """A browser on the node's machine; nothing listens on port 1."""
    config = Config(data_dir=data_dir, receive=receive)
    data_dir.mkdir(exist_ok=True)
    return TestClient(create_app(config), base_url="http://127.0.0.1:8080")


def analysed_study(data_dir: Path, *, reason: str = "fits") -> None:
    """Put study number 1, with key images and an answer, into the ledger."""
    data_dir.mkdir(exist_ok=True)
    book = ledger.connect(Config(data_dir=data_dir).ledger_url)
    headers = ct_headers()
    volume = volume_of(headers)
    images = [r for r in write_results(volume, analysis_of(volume), run_for(headers), ("SC",)) if r.kind == "SC"]
    item = Instance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_uid="1.2.3", study_uid="1.2", series_uid="1.2.9",
        transfer_syntax_uid="1.2.840.10008.1.2.1", path=data_dir / "x", sha256="0", header={"Modality": "CT"},
    )  # fmt: skip
    book.file_instance(item, association="a", calling_ae="PACS")
    choices = [{"series_uid": "1.2.9", "pipeline": "cervical-ct-fracture", "reason": reason}]
    task = NewTask(kind="infer", name="cervical-ct-fracture", digest="d", payload={})
    assert book.release(book.study("1.2"), because="complete", selection=choices, tasks=[task])
    held = book.lease("infer", "test")
    assert held is not None
    path = Spool(data_dir / "spool").results_folder("1.2") / "sc.dcm"
    save(images[0], path)
    stored = StoredResult(
        sop_uid="2.25.1", series_uid="2.25.2", study_uid="1.2", sop_class_uid="1.2", kind="SC", path=path
    )
    document = {
        "pipeline": "cervical-ct-fracture", "state": "done", "reason": "", "quality": [reason], "series_uid": "1.2.9",
        "scores": {"case": 0.9, "threshold": 0.5, "slices": [], "levels": {}},
        "findings": [{
            "code": {"meaning": "Fracture"}, "level": None, "probability": 0.8, "slices": ["1.2.3"],
            "box_mm": [[0, 1, 2], [3, 4, 5]],
        }],
    }  # fmt: skip
    book.finish_analysis(held, document=document, results=[stored], destinations=[])


def test_an_empty_node_says_how_to_send_it_a_study(tmp_path):
    page = client(tmp_path).get("/")
    assert page.status_code == 200
    assert "Send one to DICOMNODE on port 1" in page.text


def test_a_study_shows_its_answer_its_reasons_and_its_key_image(tmp_path):
    analysed_study(tmp_path)
    pages = client(tmp_path)
    assert "/studies/1" in pages.get("/").text
    page = pages.get("/studies/1").text
    for expected in (
        "present, probability",
        "90 %",
        "Fracture",
        "0 to 3, 1 to 4, 2 to 5",
        "complete",
        "/studies/1/0.png",
    ):
        assert expected in page
    picture = pages.get("/studies/1/0.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["/studies/2", "/studies/1/7.png", "/studies/1.2", "/static/../pages.py", "/nothing"])
def test_what_does_not_exist_is_not_found(tmp_path, path):
    analysed_study(tmp_path)
    assert client(tmp_path).get(path).status_code == 404


@pytest.mark.fault(27, "s")
def test_received_text_is_shown_as_text(tmp_path):
    analysed_study(tmp_path, reason=HOSTILE)
    page = client(tmp_path).get("/studies/1").text
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_no_page_may_run_scripts_be_framed_or_be_cached(tmp_path):
    headers = client(tmp_path).get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


def test_another_name_for_this_machine_is_refused(tmp_path):
    assert client(tmp_path).get("/", headers={"host": "evil.example"}).status_code == 400


def test_nothing_can_be_changed(tmp_path):
    assert client(tmp_path).post("/").status_code == 405


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::"])  # noqa: S104 - for a moment
def test_health_says_that_the_receiver_listens(tmp_path, host):
    with ports.take("receive", host, 0) as receiver:
        answer = client(tmp_path, Receive(host=host, port=receiver.getsockname()[1])).get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"ok": True, "problems": [], "studies": {}, "late": {}}


def test_health_says_that_the_receiver_is_gone(tmp_path):
    answer = client(tmp_path).get("/health")
    assert answer.status_code == 503
    assert "the receiver does not listen" in answer.json()["problems"][0]


def test_health_says_that_the_disk_is_nearly_full(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "room", lambda *_: Room.LOW)
    assert Room.LOW in client(tmp_path).get("/health").json()["problems"]
    assert Room.LOW in client(tmp_path).get("/").text
