"""Every test sees pydicom as the node sets it up: lenient with what it reads (dicomnode/header.py)."""

import pytest
from hypothesis import HealthCheck, settings

import dicomnode.header  # noqa: F401 - for its setting
from scripts import fault_table
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


def pytest_terminal_summary(terminalreporter):
    """Say what docs/faults.md promises and this machine could not show."""
    names = {
        kind: {r.nodeid.partition("[")[0] for r in terminalreporter.getreports(kind)} for kind in ("passed", "skipped")
    }
    for cell in fault_table.unproven(fault_table.proofs(), **names):
        terminalreporter.write_line(f"NOT PROVEN HERE: {cell}")
