"""Chance that depends on a name alone: the same lot on every machine, whatever else is drawn."""

from __future__ import annotations

import hashlib


def lot(name: str) -> float:
    """A number from 0 to 1, evenly spread over names."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
