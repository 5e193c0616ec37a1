"""What counts as a copy of an instance that is stored already: see docs/decisions/0007-first-copy-stays.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.errors import Refused
from dicomnode.study import Instance

#: Transfer syntaxes that cannot change a pixel. The general JPEG 2000 and JPEG-LS ones may, so they are not here.
LOSSLESS = frozenset(
    {
        ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLossless,
        JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless,
    }
)  # fmt: skip


def refuse_unless_copy(new: Instance, kept: Instance) -> None:
    """Raise Refused (MISMATCH) unless the sender may be told that the kept instance is what it sends now."""
    if new.sha256 == kept.sha256:
        return
    if new.transfer_syntax_uid == kept.transfer_syntax_uid or _identity(new) != _identity(kept):
        raise Refused(Refused.MISMATCH, "another data set with this SOP Instance UID is already stored")
    if {new.transfer_syntax_uid, kept.transfer_syntax_uid} <= LOSSLESS and _was_lossy(new) == _was_lossy(kept):
        return
    if kept.transfer_syntax_uid in LOSSLESS and not _was_lossy(kept):
        raise Refused(Refused.MISMATCH, "this copy may have lost pixels; the lossless one is kept")
    raise Refused(Refused.MISMATCH, "a copy that may have lost pixels came first and is kept")


def _identity(item: Instance) -> Instance:
    """An instance without what differs between two encodings of it."""
    header = {word: value for word, value in item.header.items() if word != "LossyImageCompression"}
    return replace(item, transfer_syntax_uid="", path=Path(), sha256="", header=header)


def _was_lossy(item: Instance) -> bool:
    """Whether its pixels have gone through a lossy compression at any time: absent means no, as "00" does."""
    return item.header.get("LossyImageCompression") == "01"
