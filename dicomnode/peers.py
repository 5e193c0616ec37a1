"""Where peers listen, and how the node speaks with them. All raise ConfigError for TLS files that cannot be used."""

from __future__ import annotations

import ssl

from dicomnode.config import Config, Destination, Sender, Tls
from dicomnode.network import tls
from dicomnode.network.send import Address


def destination_address(config: Config, peer: Destination) -> Address:
    """Where a destination listens."""
    secured = tls.client(_files(config)) if peer.tls else None
    return Address(ae_title=peer.ae_title, host=peer.host, port=peer.port, tls=secured)


def sender_address(config: Config, peer: Sender) -> Address | None:
    """Where a sender answers queries; None for one that does not."""
    if peer.host is None or peer.port is None:
        return None
    secured = tls.client(_files(config)) if peer.tls else None
    return Address(ae_title=peer.ae_title, host=peer.host, port=peer.port, tls=secured)


#: Where a listener on all addresses is reached from this machine.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


def own_address(config: Config) -> Address:
    """Where this node is reached from this machine, whatever name its certificate has."""
    secured = tls.client(_files(config), any_name=True) if config.receive.tls else None
    return Address(ae_title=config.receive.ae_title, host=own_host(config), port=config.receive.port, tls=secured)


def own_host(config: Config) -> str:
    """The host at which the receiver hears this machine."""
    return _LOOPBACK.get(config.receive.host, config.receive.host)


def listener_tls(config: Config) -> ssl.SSLContext | None:
    """How the receiver speaks with senders; None for plain TCP."""
    return tls.server(_files(config)) if config.receive.tls else None


def repository_tls(config: Config) -> ssl.SSLContext:
    """How the audit repository is spoken with."""
    return tls.client(_files(config))


def _files(config: Config) -> Tls:
    if config.tls is None:  # the configuration refuses that
        raise ValueError("tls = true without the table [tls]")
    return config.tls
