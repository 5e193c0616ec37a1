"""Kill it at any moment and start it again: what was acknowledged is there, and every study gets one answer."""

from __future__ import annotations

import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode import schema
from dicomnode.errors import Transient
from dicomnode.network.archive import Archive
from dicomnode.network.listen import Listener
from dicomnode.network.send import Outcome, send
from dicomnode.spool import dataset_offset
from sr.text import render
from tests.integration.programs import STAND_IN, Node, dcmtk, local, running, send_all, wait_for
from tests.misfortunes import CRASH, GREED, GREED_GIB, HANG

SLICES = 24
KINDS = ["SC", "SEG", "SR"]


def write_series(folder: Path, *, study: str = "1", slices: int = SLICES, body_part: str = "CHEST") -> list[Path]:
    """Small axial CT files that no pipeline wants, so that an answer takes a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(slices):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.3.{study}.1.{index + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.3.{study}", f"1.2.3.{study}.1"
        dataset.PatientName, dataset.PatientID, dataset.Modality = "RECOVERY^TEST", f"R{study}", "CT"
        dataset.BodyPartExamined, dataset.SeriesNumber, dataset.InstanceNumber = body_part, 1, index + 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, index], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.FrameOfReferenceUID = [1, 1], 1, f"1.2.3.{study}.9"
        dataset.Rows = dataset.Columns = 64
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.PixelData = np.full((64, 64), index, np.int16).tobytes()
        paths.append(folder / f"{study}-{index:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()[dataset_offset(path) :]).hexdigest()


@pytest.fixture
def archive(tmp_path):
    """A PACS that is always there."""
    store = Archive(tmp_path / "archive", "ARCHIVE")
    listener = Listener(store, host="127.0.0.1", port=0)
    store.port = listener.port
    yield store
    listener.stop()


def node_for(archive: Archive, folder: Path, **options) -> Node:
    return Node(folder, destinations={"archive": local("ARCHIVE", archive.port)}, **options)


def send_until_it_breaks(files: list[Path], node: Node) -> list[Outcome]:
    """What was acknowledged before the node went away."""
    acknowledged: list[Outcome] = []
    try:
        send(files, node.address, calling_ae="TEST", progress=acknowledged.append)
    except Transient:
        return [outcome for outcome in acknowledged if not outcome.problem]
    return acknowledged


@pytest.mark.fault(1, "ab")
def test_what_was_acknowledged_survives_kills_at_random_moments_and_every_study_gets_one_answer(tmp_path, archive):
    rng = random.Random(7)
    studies = {f"1.2.3.{n}": write_series(tmp_path / "in", study=str(n)) for n in range(1, 7)}
    node = node_for(archive, tmp_path / "node")
    owed: dict[str, str] = {}
    for files in studies.values():
        node.start()
        sender = subprocess.Popen(
            [dcmtk("storescu"), "-v", "-aec", "DICOMNODE", "127.0.0.1", str(node.address.port), *map(str, files)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        time.sleep(rng.uniform(0.02, 0.8))
        node.kill()
        said = sender.communicate(timeout=60)[0].splitlines()
        acknowledged = sum("Received Store Response (Success)" in line for line in said)
        owed |= {f"{pydicom.dcmread(p).SOPInstanceUID}": sha256(p) for p in files[:acknowledged]}
    with running(node):
        kept = node.digests()
        assert {uid: kept.get(uid) for uid in owed} == owed
        for files in studies.values():
            send_all(files, node.address)
        documents = [node.answer(uid) for uid in studies]
        assert node.digests() == {
            str(pydicom.dcmread(p).SOPInstanceUID): sha256(p) for f in studies.values() for p in f
        }
    assert {d["state"] for d in documents} == {"not_applicable"}
    current = {r["sop_uid"] for d in documents for r in d["results"]}
    replaced = {uid for d in documents for uid in d["superseded"]}
    assert len(current) == len(studies)
    assert current <= set(archive.stored) <= current | replaced
    assert not list((node.data_dir / "spool" / "incoming").iterdir())


@pytest.mark.parametrize("fault", ["committing:exit", "sending:exit"])
def test_a_step_that_dies_at_its_end_is_done_again_and_leaves_one_result(tmp_path, archive, fault):
    files = write_series(tmp_path / "in")
    node = node_for(archive, tmp_path / "node")
    with running(node, DICOMNODE_FAULT=fault):
        send_all(files, node.address)
        wait_for("the fault", lambda: "process ended" in node.log.read_text())
        node.kill()
    with running(node):
        document = node.answer("1.2.3.1")
    assert document["state"] in ("not_applicable", "failed")
    assert len(archive.stored) == len(document["results"]) == 1


def assert_it_costs_one_study(archive: Archive, folder: Path, study: str, why: str, **settings: str) -> None:
    """A study takes the model down: the PACS gets a report that says why, and the answer about the study behind it."""
    bad, good = (write_series(folder / "in", study=number, body_part="CSPINE") for number in (study, "1"))
    node = node_for(archive, folder / "node", program=STAND_IN)
    with running(node, **settings):
        send_all(bad, node.address)
        wait_for("the misfortune", lambda: node.ledger.rows(schema.attempt))
        send_all(good, node.address)
        failed, answered = (node.answer(f"1.2.3.{number}") for number in (study, "1"))
    assert (failed["state"], answered["state"]) == ("failed", "done")
    assert why in failed["reason"]
    [report] = failed["results"]
    assert why in render(pydicom.dcmread(archive.stored[report["sop_uid"]][1]))
    assert sorted(result["kind"] for result in answered["results"] if result["sop_uid"] in archive.stored) == KINDS


@pytest.mark.fault(4, "d")
def test_a_model_that_takes_its_process_down_twice_costs_its_study_a_failure_report_and_the_next_nothing(
    tmp_path, archive
):
    assert_it_costs_one_study(archive, tmp_path, CRASH, "ended its process with exit code -11")


@pytest.mark.fault(4, "d")
def test_a_model_that_needs_more_memory_than_it_may_have_costs_its_study_a_failure_report_and_the_next_nothing(
    tmp_path, archive
):
    settings = {"DICOMNODE_INFERENCE__MEMORY_GIB": f"{GREED_GIB - 2}"}
    assert_it_costs_one_study(archive, tmp_path, GREED, "MemoryError", **settings)


@pytest.mark.fault(8, "d")
def test_a_model_that_hangs_is_stopped_at_its_limit_and_costs_the_next_study_nothing(tmp_path, archive):
    settings = {"DICOMNODE_INFERENCE__TIMEOUT_SECONDS": "15"}
    assert_it_costs_one_study(archive, tmp_path, HANG, "it took longer than 15 s", **settings)


def test_a_model_that_raises_is_tried_again_and_then_reported(tmp_path, archive):
    files = write_series(tmp_path / "in", body_part="CSPINE")
    node = node_for(archive, tmp_path / "node")
    with running(node, DICOMNODE_FAULT="inference:raise"):
        send_all(files, node.address)
        document = node.answer("1.2.3.1")
    assert document["state"] == "failed"
    assert "injected at inference" in document["reason"]
    assert len(archive.stored) == 1


@pytest.mark.fault(2, "a")
def test_a_stop_during_reception_ends_cleanly_and_loses_nothing(tmp_path, archive):
    files = write_series(tmp_path / "in", slices=200)
    node = node_for(archive, tmp_path / "node")
    node.start()
    sender = subprocess.Popen(
        [dcmtk("storescu"), "-v", "-aec", "DICOMNODE", "127.0.0.1", str(node.address.port), *map(str, files)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_for("the first image", lambda: node.ledger.studies())
    assert node.stop() == 0
    acknowledged = sender.communicate(timeout=60)[0].count("Received Store Response (Success)")
    assert acknowledged > 0
    with running(node):
        assert set(node.digests().values()) >= {sha256(path) for path in files[:acknowledged]}
        send_all(files, node.address)
        assert node.answer("1.2.3.1")["instances"] == 200


@pytest.mark.fault(16, "b")
def test_one_study_over_parallel_associations_and_two_studies_on_one_are_answered_once_each(tmp_path, archive):
    first, second = (write_series(tmp_path / "in", study=str(n), slices=40) for n in (1, 2))
    mixed = [path for pair in zip(first[20:], second, strict=False) for path in pair] + second[20:]
    node = node_for(archive, tmp_path / "node", quiet_seconds=2)
    with running(node):
        command = [dcmtk("storescu"), "-aec", "DICOMNODE", "127.0.0.1", str(node.address.port)]
        senders = [
            subprocess.Popen([*command, *map(str, part)]) for part in (first[:7], first[7:13], first[13:20], mixed)
        ]
        assert [sender.wait(60) for sender in senders] == [0, 0, 0, 0]
        documents = [node.answer(f"1.2.3.{n}") for n in (1, 2)]
    assert [d["instances"] for d in documents] == [40, 40]
    assert len(archive.stored) == 2


@pytest.mark.fault(1, "bg")
@pytest.mark.fault(14, "bg")
def test_a_study_sent_three_times_over_four_associations_with_two_crashes_leaves_one_set_of_results(tmp_path, archive):
    files = write_series(tmp_path / "in", body_part="CSPINE")
    for path in files:  # complete by count: no half of it is answered, however long a restart takes
        dataset = pydicom.dcmread(path)
        dataset.NumberOfStudyRelatedInstances = SLICES
        dataset.save_as(path)
    parts = [files[number::4] for number in range(4)]
    node = node_for(archive, tmp_path / "node", program=STAND_IN)

    def send_everything() -> None:
        with ThreadPoolExecutor(4) as senders:
            list(senders.map(lambda part: send_all(part, node.address), parts))

    with running(node), ThreadPoolExecutor(4) as senders:
        others = [senders.submit(send_until_it_breaks, part, node) for part in parts[1:]]
        with pytest.raises(Transient):
            send(parts[0], node.address, calling_ae="TEST", progress=lambda _: node.kill_group())
        acknowledged = 1 + sum(len(other.result(60)) for other in others)
    with running(node, DICOMNODE_FAULT="sent:sleep:60"):
        assert acknowledged <= len(node.digests()) < SLICES
        send_everything()
        wait_for("the results in the PACS", lambda: len(archive.stored) == len(KINDS))
        node.kill_group()
    with running(node):
        send_everything()
        document = node.answer("1.2.3.1")
        assert node.digests() == {f"1.2.3.1.1.{n + 1}": sha256(path) for n, path in enumerate(files)}
    assert document["state"] == "done"
    assert sorted(result["kind"] for result in document["results"]) == KINDS
    assert set(archive.stored) == {result["sop_uid"] for result in document["results"]}
    assert [len(node.ledger.rows(schema.task, kind=kind)) for kind in ("infer", "deliver")] == [1, 1]


def test_deadlines_survive_a_restart(tmp_path, archive):
    files = write_series(tmp_path / "in")
    node = node_for(archive, tmp_path / "node", quiet_seconds=12)
    with running(node):
        send_all(files, node.address)
        node.kill()
        time.sleep(3.5)  # a quarter of the quiet period: it passes while nothing runs
        node.start()
        assert node.answer("1.2.3.1")["state"] == "not_applicable"
