"""Command sets: the requests that the node answers, and its responses (PS3.7 sections 6.3 and 9.3).

Their layout is fixed and flat, so they are read and written here: a general data set reader and writer would be a fifth
of what receiving an image costs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicomnode.network.wire import PeerError

C_STORE_REQUEST, C_ECHO_REQUEST, N_EVENT_REPORT_REQUEST = 0x0001, 0x0030, 0x0100
SUCCESS, UNSUPPORTED_OPERATION = 0x0000, 0x0211
_RESPONSE, _NO_DATASET = 0x8000, 0x0101
_SOP_CLASS, _KIND, _MESSAGE_ID, _DATASET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = (
    0x0002, 0x0100, 0x0110, 0x0800, 0x0900, 0x0902, 0x1000,
)  # fmt: skip
_RESPONDED_TO = 0x0120


@dataclass(frozen=True, kw_only=True)
class Command:
    """A request."""

    kind: int
    message_id: int
    #: Empty where the request has none.
    sop_class_uid: str
    sop_uid: str
    has_dataset: bool


def decode(data: bytes) -> Command:
    """Read a command set (always implicit VR little endian); raises PeerError if it is malformed."""
    try:
        elements = _elements(data)
        return Command(
            kind=_number(elements[_KIND]),
            message_id=_number(elements[_MESSAGE_ID]),
            sop_class_uid=_uid(elements.get(_SOP_CLASS, b"")),
            sop_uid=_uid(elements.get(_SOP_INSTANCE, b"")),
            has_dataset=_number(elements[_DATASET_TYPE]) != _NO_DATASET,
        )
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise PeerError(f"malformed command set: {type(error).__name__}") from error


def encode_response(request: Command, status: int, comment: str = "") -> bytes:
    """Write the response to a request."""
    body = b"".join(
        [
            _text(_SOP_CLASS, request.sop_class_uid, b"\0"),
            _us(_KIND, request.kind | _RESPONSE),
            _us(_RESPONDED_TO, request.message_id),
            _us(_DATASET_TYPE, _NO_DATASET),
            _us(_STATUS, status),
            _text(_COMMENT, comment[:64], b" "),
            _text(_SOP_INSTANCE, request.sop_uid, b"\0"),
        ]
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _elements(data: bytes) -> dict[int, bytes]:
    """Values by element number of group 0000."""
    found, position = {}, 0
    while position < len(data):
        group, element, length = struct.unpack_from("<HHL", data, position)
        position += 8
        if group != 0 or position + length > len(data):
            raise PeerError("malformed command set")
        found[element] = data[position : position + length]
        position += length
    return found


def _number(value: bytes) -> int:
    return int(struct.unpack("<H", value)[0])


def _uid(value: bytes) -> str:
    return value.decode("ascii").rstrip("\0 ")


def _us(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)


def _text(element: int, text: str, padding: bytes) -> bytes:
    """A UI or LO element; nothing if it has no value."""
    value = text.encode("ascii", "replace")
    value += padding * (len(value) % 2)
    return struct.pack("<HHL", 0, element, len(value)) + value if value else b""
