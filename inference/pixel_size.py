"""How large decoded pixels will be, before a decoder is let loose on them.

Decoders allocate what a code stream declares: 19 KB of JPEG 2000 can ask for gigabytes, whatever Rows and Columns say,
and some end the whole process where the two contradict each other.
"""

from __future__ import annotations

import struct

from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless

MAX_VOXELS = 1 << 29  # of one series: 2,048 slices of 512 by 512
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF markers of JPEG, and that of JPEG-LS


def problem(dataset: Dataset) -> str:
    """Why these pixels must not be decoded; empty if they may."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 0 < rows * columns * frames <= MAX_VOXELS:
        return f"{frames} frame(s) of {rows} by {columns} are more than can be read"
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == RLELossless:  # RLE declares no size of its own
        return ""
    for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
        if (size := _coded_size(frame)) != (rows, columns, 1):
            return f"its code stream holds {size}, its header declares {(rows, columns, 1)} rows, columns and samples"
    return ""


def _coded_size(stream: bytes) -> tuple[int, int, int]:
    """Rows, columns and components that a JPEG, JPEG-LS or JPEG 2000 stream declares."""
    start = stream.find(b"\xff\x4f\xff\x51")
    if start >= 0 and not stream.startswith(b"\xff\xd8"):  # JPEG 2000, perhaps in a JP2 box: the SIZ segment
        right, bottom, left, top = struct.unpack_from(">4L", stream, start + 8)
        (components,) = struct.unpack_from(">H", stream, start + 40)
        return bottom - top, right - left, components
    at = 2
    while True:
        fill, marker, length = struct.unpack_from(">BBH", stream, at)
        if fill != 0xFF:
            raise ValueError("no marker where one belongs")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_FRAMES:
            rows, columns, components = struct.unpack_from(">HHB", stream, at + 5)
            return rows, columns, components
        else:
            at += 2 + length
