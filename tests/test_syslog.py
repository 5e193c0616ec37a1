"""The way of the audit trail to its repository: every message, in order, over TLS, also after it was away."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode import audit, audit_message
from dicomnode.audit import Trail
from dicomnode.config import Audit, Config, Tls
from dicomnode.doctor import _repository
from dicomnode.errors import NodeError
from dicomnode.network import syslog
from dicomnode.network.syslog import Forwarder
from tests.certificates import Identity, authority, identity
from tests.repository import Repository
from tests.test_audit import lines, result


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Identity:
    return identity(authority(tmp_path_factory.mktemp("certificates")), "node")


def forwarding(folder: Path, ours: Identity, port: int) -> Config:
    files = Tls(certificate=ours.certificate, key=ours.key, authorities=ours.authorities)
    return Config(data_dir=folder, tls=files, audit=Audit(host="127.0.0.1", port=port))


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_every_message_reaches_the_repository_once_also_when_it_was_away(tmp_path, ours, caplog, says_goodbye):
    caplog.set_level("INFO")
    repository = Repository(ours, says_goodbye=says_goodbye)
    config = forwarding(tmp_path, ours, repository.port)
    it = Trail(config)
    it.application(audit_message.START)
    Forwarder(config).run()
    assert repository.messages == lines(tmp_path)
    repository.stop()
    it.analysed([result(tmp_path / "in")], "")
    away = Forwarder(config)
    away.run()
    away.run()
    assert [r.message for r in caplog.records] == ["the audit repository is away, messages wait"]
    it.application(audit_message.STOP)
    back = Repository(ours, repository.port, says_goodbye=says_goodbye)
    away.run()
    Forwarder(config).run()  # another process after a restart finds nothing to do
    back.stop()
    assert repository.messages + back.messages == lines(tmp_path)
    assert caplog.records[-1].message == "the audit repository is back"


def test_a_repository_that_dies_before_it_has_read_gets_the_batch_again(tmp_path, ours, monkeypatch):
    monkeypatch.setattr(Repository, "_read", lambda self, peer: peer.recv(1))  # and closes on the rest
    deaf = Repository(ours, says_goodbye=False)
    config = forwarding(tmp_path, ours, deaf.port)
    for _ in range(200):
        Trail(config).application(audit_message.START)
    forwarder = Forwarder(config)
    forwarder.run()
    deaf.stop()
    monkeypatch.undo()
    whole = Repository(ours, deaf.port)
    forwarder.run()
    whole.stop()
    assert whole.messages == lines(tmp_path)


def test_a_repository_of_another_authority_gets_nothing(tmp_path, ours, caplog):
    stranger = Repository(identity(authority(tmp_path, "other"), "stranger"))
    config = forwarding(tmp_path, ours, stranger.port)
    Trail(config).application(audit_message.START)
    Forwarder(config).run()
    stranger.stop()
    assert stranger.messages == []
    assert "certificate verify failed" in caplog.records[0].why


def test_messages_go_out_in_batches_over_several_files(tmp_path, ours, monkeypatch):
    monkeypatch.setattr(syslog, "BATCH_BYTES", 3000)
    monkeypatch.setattr(audit, "FILE_BYTES", 5000)
    repository = Repository(ours)
    config = forwarding(tmp_path, ours, repository.port)
    for _ in range(12):
        Trail(config).application(audit_message.START)
    Forwarder(config).run()
    repository.stop()
    assert repository.messages == lines(tmp_path)
    assert len(repository.messages) == 12


@pytest.mark.parametrize("table", [{"audit": {"host": "h"}}, {"audit": {"host": "h", "enabled": False}}])
def test_a_repository_without_certificates_or_trail_is_a_mistake(table):
    with pytest.raises(ValueError, match=r"audit.host needs"):
        Config(**table)


def test_doctor_says_whether_the_repository_is_there(tmp_path, ours):
    repository = Repository(ours)
    config = forwarding(tmp_path, ours, repository.port)
    assert "accepts TLS connections" in _repository(config)
    repository.stop()
    with pytest.raises(NodeError, match="Connection refused"):
        _repository(config)
