"""The status page in a real browser: what was received is read, and never run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from dicomnode.config import Config, Receive
from dicomnode.web.pages import create_app
from tests.integration.programs import free_port, wait_for
from tests.integration.viewer import chromium
from tests.test_web import analysed_study

HOSTILE = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\"><svg onload='window.ran = 1'>"


@contextmanager
def served(data_dir: Path) -> Iterator[str]:
    port = free_port()
    app = create_app(Config(data_dir=data_dir, receive=Receive(port=1)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for("the page", lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.fault(27, "s")
def test_markup_in_what_was_received_is_read_and_not_run(tmp_path):
    analysed_study(tmp_path, reason=HOSTILE)
    with served(tmp_path) as address, chromium() as browser:
        page = browser.new_page()
        for path in ("/", "/studies/1"):
            page.goto(address + path)
            assert page.evaluate("window.ran") is None
        assert HOSTILE in page.inner_text("body")
        assert page.locator("svg, script").count() == 0
        # This would have been seen: the same markup, as a page.
        other = browser.new_page()
        other.set_content(HOSTILE)
        other.wait_for_function("window.ran === 1")
