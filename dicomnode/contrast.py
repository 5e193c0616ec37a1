"""The contrast of an MR series, T1, T2 or STIR: by its timing, and by its words where there is none."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from dicomnode.study import Series

#: STIR stands for every T2 image with suppressed fat.
Contrast: TypeAlias = Literal["T1", "T2", "STIR"]

# ms. Between the two kinds lie proton density and mixtures, which are neither.
T1_ECHO, T1_REPETITION = 35.0, 1200.0
T2_ECHO, T2_REPETITION = 60.0, 1500.0
STIR_INVERSION = (80.0, 320.0)  # nulls fat, from 0.2 to 3 tesla
FLAIR_INVERSION = (400.0, 1300.0)  # of T1 FLAIR, which has a long repetition time
_SUPPRESSED = r"\b(STIR|TIRM|FS|FAT[ -]?SAT|SPAIR|SPIR)\b|\bDIXON\b.*\b(WATER|W)\b"
_WORDS: dict[str, Contrast] = {_SUPPRESSED: "STIR", r"\bT2": "T2", r"\bT1": "T1"}


def contrast(series: Series) -> Contrast | None:
    """The contrast, or None for anything that is not one of the three, such as proton density or gradient echo."""
    echo, repetition, inversion = (_number(series, f"{name}Time") for name in ("Echo", "Repetition", "Inversion"))
    if echo is None or repetition is None:
        return _named(series)
    if "GR" in str(series.value("ScanningSequence") or ""):
        return None
    suppressed = _says(series, _SUPPRESSED) or "FS" in str(series.value("ScanOptions") or "")
    if repetition >= T2_REPETITION and inversion is not None and _within(inversion, STIR_INVERSION):
        return "STIR"
    if echo >= T2_ECHO and repetition >= T2_REPETITION:
        return "STIR" if suppressed else "T2"
    flair = inversion is not None and _within(inversion, FLAIR_INVERSION)
    if echo <= T1_ECHO and (repetition <= T1_REPETITION or flair) and not suppressed:
        return "T1"
    return None


def _named(series: Series) -> Contrast | None:
    """An Enhanced object has its timing per frame, which is not read before its turn: its words have to do."""
    return next((found for pattern, found in _WORDS.items() if _says(series, pattern)), None)


def _says(series: Series, pattern: str) -> bool:
    text = " ".join(str(series.value(keyword) or "") for keyword in ("SeriesDescription", "ProtocolName"))
    return re.search(pattern, text.replace("_", " "), re.IGNORECASE) is not None


def _number(series: Series, keyword: str) -> float | None:
    value = series.value(keyword)
    return value if isinstance(value, float) else None


def _within(value: float, span: tuple[float, float]) -> bool:
    return span[0] <= value <= span[1]
