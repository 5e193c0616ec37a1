"""Check what the node depends on, and say what to do about what is wrong."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pydicom.data
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit

import inference.pipeline
from dicomnode import disk, ledger
from dicomnode.config import CONFIG_DIR, Config, Destination, Receive, Web
from dicomnode.errors import ConfigError, NodeError, Transient
from dicomnode.network import ports, tls
from dicomnode.network.echo import echo
from dicomnode.network.listen import TRANSFER_SYNTAXES
from dicomnode.peers import destination_address, listener_tls, own_address, repository_tls
from dicomnode.spool import flush_folder
from inference.volume import decode_pixels
from inference.weights import UntrustedWeights

SLOW_FLUSH_SECONDS = 0.02  # a local disk needs less; a network share more
WEB_SECONDS = 10.0  # for the pages of a busy node; another program may never answer


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def examine(config: Config) -> Iterator[Check]:
    """Look at everything, one after the other; nothing is changed."""
    yield _guard("packages", _packages)
    yield _guard("data directory", lambda: _data_dir(config))
    yield _guard("ledger", lambda: _ledger(config))
    yield _guard("receive port", lambda: _port("receive", config.receive, lambda: _answers(config)))
    if config.web.port:
        yield _guard("web port", lambda: _port("web", config.web, lambda: _shows_pages(config)))
    if config.receive.tls:
        yield _guard("TLS", lambda: _tls(config))
    for name in inference.pipeline.names(CONFIG_DIR):
        yield _guard(f"model {name}", lambda name=name: _model(name))  # type: ignore[misc]
    for syntax in TRANSFER_SYNTAXES:
        yield _guard(f"decoder {UID(syntax).name}", lambda syntax=syntax: _decoder(syntax))  # type: ignore[misc]
    yield _guard("GPU", _gpu)
    yield _guard("clock", _clock)
    if config.audit.host:
        yield _guard("audit repository", lambda: _repository(config))
    if not config.destination:
        yield Check(name="destinations", ok=False, detail="none configured: results stay in the data directory")
    for destination in config.destination:
        yield _guard(f"destination {destination.name}", lambda peer=destination: _echo(config, peer))  # type: ignore[misc]


def _guard(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, detail=look())
    except (NodeError, OSError, UntrustedWeights, ValueError, RuntimeError) as error:
        return Check(name=name, ok=False, detail=str(error))


def _packages() -> str:
    """`inference` and `sr` are common names: make sure that they are ours."""
    import sr

    home = Path(__file__).resolve().parent.parent
    for module in (inference, sr):
        place = Path(str(module.__file__)).resolve().parent.parent
        if place != home:
            raise NodeError(
                f"package {module.__name__!r} comes from {place}, not from {home}", hint="use a clean .venv"
            )
    return f"all from {home}"


def _data_dir(config: Config) -> str:
    folder = config.data_dir
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    with tempfile.NamedTemporaryFile(dir=existing) as probe:
        probe.write(bytes(1 << 19))
        start = time.monotonic()
        probe.flush()
        flush_folder(existing)
        seconds = time.monotonic() - start
    free = shutil.disk_usage(existing).free
    if free < 2 * config.limits.free_mb << 20:
        room = disk.room(existing, config.limits.free_mb)
        raise NodeError(f"{folder}: {free >> 20} MB free, {room}".rstrip(", "), hint="make room on it")
    if seconds > SLOW_FLUSH_SECONDS:
        raise NodeError(f"{folder}: a flush takes {seconds * 1e3:.0f} ms", hint="use a local disk, not a network share")
    return f"{folder}: {free >> 30} GB free, a flush takes {seconds * 1e3:.1f} ms"


def _ledger(config: Config) -> str:
    if config.ledger_url.startswith("sqlite:") and not config.data_dir.exists():
        return "will be created at the first start"
    with ledger.connect(config.ledger_url).engine.connect() as db:
        if db.dialect.name != "sqlite":
            return f"{db.dialect.name} answers"
        version = db.exec_driver_sql("select sqlite_version()").scalar()
        journal = db.exec_driver_sql("pragma journal_mode").scalar()
        return f"SQLite {version}, journal {journal}"


def _port(table: str, place: Receive | Web, ours: Callable[[], bool]) -> str:
    try:
        ports.take(table, place.host, place.port).close()
    except ConfigError:
        if not ours():
            raise
        return f"{place.host}:{place.port}: the node is running and answers"
    return f"{place.host}:{place.port} is free"


def _answers(config: Config) -> bool:
    try:
        echo(own_address(config), calling_ae=config.receive.ae_title)
    except Transient:
        return False
    return True


def _shows_pages(config: Config) -> bool:
    with closing(HTTPConnection(config.web.host, config.web.port, timeout=WEB_SECONDS)) as connection:
        try:
            connection.request("GET", "/health", headers={"Host": "localhost"})  # a name that the pages always have
            return b'"problems":' in connection.getresponse().read()
        except (OSError, HTTPException):
            return False


def _tls(config: Config) -> str:
    listener_tls(config)
    return "the certificate, its key and the authorities can be used"


def _model(name: str) -> str:
    model = inference.pipeline.verify(name, CONFIG_DIR)
    return f"{model.name} {model.version}, checksum verified. {model.notice}"


def _decoder(syntax: UID) -> str:
    """Encode an image in this transfer syntax and decode it by the way that analyses use."""
    with tempfile.TemporaryDirectory() as folder:
        path, original = encode_sample(syntax, Path(folder))
        frame = decode_pixels(pydicom.dcmread(path), path)[0]
    error = float(np.abs(frame - original).max())
    if error > 0.02 * original.max():
        raise NodeError(
            f"decoded values are off by {error:.0f} of {original.max():.0f}", hint="reinstall: scripts/setup"
        )
    return f"{frame.shape[0]}x{frame.shape[1]} pixels, {'exact' if error == 0 else f'largest error {error:.0f}'}"


def encode_sample(syntax: UID, folder: Path) -> tuple[Path, np.ndarray]:
    """Write a small grey CT image in a transfer syntax; returns its file and its true stored values."""
    dataset = pydicom.dcmread(Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm")
    values = dataset.pixel_array.clip(0, None)
    bits = {JPEGBaseline8Bit: 8, JPEGExtended12Bit: 12}.get(syntax, 16)
    values = (values >> max(0, 12 - bits)).clip(0, 2**bits - 1).astype(np.uint8 if bits == 8 else np.uint16)
    dataset.PixelData = values.tobytes()
    dataset.PixelRepresentation, dataset.BitsAllocated = 0, 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    plain, coded = folder / "plain.dcm", folder / "coded.dcm"
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        dataset.pop(keyword, None)
    dataset.save_as(plain, enforce_file_format=True)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise NodeError("cannot be encoded for the check", hint="reinstall: scripts/setup")
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(coded))
    writer.Write()
    return coded, values.astype(np.float32)


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none usable, analyses run on the CPU (NVIDIA: is a driver installed that fits this torch?)"
    return f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"


def _clock() -> str:
    now = time.time()
    built = Path(__file__).stat().st_mtime
    if now < built - 86400:
        raise NodeError("the clock is behind the installation date", hint="set up NTP: results bear this time")
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))


def _repository(config: Config) -> str:
    where = f"{config.audit.host}:{config.audit.port}"
    if why := tls.problem(repository_tls(config), config.audit.host, config.audit.port):
        raise NodeError(f"{where}: no TLS connection: {why}", hint="messages wait in data_dir/audit meanwhile")
    return f"{where} accepts TLS connections"


def _echo(config: Config, peer: Destination) -> str:
    address = destination_address(config, peer)
    seconds = echo(address, calling_ae=config.receive.ae_title)
    return f"{address} answered C-ECHO in {seconds * 1e3:.0f} ms"
