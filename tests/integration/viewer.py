"""OHIF as a radiologist opens it: its files beside the PACS's DICOMweb on one local port, in a headless Chromium."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.integration.validators import missing, require

#: What scripts/ohif fetches.
DIST = Path(__file__).resolve().parents[2] / ".cache" / "ohif-3.13.2" / "dist"
SIZE = {"width": 1280, "height": 800}
#: For one step in the viewer: software draws here, often beside other tests.
SECONDS = 90
#: Schemes that leave the browser; its PDF reader, for one, has others.
NETWORK = ("http", "https", "ws", "wss")
THUMBNAIL = "[data-cy^=study-browser-thumbnail]"
#: Pixels; the outline of a segment and the box have more.
FEW = 100
CHROMIUM = (
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
#: Orthanc has no /thumbnail, so thumbnails are drawn from the images themselves.
PACS = {
    "name": "pacs", "friendlyName": "PACS", "qidoRoot": "/dicom-web", "wadoRoot": "/dicom-web",
    "imageRendering": "wadors", "thumbnailRendering": "wadors", "enableStudyLazyLoad": True,
    "bulkDataURI": {"enabled": True}, "omitQuotationForMultipartRequest": True,
}  # fmt: skip
CONFIG = {
    "showStudyList": True,
    "extensions": [],
    "modes": [],
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "pacs",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "pacs",
            "configuration": PACS,
        }
    ],
}


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, pacs: str, **options: Any) -> None:
        self._pacs = pacs
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        # A browser that closes its window does not wait for what it asked for.
        with contextlib.suppress(ConnectionError):
            self._route()

    def _route(self) -> None:
        if self.path == "/app-config.js":
            self._answer(200, "text/javascript", f"window.config = {json.dumps(CONFIG)}".encode())
        elif self.path.startswith("/dicom-web/"):
            self._forward()
        else:
            if urlsplit(self.path).path == "/viewer":
                self.path = "/index.html"
            super().do_GET()

    def _forward(self) -> None:
        # Orthanc makes the addresses of bulk data from Host: they must come back to this port.
        kept = {name: self.headers[name] for name in ("Accept", "Host")}
        try:
            with urllib.request.urlopen(urllib.request.Request(self._pacs + self.path, headers=kept)) as answer:
                self._answer(answer.status, answer.headers["Content-Type"], answer.read())
        except HTTPError as error:
            self._answer(error.code, "text/plain", error.read())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the browser notices whatever goes wrong."""


@contextlib.contextmanager
def serving(pacs: str) -> Iterator[str]:
    """Serve the viewer in front of a PACS; yield the address."""
    if not DIST.is_dir():
        missing("OHIF (scripts/ohif fetches it)")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, pacs=pacs, directory=str(DIST))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    program = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield browser
        browser.close()


