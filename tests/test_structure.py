"""The skeleton of a data set: what is whole is walked, what is cut, tangled or endless is refused before it is read."""

from __future__ import annotations

import io
import struct
import tracemalloc

import pytest

from dicomnode import structure
from dicomnode.errors import Refused
from dicomnode.structure import UNDEFINED, Place, walk
from tests.fuzzing import element, nested, sequence

NAME, LAST, GROUPS, PIXELS = 0x00100010, 0x00200013, 0x52009230, 0x7FE00010
LEAF, END = element(NAME, b"PN", b"ab"), element(LAST, b"IS", b"1 ")
DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


def walked(data: bytes, order: str = "<") -> dict[int, Place]:
    return walk(io.BytesIO(data), 0, len(data), {NAME, LAST, PIXELS}, order=order)


def fragments(*parts: bytes) -> bytes:
    body = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in parts)
    return element(PIXELS, b"OB", body + DELIMITER, length=UNDEFINED)


WHOLE = {
    "flat": LEAF + END,
    "defined sequence": sequence(GROUPS, [LEAF, END], defined=True) + END,
    "undefined sequence": sequence(GROUPS, [LEAF, b""], defined=False) + END,
    "sequence in a sequence": sequence(GROUPS, [sequence(GROUPS, [LEAF], defined=True)], defined=False) + END,
    "unknown of undefined length": element(0x00091001, b"UN", DELIMITER, length=UNDEFINED) + END,
    "implicit inside explicit": sequence(GROUPS, [element(NAME, b"", b"ab", implicit=True)], defined=True) + END,
    "as deep as allowed": nested(GROUPS, structure.MAX_DEPTH) + END,
    "fragments": END + fragments(b"", b"xyzw"),
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
def test_what_is_whole_is_walked_and_refused_wherever_it_is_cut(data):
    assert LAST in walked(data)
    boundary = data.index(END) + len(END) if data.startswith(END) else data.index(END, len(data) - len(END))
    for length in range(len(data)):
        if length not in (0, len(LEAF), boundary):  # between two elements nothing is missing
            with pytest.raises(Refused):
                walked(data[:length])


def test_places_are_those_of_the_top_level():
    inner = sequence(GROUPS, [LEAF], defined=False)
    assert walked(LEAF + inner + END) == {
        NAME: Place(b"PN", 8, 2),
        LAST: Place(b"IS", len(LEAF + inner) + 8, 2),
    }
    assert NAME not in walked(inner + END)


def test_both_byte_orders_and_implicit_vr_are_walked():
    assert walked(element(NAME, b"", b"ab", implicit=True))[NAME] == Place(b"", 8, 2)
    assert walked(struct.pack(">HH2sH", 0x10, 0x10, b"PN", 2) + b"ab", ">")[NAME] == Place(b"PN", 8, 2)
    empty_items = element(0x00082112, b"", b"\xfe\xff\x00\xe0\0\0\0\0", implicit=True)
    assert LAST in walked(empty_items + element(LAST, b"", b"1 ", implicit=True))


TANGLED = {
    "item outside a sequence": b"\xfe\xff\x00\xe0\0\0\0\0" + END,
    "delimiter outside a sequence": DELIMITER + END,
    "element where an item belongs": element(GROUPS, b"SQ", LEAF) + END,
    "item longer than its sequence": element(GROUPS, b"SQ", b"\xfe\xff\x00\xe0\x09\0\0\0" + LEAF[:8]) + END,
    "element longer than its item": sequence(GROUPS, [element(NAME, b"PN", b"ab", length=4)], defined=True) + END,
    "fragment of undefined length": element(PIXELS, b"OB", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", length=UNDEFINED),
    "deeper than allowed": nested(GROUPS, structure.MAX_DEPTH + 1) + END,
    "20,000 deep": nested(GROUPS, 20_000) + END,
}


@pytest.mark.parametrize("data", TANGLED.values(), ids=TANGLED.keys())
def test_what_is_tangled_is_refused(data):
    with pytest.raises(Refused) as refused:
        walked(data)
    assert refused.value.status == Refused.CANNOT_UNDERSTAND


MANY = {
    "items": element(GROUPS, b"SQ", b"\xfe\xff\x00\xe0\0\0\0\0" * 20_000),
    "elements": b"".join(element(0x00090000 | n, b"LO", b"") for n in range(20_000)),
    "fragments": fragments(*[b""] * 20_000),
}


@pytest.mark.parametrize("data", MANY.values(), ids=MANY.keys())
def test_many_entries_are_counted_without_building_anything_and_too_many_are_refused(data, monkeypatch):
    tracemalloc.start()
    walked(data)
    grown = tracemalloc.get_traced_memory()[1] - len(data)  # BytesIO holds the data itself
    tracemalloc.stop()
    assert grown < 100_000
    monkeypatch.setattr(structure, "MAX_ENTRIES", 19_999)
    with pytest.raises(Refused, match="more than 19999"):
        walked(data)
