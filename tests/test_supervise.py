"""A node does not start with a wrong model; at its end all processes share one time, and what is left is killed."""

from __future__ import annotations

import logging
import signal

import pytest

from dicomnode import supervise
from dicomnode.config import Config, Receive, Web
from inference.weights import UntrustedWeights
from tests.integration.programs import free_port
from tests.models import NAME, write_config


class Clock:
    """A time that passes only for those who wait."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Child:
    """A process that ends by itself so many seconds after it was asked, or when it is killed."""

    def __init__(self, name: str, clock: Clock, *, seconds: float) -> None:
        self.name, self._clock, self._seconds = name, clock, seconds
        self._ends: float | None = None
        self.killed = False

    @property
    def exitcode(self) -> int | None:
        if self.killed:
            return -signal.SIGKILL
        return 0 if self._ends is not None and self._clock.now >= self._ends else None

    def terminate(self) -> None:
        self._ends = self._clock.now + self._seconds

    def kill(self) -> None:
        self.killed = True

    def join(self, timeout: float | None = None) -> None:
        assert self._ends is not None
        if not self.killed:
            self._clock.now = max(self._clock.now, min(self._ends, self._clock.now + timeout))


@pytest.mark.fault(2, "d")
def test_all_processes_share_one_time_to_end_and_only_what_is_left_then_is_killed(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(supervise, "time", clock)
    seconds = {"receiver": 5.0, "stuck-1": 1e9, "late": 7.9, "stuck-2": 1e9, "web": 0.0}
    children = [Child(name, clock, seconds=takes) for name, takes in seconds.items()]
    with caplog.at_level(logging.WARNING):
        supervise._stop(children)
    assert {child.name: child.exitcode for child in children} == {
        "receiver": 0, "stuck-1": -9, "late": 0, "stuck-2": -9, "web": 0
    }  # fmt: skip
    assert clock.now - 1000.0 == supervise.STOP_SECONDS == 8.0
    assert [record.name_ for record in caplog.records] == ["stuck-1", "stuck-2"]


@pytest.mark.fault(23, "s")
def test_a_node_does_not_start_with_a_model_that_is_not_the_pinned_one(tmp_path, monkeypatch):
    config_dir = write_config(tmp_path / "config")
    monkeypatch.setattr(supervise, "CONFIG_DIR", config_dir)
    monkeypatch.setattr(supervise, "_start", lambda *_: pytest.fail("a process was started"))
    path = config_dir / "models" / NAME / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    config = Config(data_dir=tmp_path / "data", receive=Receive(host="127.0.0.1", port=free_port()), web=Web(port=0))
    with pytest.raises(UntrustedWeights, match=r"weights\.safetensors: expected SHA-256 \w+, found \w+; restore"):
        supervise.serve(config)
