"""Many peers at once, an exhausted machine, a stop: who is served, who is told to come back, who is cut off."""

from __future__ import annotations

import resource
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom.sop_class import CTImageStorage, Verification

from dicomnode.config import Limits
from dicomnode.errors import ConfigError, Transient
from dicomnode.network import listen
from dicomnode.network.echo import echo
from dicomnode.network.listen import TRANSFER_SYNTAXES, Listener, storage_contexts
from dicomnode.network.send import Address
from tests.receivers import (
    Running,
    associate_request,
    closed_by_peer,
    ct_bytes,
    pdata,
    soon,
    status_of,
    store_command,
    value,
)

RELEASE = struct.pack(">BBL4x", 0x05, 0, 4)


class Everyone:
    """An acceptor that lets everyone in and counts how associations end."""

    def __init__(self) -> None:
        self.endings: list[str] = []

    def admit(self, peer) -> None:
        pass

    def ended(self, peer, ending: str) -> None:
        self.endings.append(ending)


@pytest.fixture
def many_files():
    """Both ends of all connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_storage_is_offered_in_every_syntax_that_can_be_decoded_and_never_deflated():
    verification, *storage = storage_contexts()
    assert verification.abstract_syntax == Verification
    assert len(TRANSFER_SYNTAXES) == 12
    assert len(storage) > 150
    for context in storage:
        assert tuple(context.transfer_syntax) == TRANSFER_SYNTAXES
        assert DeflatedExplicitVRLittleEndian not in context.transfer_syntax


@pytest.mark.fault(17, "a")
def test_500_associations_at_once_are_each_served_or_told_to_come_back(tmp_path, many_files):
    running = Running(tmp_path / "data")
    gate = threading.Barrier(500)

    def one(_number: int) -> str:
        with closing(running.connection()) as sock:
            gate.wait(30)
            sock.sendall(associate_request(Verification))
            answer = sock.recv(65536)
            gate.wait(30)  # nobody leaves before everybody has an answer
        return {0x02: "served", 0x03: "rejected"}[answer[0]] + str(answer[9] if answer[0] == 0x03 else "")

    with ThreadPoolExecutor(500) as peers:
        answers = list(peers.map(one, range(500)))
    assert answers.count("served") == Limits().associations
    assert answers.count("rejected2") == 500 - Limits().associations  # reason 2: local limit exceeded
    soon("a free place", lambda: answers_echo(running))
    running.listener.stop()


def answers_echo(running: Running) -> bool:
    try:
        return running.still_works()
    except Transient:
        return False


@pytest.mark.fault(17, "a")
def test_connections_beyond_the_limit_are_closed_at_once_and_those_inside_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "TURNED_AWAY", 3)
    running = Running(tmp_path / "data", limits=Limits(associations=2))
    with ExitStack() as stack:
        served = running.associated(Verification)
        stack.callback(served.close)
        silent = [stack.enter_context(closing(running.connection())) for _ in range(4)]
        for sock in silent[:3]:
            sock.sendall(b"\x01")  # the limit is known to be reached once these are seen
        with closing(running.connection()) as sock:
            assert closed_by_peer(sock)
        served.sendall(RELEASE)
        assert served.recv(100)[0] == 0x06
    soon("a free place", lambda: answers_echo(running))
    running.listener.stop()


def test_a_machine_that_has_no_thread_left_costs_one_connection_not_the_listener(tmp_path, monkeypatch):
    running = Running(tmp_path / "data")
    start = threading.Thread.start

    def exhausted(thread: threading.Thread) -> None:
        if "_serve" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        with closing(running.connection()) as sock:
            assert closed_by_peer(sock)
    assert running.still_works()
    running.listener.stop()


def test_a_machine_that_has_no_descriptor_left_serves_again_once_there_are_some(tmp_path, monkeypatch):
    class Exhausted:
        """A listening socket that fails twice, as accept() does at the limit of open files."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock, self.failures = sock, 2

        def accept(self):
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return self._sock.accept()

        def __getattr__(self, name: str):
            return getattr(self._sock, name)

    create = socket.create_server
    monkeypatch.setattr(listen.socket, "create_server", lambda *a, **k: Exhausted(create(*a, **k)))
    running = Running(tmp_path / "data")
    assert running.still_works()
    assert running.listener._socket.failures == 0
    running.listener.stop()


def test_an_error_of_ours_ends_one_association_and_is_logged_without_patient_data(tmp_path, caplog):
    class Broken(Everyone):
        def store(self, peer, request):
            raise KeyError("a bug")

    acceptor = Broken()
    listener = Listener(acceptor, host="127.0.0.1", port=0)
    data = ct_bytes(tmp_path, PatientName="SECRET^NAME")
    with closing(socket.create_connection(("127.0.0.1", listener.port), timeout=10)) as sock:
        sock.sendall(associate_request(CTImageStorage))
        assert sock.recv(65536)[0] == 0x02
        sock.sendall(pdata(value(store_command()), value(data, control=0x02)))
        assert closed_by_peer(sock)
    assert echo(Address(ae_title="X", host="127.0.0.1", port=listener.port), calling_ae="US") > 0
    listener.stop()
    assert acceptor.endings[0] == "lost"
    assert "association ended by an internal error" in caplog.text
    assert "SECRET" not in caplog.text


def test_a_port_that_is_taken_or_forbidden_is_named(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            Listener(Everyone(), host="127.0.0.1", port=port)
    with pytest.raises(ConfigError, match="cannot listen on 192.0.2.1:"):
        Listener(Everyone(), host="192.0.2.1", port=0)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_it_listens_on_an_address_of_ipv6(tmp_path):
    try:
        listener = Listener(Everyone(), host="::1", port=0)
    except ConfigError:
        pytest.skip("this machine has no IPv6 loopback address")
    assert echo(Address(ae_title="X", host="::1", port=listener.port), calling_ae="US") > 0
    listener.stop()


@pytest.mark.fault(2, "a")
def test_a_stop_cuts_idle_associations_at_once_and_a_stuck_one_after_the_grace_period(tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "DRAIN_SECONDS", 0.3)
    running = Running(tmp_path / "data")
    with closing(running.associated()) as idle, closing(running.associated()) as stuck:
        stuck.sendall(pdata(value(store_command())) + pdata(value(b"half", control=0x00)))
        soon("the begun image", lambda: list(running.spool.incoming.iterdir()))
        running.listener.stop()
        assert closed_by_peer(idle)
        assert closed_by_peer(stuck)
    soon("the sweep of the begun image", lambda: not list(running.spool.incoming.iterdir()))
    assert running.stored() == {}


def test_a_stop_answers_the_message_at_hand_and_takes_no_other_of_that_association(tmp_path):
    running = Running(tmp_path / "data")
    first, second = (ct_bytes(tmp_path / uid, sop_uid=uid) for uid in ("1.2.3.1", "1.2.3.2"))
    with closing(running.associated()) as sock:
        sock.sendall(pdata(value(store_command(sop_uid="1.2.3.1"))) + pdata(value(first[:900], control=0x00)))
        soon("the begun image", lambda: list(running.spool.incoming.iterdir()))
        stopping = threading.Thread(target=running.listener.stop)
        stopping.start()
        soon("the word to end", lambda: all(c.draining for c in running.listener._connections))
        sock.sendall(pdata(value(first[900:], control=0x02)))
        assert status_of(sock.recv(65536)) == 0x0000
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(pdata(value(store_command(sop_uid="1.2.3.2")), value(second, control=0x02)))
            assert closed_by_peer(sock)
        stopping.join(20)
    assert list(running.stored()) == ["1.2.3.1"]
