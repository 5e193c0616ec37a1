"""The skeleton of a stored data set (PS3.5 section 7), walked without building anything from it.

pydicom builds an object for every item that it meets: 8 MB of empty items take it 45 s and 650 MB, and 1,000 nested
sequences its stack. So the skeleton is walked first, and what is not whole or beyond reason is never parsed.
"""

from __future__ import annotations

from collections.abc import Container
from struct import Struct
from typing import BinaryIO, NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from dicomnode.errors import Refused

MAX_ENTRIES = 1_000_000  # elements, items and fragments; an Enhanced MR of 10,000 frames has half of that
MAX_DEPTH = 64  # sequences inside each other
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # VRs with four bytes of length
_BULK = frozenset(b"OB OD OF OL OV OW".split())  # of undefined length: fragments, not items
_PIXELS = 0x7FE00010


class Place(NamedTuple):
    """Where the value of an element lies; `vr` is empty in implicit VR."""

    vr: bytes
    start: int
    length: int


class _Level(NamedTuple):
    """Inside what we are: elements up to `end`, or items; `is_open` waits for a delimiter before `end`."""

    end: int
    is_open: bool
    is_sequence: bool


def walk(file: BinaryIO, start: int, size: int, wanted: Container[int], *, order: str) -> dict[int, Place]:
    """Places of the wanted top-level elements of a data set that begins at `start` and must end at `size`.

    Raises Refused for one that is cut off, contradicts itself, or is nested or divided beyond reason.
    """
    walker = _Walker(file, order, implicit=_is_implicit(file, start))
    found: dict[int, Place] = {}
    levels = [_Level(size, is_open=False, is_sequence=False)]
    at = start
    while levels:
        level = levels[-1]
        if at == level.end and not level.is_open:
            levels.pop()
            continue
        tag, place = walker.read(at, level)
        if level.is_open and tag == (_SEQUENCE_END if level.is_sequence else _ITEM_END):
            at = place.start
            levels.pop()
            continue
        if (tag == _ITEM) != level.is_sequence or tag in (_ITEM_END, _SEQUENCE_END):
            raise _refused(f"unexpected {tag:08X} inside {'a sequence' if level.is_sequence else 'a data set'}")
        if len(levels) == 1 and tag in wanted:
            found[tag] = place
        at, inner = _enter(walker, tag, place, level)
        if inner:
            levels.append(inner)
            if len(levels) > 2 * MAX_DEPTH + 1:
                raise _refused(f"more than {MAX_DEPTH} sequences inside each other")
    return found


def _enter(walker: _Walker, tag: int, place: Place, level: _Level) -> tuple[int, _Level | None]:
    """Where to go on after an element's or item's head, and the level that begins there, if one does."""
    is_open = place.length == UNDEFINED
    if is_open and (tag == _PIXELS or place.vr in _BULK):
        return walker.skip_fragments(place.start, level), None
    if tag == _ITEM or is_open or walker.is_sequence(tag, place.vr):
        end = level.end if is_open else place.start + place.length
        return place.start, _Level(end, is_open, is_sequence=tag != _ITEM)
    return place.start + place.length, None


class _Walker:
    def __init__(self, file: BinaryIO, order: str, *, implicit: bool) -> None:
        self._file, self._implicit, self._entries = file, implicit, 0
        self._tag, self._long, self._short = Struct(f"{order}HH"), Struct(f"{order}L"), Struct(f"{order}H")

    def read(self, at: int, level: _Level) -> tuple[int, Place]:
        """The head of the element or item at a position."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise _refused(f"more than {MAX_ENTRIES} elements and items")
        self._file.seek(at)
        head = self._file.read(12)
        if at + 8 > level.end or len(head) < 8:
            raise _refused("truncated at the end, or a delimiter is missing")
        group, number = self._tag.unpack_from(head)
        vr = head[4:6]
        # Some writers change to implicit VR inside sequences: pydicom goes by each element's VR, too.
        if group == 0xFFFE or self._implicit or not b"AA" <= vr <= b"ZZ":
            place = Place(b"", at + 8, self._long.unpack_from(head, 4)[0])
        elif vr not in _LONG:
            place = Place(vr, at + 8, self._short.unpack_from(head, 6)[0])
        elif len(head) == 12:
            place = Place(vr, at + 12, self._long.unpack_from(head, 8)[0])
        else:
            raise _refused("truncated at the end")
        if place.length != UNDEFINED and place.start + place.length > level.end:
            raise _refused(f"truncated inside ({group:04X},{number:04X})")
        return group << 16 | number, place

    def is_sequence(self, tag: int, vr: bytes) -> bool:
        return vr == b"SQ" or (not vr and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")

    def skip_fragments(self, at: int, level: _Level) -> int:
        """Encapsulated pixel data (PS3.5 A.4): items up to a sequence delimiter; returns where they end."""
        while True:
            tag, place = self.read(at, level)
            if tag == _SEQUENCE_END:
                return place.start
            if tag != _ITEM or place.length == UNDEFINED:
                raise _refused("truncated inside the compressed pixel data")
            at = place.start + place.length


def _is_implicit(file: BinaryIO, start: int) -> bool:
    """By the bytes, not by the transfer syntax: some senders mix them up, and pydicom reads these, too."""
    file.seek(start + 4)
    return not b"AA" <= file.read(2) <= b"ZZ"


def _refused(why: str) -> Refused:
    return Refused(Refused.CANNOT_UNDERSTAND, why)
