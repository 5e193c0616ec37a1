"""Test-only faults: DICOMNODE_FAULT=point:action[:value] makes the node stumble at a named point.

Points: inference, writing, committing, sending, sent. Actions: sleep (value in seconds, default 30), raise, exit, hang.
Inert unless the variable is set when the process starts.
"""

from __future__ import annotations

import logging
import os
import time

from dicomnode.errors import ConfigError

logger = logging.getLogger(__name__)

POINTS = ("inference", "writing", "committing", "sending", "sent")
ACTIONS = ("sleep", "raise", "exit", "hang")
_SPEC = os.environ.get("DICOMNODE_FAULT", "")


class InjectedFault(RuntimeError):
    """Raised on purpose."""


def announce() -> None:
    """Warn that this process is made to fail; raises ConfigError for a point or action that does not exist."""
    if not _SPEC:
        return
    point, _, action = _SPEC.partition(":")
    if point not in POINTS or action.partition(":")[0] not in ACTIONS:
        raise ConfigError(f"DICOMNODE_FAULT = {_SPEC!r}", hint=f"point {'|'.join(POINTS)}, action {'|'.join(ACTIONS)}")
    logger.warning("fault injection is on: %s", _SPEC)


def reach(point: str) -> None:
    """Do what DICOMNODE_FAULT says about this point."""
    where, _, action = _SPEC.partition(":")
    if where != point:
        return
    action, _, value = action.partition(":")
    if action == "sleep":
        time.sleep(float(value or 30))
    elif action == "raise":
        raise InjectedFault(f"injected at {point}")
    elif action == "exit":
        os._exit(int(value or 1))
    elif action == "hang":
        while True:
            time.sleep(3600)
