"""Certificates for tests, made with openssl: an authority, and who has what of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.integration.validators import require

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Identity:
    """PEM files: as `dicomnode.network.tls.Files`."""

    certificate: Path
    key: Path
    authorities: Path


def authority(folder: Path, name: str = "ca") -> Path:
    """Make an authority; return its certificate."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl("req", "-x509", *CURVE, "-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}")
    return certificate


def identity(ca: Path, name: str, *, days: int = 2, host: str = "IP:127.0.0.1") -> Identity:
    """Make a key and a certificate of an authority; with days = -1 it has expired."""
    certificate, key, request = (ca.parent / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
    extensions = ca.parent / f"{name}.txt"
    extensions.write_text(f"subjectAltName={host}\nbasicConstraints=critical,CA:FALSE\n")
    _openssl("req", "-new", *CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    _openssl(
        "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca.with_suffix(".key"), "-days", days,
        "-extfile", extensions, "-out", certificate,
    )  # fmt: skip
    return Identity(certificate, key, ca)


def _openssl(*arguments: object) -> None:
    command = [require("openssl"), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
