"""C-FIND for a sender's own count: proof if it is clear, no statement if it is not, never the study's end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pynetdicom import build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRoot
from pynetdicom.sop_class import Verification

from dicomnode.errors import Transient
from dicomnode.network import send
from dicomnode.network.find import count_instances
from tests.peers import mute, nobody, peer
from tests.receivers import soon

FIND = [build_context(StudyRoot)]
Answer = tuple[int, pydicom.Dataset | None]


def series(uid: str, count: object = None) -> pydicom.Dataset:
    """A match at series level; a count that is None is left out, and may be what no count should be."""
    match = pydicom.Dataset()
    match.QueryRetrieveLevel, match.StudyInstanceUID, match.SeriesInstanceUID = "SERIES", "1.2", uid
    if count is not None:
        tag, text = Tag("NumberOfSeriesRelatedInstances"), str(count).encode()
        text += b" " * (len(text) % 2)
        match[tag] = RawDataElement(tag, "IS", len(text), text, 0, is_implicit_VR=False, is_little_endian=True)
    return match


def asked(answers: Sequence[Answer], *, without: Sequence[str] = (), queries: list[Any] | None = None) -> int | None:
    """The count that a peer with these answers leads to."""

    def handle(event: evt.Event) -> Iterator[Answer]:
        if queries is not None:
            queries.append(event.identifier)
        yield from answers

    with peer(FIND, {evt.EVT_C_FIND: handle}) as address:
        return count_instances(address, "1.2", calling_ae="US", without=without)


def test_the_counts_of_all_series_are_added():
    assert asked([(0xFF00, series("1.2.1", 30)), (0xFF01, series("1.2.2", 12))]) == 42


def test_the_query_asks_for_the_study_at_series_level():
    queries: list[pydicom.Dataset] = []
    asked([], queries=queries)
    [query] = queries
    assert (query.QueryRetrieveLevel, query.StudyInstanceUID) == ("SERIES", "1.2")
    assert {"SeriesInstanceUID", "NumberOfSeriesRelatedInstances"} <= set(query.dir())


def test_series_that_the_node_made_itself_do_not_count():
    answers = [(0xFF00, series("1.2.1", 30)), (0xFF00, series("2.25.7", 1))]
    assert asked(answers, without=["2.25.7"]) == 30
    assert asked(answers, without=["1.2.1", "2.25.7"]) is None


@pytest.mark.parametrize("count", [None, "", "many", "-3"])
def test_a_series_without_a_usable_count_makes_the_sum_worthless(count):
    assert asked([(0xFF00, series("1.2.1", 30)), (0xFF00, series("1.2.2", count))]) is None


def test_a_study_that_the_peer_does_not_know_has_no_count():
    assert asked([]) is None


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0xFE00])
def test_a_query_that_fails_half_way_is_no_count(status):
    with pytest.raises(Transient, match=f"{status:04X}"):
        asked([(0xFF00, series("1.2.1", 30)), (status, None)])


def test_a_peer_that_breaks_off_inside_its_answers_is_no_count():
    def handle(event: evt.Event) -> Iterator[Answer]:
        yield 0xFF00, series("1.2.1", 30)
        event.assoc.abort()
        yield 0xFF00, series("1.2.2", 30)

    with peer(FIND, {evt.EVT_C_FIND: handle}) as address, pytest.raises(Transient, match="did not answer"):
        count_instances(address, "1.2", calling_ae="US")


def test_a_peer_that_aborts_between_its_acceptance_and_our_request_is_no_count(monkeypatch):
    def aborts(event: evt.Event) -> None:
        connected.wait(10)
        event.assoc.abort()

    def connect_and_wait(*arguments, **options):
        association = send.connect(*arguments, **options)
        connected.set()
        soon("the abort", lambda: not association.is_established)
        return association

    connected = threading.Event()
    monkeypatch.setattr("dicomnode.network.find.connect", connect_and_wait)
    with peer(FIND, {evt.EVT_ESTABLISHED: aborts}) as address, pytest.raises(Transient, match="broke off"):
        count_instances(address, "1.2", calling_ae="US")


def test_a_peer_that_cannot_be_queried_is_no_count():
    with peer([build_context(Verification)]) as address, pytest.raises(Transient, match="none of the SOP classes"):
        count_instances(address, "1.2", calling_ae="US")
    with nobody() as address, pytest.raises(Transient, match="does not answer"):
        count_instances(address, "1.2", calling_ae="US")


def test_a_mute_peer_is_given_up(monkeypatch):
    monkeypatch.setattr(send, "ASSOCIATE_SECONDS", 0.3)
    with mute() as address, pytest.raises(Transient, match="does not answer"):
        count_instances(address, "1.2", calling_ae="US")


def test_a_peer_that_takes_the_query_and_says_nothing_more_is_given_up(monkeypatch):
    def handle(event: evt.Event) -> Iterator[Answer]:
        asked.wait(20)
        yield 0xFF00, series("1.2.1", 30)

    asked = threading.Event()
    monkeypatch.setattr("dicomnode.network.find.REPLY_SECONDS", 0.3)
    with peer(FIND, {evt.EVT_C_FIND: handle}) as address:
        with pytest.raises(Transient, match="did not answer"):
            count_instances(address, "1.2", calling_ae="US")
        asked.set()
