"""C-ECHO to peers that answer, and to those that do not: always a time or one readable reason."""

from __future__ import annotations

import threading

import pytest
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from dicomnode.errors import Transient
from dicomnode.network import send
from dicomnode.network.echo import echo
from tests.peers import mute, nobody, peer
from tests.receivers import soon

VERIFICATION = [build_context(Verification)]


def test_a_peer_that_answers_is_timed():
    with peer(VERIFICATION, known=["US"]) as address:
        assert 0 < echo(address, calling_ae="US") < 60


def test_a_peer_that_does_not_know_us_is_quoted():
    with peer(VERIFICATION, known=["SOMEONE"]) as address, pytest.raises(Transient, match="Calling AE title not recog"):
        echo(address, calling_ae="US")


def test_a_rejection_that_comes_before_pynetdicom_waits_for_it_is_quoted_all_the_same(monkeypatch):
    def associate(ae: AE, *arguments, evt_handlers, **options):
        late = (evt.EVT_REQUESTED, lambda event: soon("the answer", lambda: event.assoc.dul.socket.socket is None))
        return unhurried(ae, *arguments, evt_handlers=[*evt_handlers, late], **options)

    unhurried = AE.associate
    monkeypatch.setattr(AE, "associate", associate)
    with peer(VERIFICATION, known=["SOMEONE"]) as address, pytest.raises(Transient, match="Calling AE title not recog"):
        echo(address, calling_ae="US")


def test_a_peer_without_verification_is_named_as_such():
    with peer([build_context(CTImageStorage)]) as address, pytest.raises(Transient, match="none of the SOP classes"):
        echo(address, calling_ae="US")


def test_nobody_on_the_port_is_said():
    with nobody() as address, pytest.raises(Transient, match="does not answer.*host, port and firewall"):
        echo(address, calling_ae="US")


def test_a_name_that_does_not_resolve_is_said():
    address = send.Address(ae_title="PEER", host="no-such-host.invalid", port=104)
    with pytest.raises(Transient, match="no-such-host.invalid.*check the host name"):
        echo(address, calling_ae="US")


def test_a_peer_that_takes_the_connection_and_stays_mute_is_given_up(monkeypatch):
    monkeypatch.setattr(send, "ASSOCIATE_SECONDS", 0.3)
    with mute() as address, pytest.raises(Transient, match="does not answer"):
        echo(address, calling_ae="US")


@pytest.mark.parametrize("handler", [lambda event: event.assoc.abort() or 0x0000, lambda event: 0x0122])
def test_a_peer_that_accepts_and_then_aborts_or_refuses_is_an_error(handler):
    with peer(VERIFICATION, {evt.EVT_C_ECHO: handler}) as address, pytest.raises(Transient, match="did not answer"):
        echo(address, calling_ae="US")


def test_a_peer_that_aborts_between_its_acceptance_and_our_request_is_an_error(monkeypatch):
    def aborts(event: evt.Event) -> None:
        connected.wait(10)
        event.assoc.abort()

    def connect_and_wait(*arguments, **options):
        association = send.connect(*arguments, **options)
        connected.set()
        soon("the abort", lambda: not association.is_established)
        return association

    connected = threading.Event()
    monkeypatch.setattr("dicomnode.network.echo.connect", connect_and_wait)
    with peer(VERIFICATION, {evt.EVT_ESTABLISHED: aborts}) as address, pytest.raises(Transient, match="broke off"):
        echo(address, calling_ae="US")
