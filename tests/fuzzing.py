"""Input that is nearly valid, for the fuzz tests: damaged copies of valid bytes, and data sets of odd elements."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

CORPUS = Path(__file__).parent / "corpus"
LENGTHS = (0, 1, 2, 3, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
VRS = (*LONG_VRS, *b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US ZZ".split(), b"\0\0", b"  ")
CHARSETS = (
    b"", b"ISO_IR 100", b"ISO_IR 192", b"GB18030", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO 2022 IR 6",
    b"Not Supplied", b"\xff\xfe", b"utf8", b"ISO_IR 13\\GBK\\\\", b"rot13", b"hex",
)  # fmt: skip
#: What a value may hold that makes trouble somewhere: numbers, paths, escapes, markup, direction marks, charset shifts.
ODD_VALUES = (
    b"", b" ", b"\0", b"\\", b"\\\\\\", b"0", b"-1", b"1e400", b"nan", b"inf", b"-inf", b"14.5",
    b"1e308\\-1e308\\1e308", b"9" * 400, b"1\\2", b"0\\0", b"1\\0\\0\\0\\1\\0", b"0\\0\\0\\0\\0\\0", b"2147483647",
    b"../../x", b"/etc/passwd", b"1.2.3\n", b"1.2.3\0/../x", b"<script>x</script>", b"\x1b[2J", b"\x1b$B\xff\xff",
    b"\xe2\x80\xae", b"%s%n{0}", b"a" * 70000, b"1\\" * 30000, struct.pack("<H", 0xFFFF), struct.pack("<d", 1e308),
    struct.pack("<dd", float("nan"), float("inf")), bytes(6), b"ORIGINAL\\PRIMARY", b"CT", b"MR", b"T2", b"FS",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, valid: bytes, places: Sequence[int] = ()) -> bytes:
    """A copy with one to four faults, every second one where something is declared (`places`)."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        end = len(data)
        anywhere = st.integers(0, end)
        known = st.sampled_from(places).flatmap(lambda place: st.integers(place, place + 12)) if places else anywhere
        at = min(draw(st.one_of(known, anywhere)), end)
        kind = draw(st.sampled_from(("bytes", "length", "big length", "cut", "insert", "delete", "repeat")))
        if kind == "bytes":
            new = draw(st.binary(min_size=1, max_size=4))
            data[at : at + len(new)] = new
        elif kind.endswith("length"):
            size = draw(st.sampled_from("BHL"))
            number = draw(st.sampled_from(LENGTHS)) & (256 ** struct.calcsize(f"={size}") - 1)
            new = struct.pack((">" if kind[0] == "b" else "<") + size, number)
            data[at : at + len(new)] = new
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            upto = min(end, at + draw(st.integers(1, 300)))
            data[at:upto] = b"" if kind == "delete" else data[at:upto] * draw(st.sampled_from((2, 3, 40)))
    return bytes(data)


def element(tag: int, vr: bytes, value: bytes, *, length: int | None = None, implicit: bool = False) -> bytes:
    """One little endian data element; `length` is what it declares, if not the truth."""
    declared = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<L", declared) + value
    if vr in LONG_VRS:
        return head + vr + struct.pack("<HL", 0, declared) + value
    value = value[:0xFFFE]
    return head + vr + struct.pack("<H", min(declared, len(value)) if length is None else declared & 0xFFFF) + value


def sequence(tag: int, items: Iterable[bytes], *, defined: bool) -> bytes:
    """A sequence of items, all with lengths or all with delimiters."""
    if defined:
        return element(tag, b"SQ", b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(i)) + i for i in items))
    body = b"".join(b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + i + b"\xfe\xff\x0d\xe0\0\0\0\0" for i in items)
    return element(tag, b"SQ", body + b"\xfe\xff\xdd\xe0\0\0\0\0", length=0xFFFFFFFF)


def nested(tag: int, depth: int) -> bytes:
    """Sequences of undefined length inside each other, the innermost empty."""
    begin = element(tag, b"SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", length=0xFFFFFFFF)
    return begin * depth + (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * depth


def parts_of(data: bytes) -> dict[int, bytes]:
    """The elements of an explicit little endian data set that has no sequences, by tag."""
    found, at = {}, 0
    while at < len(data):
        group, number, vr, length = struct.unpack_from("<HH2sH", data, at)
        end = at + 8 + length
        if vr in LONG_VRS:
            end = at + 12 + struct.unpack_from("<L", data, at + 8)[0]
        found[group << 16 | number] = data[at:end]
        at = end
    return found


def starts(parts: Mapping[int, bytes]) -> Iterator[int]:
    """Where each element begins when they are joined."""
    at = 0
    for tag in sorted(parts):
        yield at
        at += len(parts[tag])


def joined(parts: Mapping[int, bytes]) -> bytes:
    return b"".join(parts[tag] for tag in sorted(parts))


def odd_elements(keywords: Sequence[str]) -> st.SearchStrategy[dict[int, bytes]]:
    """Elements with the tags of these keywords, or private ones, whose VR, value and length are anything."""
    tags = [tag for word in keywords if (tag := tag_for_keyword(word)) is not None]
    values = st.one_of(st.sampled_from(ODD_VALUES), st.binary(max_size=20))

    def simple(tag: int) -> st.SearchStrategy[bytes]:
        lengths: Any = st.one_of(st.none(), st.none(), st.none(), st.sampled_from(LENGTHS))
        return st.builds(element, st.just(tag), st.sampled_from(VRS), values, length=lengths)

    def one(tag: int) -> st.SearchStrategy[tuple[int, bytes]]:
        items = st.lists(st.sampled_from(tags).flatmap(simple), max_size=3)
        sequences = st.builds(sequence, st.just(tag), items, defined=st.booleans())
        deep = st.builds(nested, st.just(tag), st.sampled_from((1, 5, 70, 400, 3000)))
        charset = st.sampled_from(CHARSETS).map(lambda value: element(0x00080005, b"CS", value))
        return st.one_of(
            st.tuples(st.just(tag), st.one_of(simple(tag), simple(tag), sequences, deep)),
            st.tuples(st.just(0x00080005), charset),
        )

    return st.lists(st.sampled_from([*tags, 0x00091001, 0x7FE10010]).flatmap(one), min_size=1, max_size=4).map(dict)


def corpus(prefix: str) -> list[Any]:
    """Inputs that once did harm, kept as hexadecimal text, as parameters of a test."""
    found = sorted(CORPUS.glob(f"{prefix}-*.hex"))
    return [pytest.param(bytes.fromhex(path.read_text()), id=path.stem) for path in found]
