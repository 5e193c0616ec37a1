"""What can go wrong, and what happens to the work when it does.

    NodeError                 message says what happened; hint says what to do
    ├── ConfigError           the configuration names something impossible: the node does not start
    ├── Permanent             trying again gives the same answer: the study ends with a failure report
    └── Transient             the world may heal: the task is tried again later, with a growing delay

What is refused at the door (`Refused`) carries the DIMSE status for the sender instead.
"""

from __future__ import annotations


class NodeError(Exception):
    """Base of the errors a person is meant to read."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class ConfigError(NodeError):
    """A key or value in the configuration cannot be used."""


class Permanent(NodeError):
    """The same input will fail the same way."""


class Transient(NodeError):
    """The cause lies outside the input: a network, a disk, a peer."""


class Refused(NodeError):
    """What is not taken: `status` goes to the sender in the response (PS3.4 B.2.3; PS3.7 10.1.1.1.8 for a report)."""

    OUT_OF_RESOURCES = 0xA700  # ours: disk, database, shutting down; senders try again
    MISMATCH = 0xA900  # the data set contradicts the request or what is already stored
    CANNOT_UNDERSTAND = 0xC000  # the object itself is damaged
    PROCESSING_FAILURE = 0x0110  # of a report: ours; archives may send it again
    INVALID_ARGUMENT = 0x0115  # of a report: damaged, or about a transaction that this archive was not asked about
    UNSUPPORTED_OPERATION = 0x0211

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
