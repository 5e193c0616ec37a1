"""The node's own clock: it starts at the time of day and goes on evenly when somebody sets the time of day.

Waits and leases in the ledger are times of this clock, which all processes of a node share by their environment. What
people read in a history, and the dates of log lines, are the time of day.
"""

from __future__ import annotations

import os
import time

_START = float(os.environ.setdefault("DICOMNODE_CLOCK", repr(time.time() - time.monotonic())))


def now() -> float:
    """Seconds since 1970, by this clock."""
    return _START + time.monotonic()
