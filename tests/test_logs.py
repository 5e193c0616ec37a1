"""The log: one JSON object a line, and no received value in it, whatever goes wrong."""

import json
import subprocess
import sys

import pytest


def lines(code: str) -> list[dict]:
    """What a process of the node writes to stderr while it runs this code."""
    before = "import logging, warnings\nfrom dicomnode import logs\nlogs.configure('tests')\n"
    before += "log = logging.getLogger('dicomnode.tests')\n"
    done = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_process():
    [entry] = lines("log.info('study released', extra={'study': 7})")
    assert entry["event"] == "study released"
    assert (entry["study"], entry["level"], entry["process"], entry["logger"]) == (
        7,
        "info",
        "tests",
        "dicomnode.tests",
    )
    assert entry["timestamp"].endswith("Z")


@pytest.mark.fault(27, "s")
def test_received_text_cannot_forge_a_line():
    [entry] = lines(r"log.warning('refused', extra={'why': 'x\n{\"event\": \"forged\"}'})")
    assert entry["why"].startswith("x\n")


@pytest.mark.parametrize("raised", ["ValueError('DOE^JOHN')", "KeyError('DOE^JOHN')", "OSError(5, 'DOE^JOHN')"])
def test_an_exception_is_logged_by_type_and_place_without_its_text(raised):
    code = f"try:\n    raise {raised}\nexcept Exception:\n    log.exception('failed')"
    [entry] = lines(code)
    assert entry["exception"][0]["frames"]
    assert "DOE" not in json.dumps(entry)


def test_our_own_message_is_kept_and_its_cause_is_not_quoted():
    code = "from dicomnode.errors import Permanent\ntry:\n    try:\n        raise ValueError('DOE^JOHN')\n"
    code += "    except ValueError as e:\n        raise Permanent('no such series') from e\n"
    code += "except Permanent:\n    log.exception('failed')"
    [entry] = lines(code)
    assert entry["exception"][0]["message"] == "no such series"
    assert "DOE" not in json.dumps(entry)


def test_warnings_and_messages_of_dicom_libraries_that_quote_values_are_not_logged():
    code = "warnings.warn('Invalid value for VR UI: DOE^JOHN')\n"
    code += "for n in ('pydicom', 'pynetdicom.acse', 'highdicom'): logging.getLogger(n).error('DOE^JOHN')"
    assert lines(code) == []
