"""Received text becomes no path, no line of a log, no escape on a terminal and no markup; received bytes no program."""

from __future__ import annotations

import ast
import json
import logging
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import CTImageStorage

from dicomnode import answer, schema, selection
from dicomnode.config import CONFIG_DIR, Config
from dicomnode.process import process, read_studies
from tests.fuzzing import nested
from tests.receivers import associate_request, closed_by_peer, ct_bytes
from tests.test_boundaries import ROOT, SOURCES
from tests.test_web import analysed_study, client

CANARIES = {
    "parent": "../../../canary",
    "absolute": "/tmp/canary",  # noqa: S108 - a name, not a file
    "null": "1.2.3\0/../canary",
    "very long": "1." * 40_000 + "1",
    "empty parts": "1..2/../canary",
}


def everything(folder: Path) -> set[Path]:
    """Every file and folder; the audit trail, which grows by itself, counts as one."""
    return {path for path in folder.rglob("*") if path.parent.name != "audit"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CANARIES.values(), ids=CANARIES.keys())
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_uid_that_is_a_path_is_refused_and_leaves_no_file(receiver, tmp_path, keyword, name):
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    dataset[keyword].value = name
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, dataset)
    before = everything(tmp_path)
    assert receiver.raw_store(buffer.getvalue(), sop_uid=str(dataset.SOPInstanceUID)[:64]) != 0x0000
    assert everything(tmp_path) == before
    assert receiver.stored() == {}


@pytest.mark.filterwarnings("ignore")
def test_names_of_patients_series_and_institutions_are_in_no_path(receiver, tmp_path):
    hostile = {
        word: "../../canary" for word in ("PatientID", "SeriesDescription", "InstitutionName", "AccessionNumber")
    }
    assert receiver.raw_store(ct_bytes(tmp_path / "sent", PatientName="../../canary", **hostile)) == 0x0000
    assert not [path for path in everything(tmp_path) if "canary" in str(path)]


def test_what_is_stored_has_a_zero_preamble_whatever_was_sent(receiver, tmp_path):
    assert receiver.raw_store(ct_bytes(tmp_path / "sent")) == 0x0000
    [path] = receiver.files()
    assert path.read_bytes()[:132] == bytes(128) + b"DICM"


def test_results_of_files_with_a_program_for_a_preamble_have_a_zero_one(tmp_path):
    source = tmp_path / "in.dcm"
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    dataset.preamble = b"MZ" + b"\x90" * 126
    dataset.save_as(source)
    assert source.read_bytes()[:2] == b"MZ"
    rules = selection.load(CONFIG_DIR / "selection.toml")
    [study] = read_studies([source], refused=lambda path, why: pytest.fail(why))
    document = process(study, tmp_path / "out", rules=rules, origin=answer.origin(Config()), load=pytest.fail)
    written = [Path(result["path"]).read_bytes() for result in document["results"]]
    assert [content[:132] for content in written] == [bytes(128) + b"DICM"]


@pytest.mark.parametrize("depth", [65, 6000])
def test_nested_sequences_are_refused_and_the_association_lives_on(receiver, tmp_path, depth):
    data = ct_bytes(tmp_path / "sent")
    at = data.index(b"\x08\x00\x16\x00UI")  # before SOP Class UID
    assert receiver.raw_store(data[:at] + nested(0x00080006, depth) + data[at:]) == 0xC000
    assert receiver.stored() == {}


@pytest.mark.parametrize("title", ["A\nB", "A\x1b[2J", "A\u202eB", "A\0B", "A\x85B"])
def test_an_ae_title_with_control_or_direction_signs_is_refused_and_forges_nothing(receiver, title, caplog):
    caplog.set_level(logging.INFO, logger="dicomnode")
    with closing(receiver.connection()) as sock:
        sock.sendall(associate_request(CTImageStorage, calling=title))
        assert closed_by_peer(sock)
    ours = [record for record in caplog.records if record.name.startswith("dicomnode")]
    quoted = [json.dumps({key: str(value) for key, value in vars(record).items()}) for record in ours]
    assert quoted
    assert not [line for line in quoted if "\\u001b" in line or "\\u202e" in line or "\\nB" in line]


def test_hostile_names_are_text_on_the_pages_and_no_page_allows_a_script(tmp_path):
    analysed_study(tmp_path, reason='"><img src=x onerror=alert(1)><svg/onload=alert(2)>{{7*7}}')
    for path in ("/", "/studies/1"):
        page = client(tmp_path).get(path)
        assert "<img src=x" not in page.text
        assert "<svg" not in page.text
        assert "script-src" not in page.headers["content-security-policy"]  # default-src 'none' holds
    assert "{{7*7}}" in page.text


def test_nothing_received_is_unpickled_evaluated_or_given_to_a_shell():
    """What the S rules of ruff leave out: imports of pickle, torch.load, and flags that turn protection off."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                found |= {(path, n) for n in names if n in ("pickle", "marshal", "shelve", "dill", "joblib", "yaml")}
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                flags = {ast.unparse(keyword) for keyword in node.keywords}
                found |= {(path, called)} & {(path, banned) for banned in ("torch.load", "eval", "exec", "os.system")}
                found |= {(path, f) for f in flags & {"shell=True", "allow_pickle=True", "weights_only=False"}}
    # A training run goes on from the state that it wrote itself, with weights_only=True; no node does that.
    loop = ROOT / "inference" / "training" / "loop.py"
    assert found == {(loop, "pickle"), (loop, "torch.load")}
    assert "weights_only=True" in loop.read_text()


@pytest.mark.filterwarnings("ignore")
def test_a_description_that_would_move_a_cursor_is_harmless_in_the_ledger(receiver, tmp_path):
    assert receiver.raw_store(ct_bytes(tmp_path / "sent", BodyPartExamined="A\x9bB\x1b[2J")) == 0x0000
    [row] = receiver.ledger.rows(schema.instance)
    assert row["header"]["BodyPartExamined"].isprintable()
