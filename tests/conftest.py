"""Every test sees pydicom as the node sets it up: lenient with what it reads (dicomnode/header.py)."""

import pytest

import dicomnode.header  # noqa: F401 - for its setting
from tests.receivers import Running


@pytest.fixture
def receiver(tmp_path):
    running = Running(tmp_path / "data")
    yield running
    assert running.still_works(), "whatever the test sent, the next association is served"
    running.listener.stop()
