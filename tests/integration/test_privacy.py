"""Who the patients are stands in the spool, the ledger and the audit trail, and in nothing else that a node writes."""

from __future__ import annotations

import html
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts, evt
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.network.send import Address, send
from tests.integration.programs import Node, free_port, local, running, send_all
from tests.integration.test_recovery import archive, write_series
from tests.peers import peer
from tests.receivers import associate_request

__all__ = ["archive"]
PATIENT = {
    "PatientName": "Zqmärker^Oleander",
    "PatientID": "ZQ-PID/4711",
    "PatientBirthDate": "19130207",
    "AccessionNumber": "ZQACC 0815",
    "OtherPatientIDs": "ZQOTHER99",
    "ReferringPhysicianName": "Zqreferrer^Hazel",
    "PatientAddress": "Zqstreet 5",
    "InstitutionName": "Zqhospital",
}


def spellings(value: str) -> Iterator[str]:
    """A value as it may turn up: as it is, without the caret, in a date's other forms, in a URL, in JSON, in HTML."""
    forms = {value, *(value.replace("^", other) for other in (" ", ", ", "_", "-", ""))}
    if len(value) == 8 and value.isdecimal():
        year, month, day = value[:4], value[4:6], value[6:]
        forms |= {f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{month}/{day}/{year}"}
    forms |= {part for part in value.split("^") if len(part) > 5}
    for form in forms:
        yield from (form, quote(form, safe=""), quote(form, safe="", encoding="latin-1"))
        yield from (json.dumps(form)[1:-1], html.escape(form), form.encode("latin-1").decode("utf-8", "replace"))


MARKS = sorted({form.casefold() for value in PATIENT.values() for form in spellings(value)})


def leaks(text: str) -> list[str]:
    return [mark for mark in MARKS if mark in text.casefold()]


def marked_series(folder: Path, **options) -> list[Path]:
    files = write_series(folder, **options)
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 100"
        for keyword, value in PATIENT.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return files


def spoiled(path: Path, **changes: str) -> Path:
    """A copy in which identifying text stands where numbers belong: whoever complains must not quote it."""
    dataset = pydicom.dcmread(path)
    for keyword, value in changes.items():
        dataset[keyword] = pydicom.DataElement(dataset[keyword].tag, "LO", value)
    target = path.with_name(f"spoiled-{path.name}")
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(target, implicit_vr=True, little_endian=True)
    return target


def processes(root: int) -> list[int]:
    """A process and all that it has started."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *(pid for child in children for pid in processes(int(child)))]


def titles(pids: list[int]) -> str:
    """What `ps` shows of processes and their threads."""
    files = [file for pid in pids for file in (f"/proc/{pid}/cmdline", *Path(f"/proc/{pid}/task").glob("*/comm"))]
    return "\n".join(Path(file).read_text() for file in files if Path(file).exists())


def page(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.geturl() + str(answer.headers) + answer.read().decode("latin-1")
    except urllib.error.HTTPError as error:
        return str(error.headers) + error.read().decode("latin-1")


def quarrel(node: Node, files: list[Path]) -> None:
    """Send what is refused: another data set of the same name, no DICOM, half an instance, to a wrong title."""
    other = pydicom.dcmread(files[0])
    other.SliceThickness = 2
    other.save_as(files[0].with_name("other.dcm"))
    half = files[0].with_name("half.dcm")
    half.write_bytes(files[1].read_bytes()[:-1000])
    outcomes = send([files[0].with_name("other.dcm")], node.address, calling_ae="TEST")
    assert outcomes[0].problem

    for request in (
        associate_request("1.2.840.10008.1.1", called="WRONG"),
        b"GET /?name=ZQOTHER99 HTTP/1.0\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", node.address.port), 10) as sock:
            sock.sendall(request)
            with suppress(ConnectionError):
                sock.recv(100)


@pytest.fixture
def indiscreet() -> Iterator[Address]:
    """A PACS that refuses everything with a comment that names the patient."""

    def refuse(event: evt.Event) -> pydicom.Dataset:
        status = pydicom.Dataset()
        status.Status, status.ErrorComment = 0xC123, f"who is {event.dataset.PatientID}?"
        return status

    with peer(AllStoragePresentationContexts, {evt.EVT_C_STORE: refuse}) as address:
        yield address


def test_nothing_that_a_busy_node_writes_beside_its_data_names_a_patient(tmp_path, archive, indiscreet, capfd):
    temporary, web = tmp_path / "tmp", free_port()
    temporary.mkdir()
    chest = marked_series(tmp_path / "in", study="1")
    neck = marked_series(tmp_path / "in", study="2", body_part="CSPINE")
    odd = marked_series(tmp_path / "in", study="3", body_part="CSPINE", slices=12)
    odd = [spoiled(path, InstanceNumber="ZQACC 0815", SliceThickness="ZQ-PID/4711") for path in odd]
    destinations = {"archive": local("ARCHIVE", archive.port), "indiscreet": indiscreet}
    node = Node(tmp_path / "node", destinations=destinations, web=web)
    said = []
    with running(node, DICOMNODE_FAULT="inference:raise", TMPDIR=str(temporary)):
        for files in (chest, neck, odd):
            send_all(files, node.address)
        quarrel(node, chest)
        answers = [node.answer(uid)["state"] for uid in ("1.2.3.1", "1.2.3.2", "1.2.3.3")]
        assert answers[:2] == ["failed", "failed"]
        said += [page(web, path) for path in ("/", "/studies/1", "/studies/2", "/studies/3", "/health")]
        said += [page(web, path) for path in ("/studies/9", "/studies/1/0.png", "/%00")]
        assert "refused with status C123" in said[1]
        for command in (["status"], ["status", "2"], ["status", "3", "--json"], ["doctor"], ["retry", "2"]):
            done = CliRunner().invoke(cli.app, [*command, "--config", str(node.config)])
            said.append(done.output + repr(done.exception))
        said.append(titles(processes(node.process.pid)))
        assert node.stop() == 0
    trail = "".join(path.read_text() for path in (node.data_dir / "audit").glob("audit-*.log"))
    assert "ZQ-PID/4711" in trail, "the marks are looked for where they would be"
    assert "who is ZQ-PID/4711?" in trail, "what the PACS said"
    assert len(archive.stored) >= 3
    log = node.log.read_text()
    assert "instance refused" in log and "results refused" in log
    assert "analysis failed" in log and "association rejected" in log
    assert "1.2.3.1" not in log, "nor do UIDs belong there"
    written = [path for folder in (node.data_dir, temporary) for path in folder.rglob("*")]
    names = "\n".join(map(str, written))
    private = [node.data_dir / name for name in ("spool", "audit", "ledger.sqlite")]
    beside = [p for p in written if p.is_file() and not any(str(p).startswith(str(place)) for place in private)]
    assert beside, "the lock at least"
    contents = "".join(path.read_bytes().decode("latin-1") for path in beside)
    out, err = capfd.readouterr()
    assert [leaks(text) for text in (log, names, contents, out, err, *said) if leaks(text)] == []
