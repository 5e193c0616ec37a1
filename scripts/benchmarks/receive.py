"""Images per second from DCMTK's storescu into this node, against DCMTK's storescp, and against the disk alone.

storescp answers before its bytes are on the disk; this node answers after file, folder and ledger are flushed.
Each round sends the same 300 CT images of 512x512 to a fresh node and a fresh storescp, one after the other.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dicomnode import ledger
from dicomnode.config import Config
from dicomnode.header import read_instance
from dicomnode.network.send import Address
from dicomnode.spool import Spool, dataset_offset
from scripts.benchmarks import common

IMAGES, SIDE, ROUNDS, ASSOCIATIONS = 300, 512, 5, (1, 4)
FRAGMENT = 128 << 10  # storescu's largest PDU
NO_DELAY = os.environ | {"TCP_NODELAY": "1"}  # DCMTK leaves Nagle's algorithm on unless told


def main() -> None:
    """Measure and print."""
    as_json = common.wants_json(__doc__)
    rows = [["associations", "node, images/s", "storescp, images/s", "ratio", "ratio per round"]]
    document: dict[str, object] = {"images": IMAGES, "side": SIDE, "rounds": ROUNDS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = make_images(root / "images")
        document["disk_images_per_s"] = disk = IMAGES / statistics.median(write_and_flush(files, root) for _ in "123")
        document["steps_ms"] = parts = steps(files, root / "steps")
        for count in ASSOCIATIONS:
            ours, theirs = [], []
            for number in range(ROUNDS):
                with storescp(root / f"scp-{count}-{number}") as peer:
                    theirs.append(IMAGES / send(files, peer, count))
                with common.node(root / f"node-{count}-{number}", ASSEMBLY__QUIET_SECONDS="600") as peer:
                    ours.append(IMAGES / send(files, peer, count))
            ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
            node, scp = statistics.median(ours), statistics.median(theirs)
            ratio = statistics.median(ratios)
            document[f"associations_{count}"] = {"node": node, "storescp": scp, "ratio": ratio, "ratios": ratios}
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            rows.append([str(count), f"{node:.0f}", f"{scp:.0f}", f"{ratio:.2f}", spread])
    common.show(document, rows, as_json)
    if not as_json:
        print(f"\nfor comparison: one thread that only writes and flushes these files: {disk:.0f} images/s\n")
        common.show({}, [["step of the receiver, one after the other", "ms per image"], *parts.items()], as_json)


def make_images(folder: Path) -> list[Path]:
    """One axial CT series of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    study, series = generate_uid(), generate_uid()
    paths = []
    for index in range(IMAGES):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.PatientName, dataset.PatientID, dataset.Modality = "BENCH^RECEIVE", "BENCH", "CT"
        dataset.InstanceNumber, dataset.SeriesNumber = index + 1, 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, index], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.5], 1
        dataset.Rows = dataset.Columns = SIDE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PixelData = rng.integers(0, 4096, (SIDE, SIDE), np.uint16).tobytes()
        paths.append(folder / f"{index:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def send(files: Sequence[Path], peer: Address, associations: int) -> float:
    """Seconds until the last of several parallel storescu has ended."""
    shares = [files[start::associations] for start in range(associations)]
    command = [common.dcmtk("storescu"), "-aet", "BENCH", "-aec", peer.ae_title, peer.host, str(peer.port)]
    start = time.perf_counter()
    senders = [subprocess.Popen([*command, *map(str, share)], env=NO_DELAY) for share in shares]
    for sender in senders:
        if sender.wait(300) != 0:
            raise RuntimeError(f"storescu ended with exit status {sender.returncode}")
    return time.perf_counter() - start


@contextlib.contextmanager
def storescp(folder: Path) -> Iterator[Address]:
    """DCMTK's storage SCP with its defaults; one process for each association."""
    folder.mkdir()
    peer = Address(ae_title="STORESCP", host="127.0.0.1", port=common.free_port())
    process = subprocess.Popen([common.dcmtk("storescp"), "--fork", "-od", str(folder), str(peer.port)], env=NO_DELAY)
    try:
        common.wait_for_echo(peer)
        yield peer
    finally:
        process.terminate()
        process.wait(10)


def write_and_flush(files: Sequence[Path], root: Path) -> float:
    """Seconds for one thread to write the same bytes to new files and flush each one."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        contents = [path.read_bytes() for path in files]
        start = time.perf_counter()
        for index, content in enumerate(contents):
            with (Path(folder) / str(index)).open("wb", buffering=0) as file:
                file.write(content)
                os.fsync(file.fileno())
        return time.perf_counter() - start


def steps(files: Sequence[Path], data_dir: Path) -> dict[str, str]:
    """What the receiver does for each image, without a network and without anything side by side."""
    spool, book = Spool(data_dir / "spool"), ledger.connect(Config(data_dir=data_dir).ledger_url)
    spent: dict[str, float] = {}

    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    for path in files:
        data = memoryview(path.read_bytes())[dataset_offset(path) :]
        with step("open a file, write its head"):
            part = spool.receive(
                sop_class_uid=CTImageStorage, sop_uid="1.2.3", transfer_syntax_uid=ExplicitVRLittleEndian
            )
        with step("write the data set and hash it"):
            for start in range(0, len(data), FRAGMENT):
                part.write(data[start : start + FRAGMENT])
        with step("parse the header, compare lengths"):
            item = read_instance(part.path, sha256=part.sha256)
        with step("rename and flush"):
            item = replace(item, path=part.keep(item.study_uid))
            part.flush()
        with step("ledger: two statements, commit"):
            book.file_instance(item, association="bench", calling_ae="BENCH")
    return {name: f"{seconds / len(files) * 1e3:.2f}" for name, seconds in spent.items()}


if __name__ == "__main__":
    main()
