"""Logs: one JSON object a line on stderr, so that no received text can forge a line. Never patient data."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from dicomnode.errors import NodeError


def configure(process: str) -> None:
    """Send the log records of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                lambda _logger, _name, event: {**event, "process": process},
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_places),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # libraries: pynetdicom and highdicom write identifiers at INFO
    for ours in ("dicomnode", "inference", "sr"):
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.captureWarnings(True)
    for library in ("pynetdicom", "pydicom", "highdicom", "py.warnings"):
        # Their warnings quote what was received; our own lines say what happened.
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _places(exc_info: structlog.typing.ExcInfo) -> list[dict[str, Any]]:
    """Types and places of an exception and its causes; a message only if it is ours, for others may quote the input."""
    described = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)(exc_info)
    message = str(exc_info[1]) if isinstance(exc_info[1], NodeError) else None
    for one in described:
        del one["exc_value"], one["exc_notes"]
    return [{**described[0], "message": message}, *described[1:]] if message else described
