"""The coded concepts results are written with, read from config/codes.toml."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code as StandardCode

from inference.codes import read
from inference.findings import Code

TABLE = Path(__file__).resolve().parent.parent / "config" / "codes.toml"


def table() -> Mapping[str, Code]:
    """Return the configured concepts by key, such as "fracture" or "C5"."""
    return read(TABLE.parent)


def concept(code: Code | str) -> CodedConcept:
    """Return a code, or the configured code of that key, as DICOM writes it (PS3.3 section 8.8)."""
    if isinstance(code, str):
        code = table()[code]
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def unit(ucum: str) -> CodedConcept:
    """Return a unit of measurement by its UCUM symbol, such as "cm3" or "%" (PS3.16 CID 7181)."""
    named = {code.value: code.meaning for code in standard.cid7181.concepts.values()}
    return CodedConcept(value=ucum, scheme_designator="UCUM", meaning=named.get(ucum, ucum))


@cache
def known(scheme: str, value: str) -> bool:
    """Whether a code is configured or stands in DICOM PS3.16; units and languages are not enumerated there."""
    if scheme in ("UCUM", "RFC5646"):
        return True
    return (scheme, value) in _configured() or _in_standard(scheme, value)


@cache
def _configured() -> frozenset[tuple[str, str]]:
    return frozenset((code.scheme, code.value) for code in table().values())


def _in_standard(scheme: str, value: str) -> bool:
    # Equality of pydicom's codes ignores the meaning.
    return hasattr(standard, scheme) and StandardCode(value, scheme, "") in getattr(standard, scheme)
