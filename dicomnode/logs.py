"""Logs: one JSON object a line on stderr, so that no received text can forge a line. Never patient data."""

from __future__ import annotations

import logging
import sys

import structlog


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
                # Types and places of an exception, without its values: they may quote the input.
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                ),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # libraries: pynetdicom and highdicom write identifiers at INFO
    for ours in ("dicomnode", "inference", "sr"):
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # our own lines say what happened
    logging.captureWarnings(True)
