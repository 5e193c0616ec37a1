"""Command sets: pydicom, which shares no code with ours, reads what we write, and we read what it writes."""

from __future__ import annotations

import contextlib
import struct
from io import BytesIO

import pydicom
import pytest
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage

from dicomnode.network.command import C_STORE_REQUEST, Command, decode, encode_response
from dicomnode.network.wire import PeerError
from tests.receivers import numbers, store_command

REQUEST = Command(
    kind=C_STORE_REQUEST, message_id=65535, sop_class_uid=CTImageStorage, sop_uid="1.2.3", has_dataset=True
)


def by_pydicom(**elements: object) -> bytes:
    dataset = pydicom.Dataset()
    for keyword, content in elements.items():
        setattr(dataset, keyword, content)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def test_a_request_is_read_as_pydicom_wrote_it():
    data = by_pydicom(
        CommandGroupLength=100, AffectedSOPClassUID=CTImageStorage, CommandField=1, MessageID=65535, Priority=2,
        CommandDataSetType=1, AffectedSOPInstanceUID="1.2.3", MoveOriginatorApplicationEntityTitle="PACS",
    )  # fmt: skip
    assert decode(data) == REQUEST


@pytest.mark.parametrize("comment", ["", "odd", "even", "x" * 200, "Käse"])
def test_pydicom_reads_the_response(comment):
    read = read_dataset(BytesIO(encode_response(REQUEST, 0xA700, comment)), is_implicit_VR=True, is_little_endian=True)
    assert read.CommandField == 0x8001
    assert (read.MessageIDBeingRespondedTo, read.Status, read.CommandDataSetType) == (65535, 0xA700, 0x0101)
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == (CTImageStorage, "1.2.3")
    assert read.get("ErrorComment", "") == comment[:64].encode("ascii", "replace").decode()
    assert read.CommandGroupLength == len(encode_response(REQUEST, 0xA700, comment)) - 12


def test_what_the_request_does_not_name_is_not_in_the_response():
    request = decode(numbers(kind=0x0030, message_id=1, dataset=0x0101))
    assert not request.has_dataset
    read = read_dataset(BytesIO(encode_response(request, 0)), is_implicit_VR=True, is_little_endian=True)
    assert "AffectedSOPClassUID" not in read
    assert "AffectedSOPInstanceUID" not in read


@pytest.mark.parametrize("keyword", ["CommandField", "MessageID", "CommandDataSetType"])
def test_a_command_without_what_every_command_has_is_refused(keyword):
    elements = {"CommandField": 1, "MessageID": 1, "CommandDataSetType": 1}
    del elements[keyword]
    with pytest.raises(PeerError, match="malformed"):
        decode(by_pydicom(**elements))


def test_a_command_that_is_cut_is_refused_or_lacks_its_last_element():
    whole = store_command()
    assert decode(whole).sop_uid == "1.2.3"
    for length in range(len(whole)):
        with contextlib.suppress(PeerError):
            assert decode(whole[:length]).sop_uid == ""


@pytest.mark.parametrize(
    "data",
    [
        numbers(kind=1, message_id=1) + struct.pack("<HHL", 0, 0x0800, 4) + bytes(4),
        numbers(kind=1, message_id=1, dataset=1) + struct.pack("<HHL", 0, 0x1000, 2) + b"\xff\xff",
        numbers(kind=1, message_id=1, dataset=1) + struct.pack("<HHL", 8, 0x18, 0),
        numbers(kind=1, message_id=1, dataset=1) + struct.pack("<HHL", 0, 0x1000, 0xFFFFFFFF),
    ],
    ids=["number of four bytes", "UID that is no ASCII", "another group", "undefined length"],
)
def test_a_command_of_odd_values_is_refused(data):
    with pytest.raises(PeerError, match="malformed"):
        decode(data)
