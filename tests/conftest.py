"""Every test sees pydicom as the node sets it up: lenient with what it reads (dicomnode/header.py)."""

import pytest
from hypothesis import HealthCheck, settings

import dicomnode.header  # noqa: F401 - for its setting
from tests.receivers import Running

# Hypothesis: the same examples in every run of the suite; `scripts/fuzz` searches on, and keeps what it finds.
_USUAL = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("suite", derandomize=True, database=None, max_examples=100, **_USUAL)
settings.register_profile("search", max_examples=2000, print_blob=True, **_USUAL)
settings.load_profile("suite")


@pytest.fixture
def receiver(tmp_path):
    running = Running(tmp_path / "data")
    yield running
    assert running.still_works(), "whatever the test sent, the next association is served"
    running.listener.stop()
