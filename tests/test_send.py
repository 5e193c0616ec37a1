"""C-STORE to foreign peers: what arrives, and what is said about what does not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
)
from pynetdicom import AllStoragePresentationContexts, build_context, evt

from dicomnode.doctor import encode_sample
from dicomnode.errors import Transient
from dicomnode.network import send as sending
from dicomnode.network.send import Outcome, send
from tests.peers import mute, nobody, peer
from tests.receivers import ct_file

CT = [build_context(CTImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]


def files(folder: Path, count: int = 3, **changes: Any) -> list[Path]:
    return [ct_file(folder, sop_uid=f"1.2.3.{n}", **changes) for n in range(count)]


def answering(status: Callable[[str], int]) -> dict[evt.EventType, Callable[[evt.Event], int]]:
    """Answer each instance by its UID."""
    return {evt.EVT_C_STORE: lambda event: status(event.request.AffectedSOPInstanceUID)}


def test_files_arrive_in_their_order_and_progress_is_told_after_each(tmp_path):
    arrived: list[str] = []
    told: list[Outcome] = []

    def take(event: evt.Event) -> int:
        assert len(told) == len(arrived)
        arrived.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    paths = files(tmp_path)[::-1]
    with peer(CT, {evt.EVT_C_STORE: take}) as address:
        outcomes = send(paths, address, calling_ae="US", progress=told.append)
    assert arrived == ["1.2.3.2", "1.2.3.1", "1.2.3.0"] == [outcome.sop_uid for outcome in outcomes]
    assert [outcome.path for outcome in outcomes] == paths
    assert told == outcomes
    assert not any(outcome.problem for outcome in outcomes)


@pytest.mark.parametrize(
    ("status", "problem", "transient"),
    [
        (0x0000, "", False),
        (0xB000, "", False),  # stored, with elements coerced
        (0xB007, "", False),
        (0xA700, "refused with status A700", True),
        (0xA702, "refused with status A702", True),
        (0xA900, "refused with status A900", False),
        (0xC001, "refused with status C001", False),
        (0x0122, "refused with status 0122", False),
    ],
)
@pytest.mark.fault(10, "f")
def test_a_status_decides_whether_the_peer_has_the_file_and_whether_to_try_again(tmp_path, status, problem, transient):
    with peer(CT, answering(lambda _uid: status)) as address:
        [outcome] = send(files(tmp_path, 1), address, calling_ae="US")
    assert (outcome.problem, outcome.transient) == (problem, transient)


def test_a_file_that_is_refused_does_not_stop_the_others_and_the_peers_comment_is_kept(tmp_path):
    def answer(event: evt.Event) -> int | pydicom.Dataset:
        if event.request.AffectedSOPInstanceUID != "1.2.3.1":
            return 0x0000
        status = pydicom.Dataset()
        status.Status, status.ErrorComment = 0xC123, "no such patient"
        return status

    with peer(CT, {evt.EVT_C_STORE: answer}) as address:
        outcomes = send(files(tmp_path), address, calling_ae="US")
    assert [outcome.problem for outcome in outcomes] == ["", "refused with status C123", ""]
    assert [outcome.comment for outcome in outcomes] == ["", "no such patient", ""]


def test_a_class_that_the_peer_does_not_take_is_named_and_the_others_arrive(tmp_path):
    paths = [*files(tmp_path, 2), ct_file(tmp_path, sop_uid="1.2.4", SOPClassUID=MRImageStorage)]
    with peer(CT, answering(lambda _uid: 0x0000)) as address:
        outcomes = send(paths, address, calling_ae="US")
    assert [outcome.problem for outcome in outcomes] == ["", "", "PEER does not accept MR Image Storage"]


@pytest.mark.parametrize("taken", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("stored", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_an_uncompressed_image_travels_in_the_little_endian_syntax_that_the_peer_takes(tmp_path, stored, taken):
    received: list[pydicom.Dataset] = []

    def take(event: evt.Event) -> int:
        received.append(event.dataset)
        received[-1].file_meta = event.file_meta
        return 0x0000

    path = ct_file(tmp_path)
    original = pydicom.dcmread(path)
    original.file_meta.TransferSyntaxUID = stored
    original.save_as(path, implicit_vr=stored == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=True)
    with peer([build_context(CTImageStorage, taken)], {evt.EVT_C_STORE: take}) as address:
        [outcome] = send([path], address, calling_ae="US")
    assert not outcome.problem
    [arrived] = received
    assert arrived.file_meta.TransferSyntaxUID == taken
    assert (arrived.pixel_array == original.pixel_array).all()
    assert arrived.PatientName == original.PatientName


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, ExplicitVRBigEndian])
def test_what_cannot_be_rewritten_travels_as_it_is_or_not_at_all(tmp_path, syntax):
    path, _ = encode_sample(syntax, tmp_path)
    with peer([build_context(CTImageStorage, syntax)], answering(lambda _uid: 0x0000)) as address:
        assert [outcome.problem for outcome in send([path], address, calling_ae="US")] == [""]
    with peer(CT) as address, pytest.raises(Transient, match="accepts none of the SOP classes"):
        send([path], address, calling_ae="US")


def test_more_kinds_of_files_than_one_association_can_carry_all_arrive(tmp_path):
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts][: sending.MAX_CONTEXTS + 5]
    paths = [ct_file(tmp_path, sop_uid=f"1.2.3.{n}", SOPClassUID=name) for n, name in enumerate(classes)]
    associations: set[int] = set()

    def take(event: evt.Event) -> int:
        associations.add(id(event.assoc))
        return 0x0000

    contexts = [build_context(name) for name in classes]
    with peer(contexts, {evt.EVT_C_STORE: take}) as address:
        outcomes = send(paths, address, calling_ae="US")
    assert [outcome.problem for outcome in outcomes] == [""] * len(classes)
    assert len(associations) == 2


@pytest.mark.fault(10, "f")
def test_a_peer_that_breaks_off_makes_the_whole_sending_an_error_that_may_pass(tmp_path):
    def leave(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == "1.2.3.1":
            event.assoc.abort()
        return 0x0000

    told: list[Outcome] = []
    with peer(CT, {evt.EVT_C_STORE: leave}) as address, pytest.raises(Transient):
        send(files(tmp_path), address, calling_ae="US", progress=told.append)
    assert [outcome.sop_uid for outcome in told] == ["1.2.3.0"]


@pytest.mark.parametrize(("somebody", "message"), [(nobody, "host, port and firewall"), (mute, "does not answer")])
@pytest.mark.fault(10, "e")
def test_a_peer_that_is_not_there_is_an_error_that_may_pass(tmp_path, monkeypatch, somebody, message):
    monkeypatch.setattr(sending, "ASSOCIATE_SECONDS", 0.3)
    with somebody() as address, pytest.raises(Transient, match=message):
        send(files(tmp_path, 1), address, calling_ae="US")


@pytest.mark.fault(10, "f")
@pytest.mark.fault(11, "f")
def test_a_peer_that_never_answers_a_store_request_is_given_up(tmp_path, monkeypatch):
    given_up = threading.Event()
    monkeypatch.setattr(sending, "REPLY_SECONDS", 0.3)

    def wait(_event: evt.Event) -> int:
        given_up.wait(20)
        return 0x0000

    with peer(CT, {evt.EVT_C_STORE: wait}) as address:
        with pytest.raises(Transient, match="did not answer"):
            send(files(tmp_path, 1), address, calling_ae="US")
        given_up.set()


def test_an_answer_that_pynetdicoms_own_thread_took_first_is_put_back():
    with peer(CT, answering(lambda _uid: 0x0000)) as address:
        association = sending.connect(address, CT, calling_ae="US")
        association._serve_request("answer", 1)
        assert association.dimse.get_msg(block=True) == (1, "answer")
        association.release()


@pytest.mark.parametrize("content", [b"", b"a letter about the patient", bytes(128) + b"DICM"])
def test_a_file_that_is_no_dicom_is_named_and_the_others_arrive(tmp_path, content):
    letter = tmp_path / "letter.txt"
    letter.write_bytes(content)
    first, second = files(tmp_path / "in", 2)
    with peer(CT, answering(lambda _uid: 0x0000)) as address:
        outcomes = send([first, letter, second], address, calling_ae="US")
    assert [outcome.path for outcome in outcomes] == [first, letter, second]
    assert [bool(outcome.problem) for outcome in outcomes] == [False, True, False]
    assert not outcomes[1].transient
    assert not send([], address, calling_ae="US")
