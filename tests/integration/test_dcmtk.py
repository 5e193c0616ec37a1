"""DCMTK's programs as foreign clients of the node."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.doctor import encode_sample
from tests.certificates import authority, identity
from tests.integration.programs import Node, dcmtk, running
from tests.integration.test_recovery import sha256, write_series


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running(Node(tmp_path_factory.mktemp("dcmtk"), allow=["DCMTK*", "TEST"])) as it:
        yield it


def run(program: str, node: Node, *options: object, calling: str = "DCMTK", called: str = "DICOMNODE"):
    command = [dcmtk(program), "-aet", calling, "-aec", called, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def where(node: Node) -> list[object]:
    return ["127.0.0.1", node.address.port]


def test_echoscu_gets_its_answer(node):
    assert run("echoscu", node, *where(node)).returncode == 0


@pytest.mark.parametrize(("calling", "called"), [("OTHER", "DICOMNODE"), ("DCMTK", "OTHER")])
@pytest.mark.fault(20, "a")
def test_unknown_titles_are_rejected_with_the_reason(node, calling, called):
    done = run("echoscu", node, *where(node), calling=calling, called=called)
    assert done.returncode != 0
    assert f"{'Calling' if called == 'DICOMNODE' else 'Called'} AE Title Not Recognized" in done.stderr + done.stdout


@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_a_folder_is_stored_and_answered(node, tmp_path, program):
    number = {"storescu": 11, "dcmsend": 12}[program]
    files = write_series(tmp_path / "in", study=str(number), slices=6)
    option = "+sd" if program == "storescu" else "+sd"
    place = (
        [*where(node), option, tmp_path / "in"] if program == "storescu" else [*where(node), option, tmp_path / "in"]
    )
    done = run(program, node, *place)
    assert done.returncode == 0, done.stderr
    digests = node.digests()
    assert {digests[str(pydicom.dcmread(p).SOPInstanceUID)] for p in files} == {sha256(p) for p in files}
    assert node.answer(f"1.2.3.{number}")["state"] == "not_applicable"


@pytest.mark.parametrize(
    ("option", "syntax"),
    [
        ("-xi", ImplicitVRLittleEndian),
        ("-xs", JPEGLosslessSV1),
        ("-xx", JPEGExtended12Bit),
        ("-xt", JPEGLSLossless),
        ("-xv", JPEG2000Lossless),
        ("-xr", RLELossless),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_what_storescu_proposes_is_what_is_stored(node, tmp_path, option, syntax):
    path, _ = encode_sample(syntax, tmp_path)
    dataset = pydicom.dcmread(path)
    number = int(str(syntax).rsplit(".", 1)[1])
    uid = f"1.2.9.{number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.StudyInstanceUID = f"1.2.8.{number}"
    source = tmp_path / "source.dcm"
    dataset.save_as(source, enforce_file_format=True)
    done = run("storescu", node, option, *where(node), source)
    assert done.returncode == 0, done.stderr
    [kept] = [i for i in node.ledger.instances() if i.sop_uid == uid]
    assert kept.transfer_syntax_uid == syntax
    assert pydicom.dcmread(kept.path).SOPInstanceUID == uid


def test_a_class_that_is_no_storage_is_refused_and_the_node_goes_on(node):
    done = run("findscu", node, "-S", "-k", "StudyInstanceUID", *where(node))
    assert "No Acceptable Presentation Contexts" in done.stderr + done.stdout
    assert run("echoscu", node, *where(node)).returncode == 0


@pytest.mark.fault(19, "a")
def test_a_client_that_is_killed_half_way_leaves_what_it_was_told_and_nothing_else(node, tmp_path: Path):
    files = write_series(tmp_path / "in", study="13", slices=300)
    sender = subprocess.Popen(
        [dcmtk("storescu"), "-v", "-aet", "DCMTK", "-aec", "DICOMNODE", *map(str, [*where(node), *files])],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    acknowledged = 0
    while acknowledged < 20:
        acknowledged += "Received Store Response (Success)" in sender.stdout.readline()
    sender.kill()
    sender.communicate(timeout=60)
    document = node.answer("1.2.3.13")
    assert 20 <= document["instances"] < 300
    assert "association lost" in document["released_because"]


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    ours = identity(authority(folder), "node")
    with running(Node(folder, tls=ours)) as it:
        yield it, ours


def over_tls(ours, key=None):
    """Return DCMTK's options; `key` is the identity that it shows."""
    key = key or ours
    return "+tls", key.key, key.certificate, "+cf", ours.authorities, "-ic" if key is not ours else "-rc"


def test_storescu_sends_over_tls(secured, tmp_path):
    node, ours = secured
    files = write_series(tmp_path / "in", study="71", slices=3)
    done = run("storescu", node, *over_tls(ours), *where(node), *files)
    assert done.returncode == 0, done.stderr
    assert set(node.digests().values()) == {sha256(path) for path in files}


@pytest.mark.fault(21, "a")
def test_echoscu_without_our_authority_or_without_tls_is_not_answered(secured, tmp_path):
    node, ours = secured
    stranger = identity(authority(tmp_path, "other"), "stranger")
    assert run("echoscu", node, *over_tls(ours, stranger), *where(node)).returncode != 0
    assert run("echoscu", node, *where(node)).returncode != 0
    assert run("echoscu", node, *over_tls(ours), *where(node)).returncode == 0
