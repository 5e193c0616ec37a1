"""TLS with certificates on both sides: who has none that we know is not heard, and nothing goes out in the clear."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import build_context

from dicomnode.config import Config, Receive, Tls
from dicomnode.errors import ConfigError, Transient
from dicomnode.network import tls, wire
from dicomnode.network.echo import echo
from dicomnode.network.send import Address, connect, send
from dicomnode.peers import destination_address, listener_tls, own_address, sender_address
from tests.certificates import Identity, authority, identity
from tests.receivers import Running, associate_request, closed_by_peer, ct_file


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def ours(ca) -> Identity:
    return identity(ca, "node")


@pytest.fixture
def receiver(tmp_path, ours):
    running = Running(tmp_path / "data", tls=(tls.server(ours), tls.client(ours)))
    yield running
    assert running.still_works(), "whatever the test sent, the next peer is served"
    running.listener.stop()


def test_an_instance_is_stored_over_tls(receiver, tmp_path):
    (outcome,) = send([ct_file(tmp_path, sop_uid="1.2.3")], receiver.address, calling_ae="TEST")
    assert outcome.problem == ""
    assert list(receiver.stored()) == ["1.2.3"]


def refused(receiver: Running, context: ssl.SSLContext) -> str:
    """Return why a peer with this context is not heard."""
    with pytest.raises(Transient) as error:
        connect(replace(receiver.address, tls=context), [build_context(CTImageStorage)], calling_ae="TEST")
    return str(error.value)


def unchecked(files: Identity | None = None) -> ssl.SSLContext:
    """Return a client that believes everyone and shows a certificate, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if files:
        context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.mark.fault(21, "a")
def test_a_peer_without_a_certificate_is_refused(receiver, caplog):
    assert "certificate required" in refused(receiver, unchecked()).lower()
    assert any("PEER_DID_NOT_RETURN_A_CERTIFICATE" in getattr(record, "why", "") for record in caplog.records)


@pytest.mark.fault(21, "a")
def test_a_peer_of_another_authority_is_refused(receiver, tmp_path):
    stranger = identity(authority(tmp_path, "other"), "stranger")
    assert "unknown ca" in refused(receiver, unchecked(stranger)).lower()


@pytest.mark.fault(21, "a")
def test_an_expired_certificate_is_refused(receiver, ca):
    assert "certificate expired" in refused(receiver, unchecked(identity(ca, "expired", days=-1))).lower()


@pytest.mark.fault(21, "a")
def test_tls_1_1_is_refused(receiver, ours):
    context = unchecked(ours)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert "protocol version" in refused(receiver, context).lower()


def test_a_cipher_without_forward_secrecy_is_refused(receiver, ours):
    context = unchecked(ours)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")
    assert "handshake failure" in refused(receiver, context).lower()


@pytest.mark.fault(21, "a")
def test_plain_dicom_is_not_answered(receiver):
    with closing(receiver.connection()) as sock:
        sock.sendall(associate_request(CTImageStorage))
        answer = b""
        with suppress(ConnectionError):
            while part := sock.recv(4096):
                answer += part
    assert not answer.startswith(b"\x02")  # A-ASSOCIATE-AC
    assert receiver.stored() == {}


@pytest.mark.fault(21, "a")
def test_silent_peers_are_cut_off_and_keep_nobody_waiting(receiver, monkeypatch):
    monkeypatch.setattr(wire, "HANDSHAKE_SECONDS", 1.0)
    silent = [receiver.connection() for _ in range(5)]
    assert receiver.still_works()
    for sock in silent:
        assert closed_by_peer(sock)
        sock.close()


@pytest.mark.fault(21, "f")
def test_a_server_of_another_authority_gets_nothing(receiver, tmp_path):
    stranger = identity(authority(tmp_path, "other"), "stranger")
    assert "certificate verify failed" in refused(receiver, tls.client(stranger))


@pytest.mark.fault(21, "f")
def test_a_server_whose_certificate_names_another_host_gets_nothing(tmp_path, ca, ours):
    elsewhere = identity(ca, "elsewhere", host="DNS:pacs.example")
    running = Running(tmp_path / "data", tls=(tls.server(elsewhere), tls.client(ours, any_name=True)))
    assert "certificate is not valid for '127.0.0.1'" in refused(running, tls.client(ours))
    assert running.still_works()
    running.listener.stop()


@pytest.mark.fault(21, "f")
def test_a_server_without_tls_gets_not_one_byte_of_dicom(ours):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            for _ in range(2):  # the association, and the question why it failed
                sock, _ = listening.accept()
                heard.append(sock.recv(4096))
                sock.sendall(b"\x02\x00")
                sock.close()

        thread = threading.Thread(target=listen)
        thread.start()
        address = Address(ae_title="PLAIN", host="127.0.0.1", port=listening.getsockname()[1], tls=tls.client(ours))
        with pytest.raises(Transient, match="no TLS connection"):
            echo(address, calling_ae="TEST")
        thread.join()
    assert [data[0] for data in heard] == [0x16, 0x16]  # a TLS handshake record, both times


@pytest.mark.parametrize("broken", ["certificate", "key", "authorities"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_files_that_cannot_be_used_are_named(ours, broken, content, tmp_path):
    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_text(content)
    for side in (tls.server, tls.client):
        with pytest.raises(
            ConfigError, match=f"tls.{'authorities' if broken == 'authorities' else 'certificate'}.*broken"
        ):
            side(replace(ours, **{broken: path}))


def test_the_configuration_says_with_whom_tls_is_spoken(ours):
    files = Tls(certificate=ours.certificate, key=ours.key, authorities=ours.authorities)
    peers = {
        "destination": [{"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5", "port": 2762, "tls": True},
                        {"name": "old", "ae_title": "OLD", "host": "10.0.0.6", "port": 104}],
        "sender": [{"ae_title": "CT", "host": "10.0.0.7", "port": 2762, "tls": True}, {"ae_title": "MR"}],
    }  # fmt: skip
    config = Config(receive=Receive(tls=True), tls=files, **peers)
    assert [destination_address(config, one).tls is not None for one in config.destination] == [True, False]
    asked, silent = (sender_address(config, one) for one in config.sender)
    assert asked.tls.check_hostname
    assert silent is None
    assert listener_tls(config).verify_mode == ssl.CERT_REQUIRED
    assert not own_address(config).tls.check_hostname
    assert listener_tls(Config()) is own_address(Config()).tls is None


@pytest.mark.parametrize(
    "table",
    [
        {"receive": {"tls": True}},
        {"sender": [{"ae_title": "CT", "tls": True}]},
        {"destination": [{"name": "p", "ae_title": "P", "host": "h", "port": 1, "tls": True}]},
    ],
)
def test_tls_without_certificates_is_refused(table):
    with pytest.raises(ValueError, match=r"needs the table \[tls\]"):
        Config(**table)