@contextlib.contextmanager
def reading(browser: Browser, viewer: str, study_uid: str, series: int) -> Iterator[Page]:
    """Open a study as a new user, and see to it that the viewer had no trouble and asked nobody but the PACS.

    Yields when every series is in the list: a report is of no use to the viewer before it knows the images.
    """
    troubles: list[str] = []
    asked: set[str] = set()

    def note(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in NETWORK:
            asked.add(address.netloc)

    with browser.new_context(viewport=SIZE) as context:
        context.set_default_timeout(SECONDS * 1000)
        context.on("request", note)
        context.on("weberror", lambda trouble: troubles.append(str(trouble.error)))
        context.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page = context.new_page()
        page.goto(f"{viewer}/viewer?StudyInstanceUIDs={study_uid}")
        page.get_by_text("Skip all").click()  # the tour for new users
        page.locator(THUMBNAIL).nth(series - 1).wait_for()
        yield page
    elsewhere = asked - {urlsplit(viewer).netloc}
    assert not troubles and not elsewhere, f"the viewer had trouble: {troubles}, and asked {elsewhere}"


def open_series(page: Page, number: int) -> None:
    page.locator(f"[data-series='{number}']").dblclick()


def accept(page: Page) -> None:
    """Say yes to what the viewer asks about the segments or the report it opened."""
    page.locator("[data-cy=yes-hydrate-btn]").click()


def wait_until_shown(page: Page, sop_uid: str) -> None:
    page.wait_for_function(
        """sop_uid => {
            const name = services.viewportGridService.getActiveViewportId()
            const viewport = services.cornerstoneViewportService.getCornerstoneViewport(name)
            return viewport?.viewportStatus === 'rendered' && viewport.getCurrentImageId().includes(`/${sop_uid}/`)
        }""",
        arg=sop_uid,
    )


def digest(page: Page) -> str:
    """Return the SHA-256 of the pixels of the image on the screen."""
    return str(
        page.evaluate(
            """async () => {
                const name = services.viewportGridService.getActiveViewportId()
                const image = services.cornerstoneViewportService.getCornerstoneViewport(name).getCornerstoneImage()
                const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', image.getPixelData()))
                return Array.from(digest, byte => byte.toString(16).padStart(2, '0')).join('')
            }"""
        )
    )


def document(page: Page) -> bytes:
    """Return the PDF that the viewer shows."""
    place = page.locator("object[type='application/pdf'][data]").get_attribute("data")
    return bytes(page.evaluate("async place => [...new Uint8Array(await (await fetch(place)).arrayBuffer())]", place))


def colours(page: Page) -> set[tuple[int, ...]]:
    """Return the colours that more than a few pixels of the viewport have."""
    with Image.open(io.BytesIO(page.locator("[data-cy=viewport-pane]").screenshot())) as picture:
        return {colour for count, colour in picture.convert("RGB").getcolors(1 << 24) if count > FEW}


def segments(page: Page) -> dict[int, tuple[str, str]]:
    """Return name and colour of each line in the panel, by segment number."""
    page.locator("[data-cy=panelSegmentation-btn]").click()
    page.locator("[data-cy=data-row]").first.wait_for()
    lines = page.locator("[data-cy=data-row]").evaluate_all(
        """lines => lines.map(line => [
            Number(line.innerText.split('\\n')[0]),
            line.querySelector('[data-cy=data-row-title]').innerText,
            line.querySelector('[data-cy=data-row-colorhex]').style.backgroundColor,
        ])"""
    )
    return {number: (name, colour) for number, name, colour in lines}


def voxels(page: Page) -> dict[tuple[str, int], tuple[int, int]]:
    """Return for each image and segment how many pixels the viewer holds, and the sum of their positions."""
    found = page.evaluate(
        """() => {
            const [segmentation] = services.segmentationService.getSegmentations()
            const found = []
            for (const id of segmentation.representationData.Labelmap.imageIds) {
                const image = cornerstone.cache.getImage(id), sums = {}
                image.voxelManager.getScalarData().forEach((segment, position) => {
                    if (!segment) return
                    sums[segment] ??= [0, 0]
                    sums[segment][0] += 1
                    sums[segment][1] += position
                })
                for (const segment in sums) found.push([image.referencedImageId, Number(segment), ...sums[segment]])
            }
            return found
        }"""
    )
    return {(_sop_uid(image), segment): (count, places) for image, segment, count, places in found}


def measurements(page: Page) -> list[dict[str, Any]]:
    """Return what the viewer has in its list of measurements, once there is something."""
    page.wait_for_function("services.measurementService.getMeasurements().length")
    return list(
        page.evaluate(
            """services.measurementService.getMeasurements().map(one => ({
                label: one.label, image: one.SOPInstanceUID, points: one.points, tool: one.toolName,
                finding: one.finding.CodeValue, site: one.findingSites.map(site => site.CodeValue),
            }))"""
        )
    )


def _sop_uid(image_id: str) -> str:
    return image_id.split("/instances/")[1].split("/")[0]
