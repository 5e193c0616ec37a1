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
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dicomnode.network.send import Address
from scripts.benchmarks import common

IMAGES, SIDE, ROUNDS, ASSOCIATIONS = 300, 512, 5, (1, 4)
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
        print(f"\nfor comparison: one thread that only writes and flushes these files: {disk:.0f} images/s")


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


if __name__ == "__main__":
    main()
