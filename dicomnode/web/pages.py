"""The status page: which studies the node has, what became of each, and what it found. Read only, no login.

URLs use the node's own short study number; nothing on the pages or in the URLs identifies a patient.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomnode import disk, ledger, owed, report
from dicomnode.audit import Trail
from dicomnode.config import Config
from dicomnode.disk import Room
from dicomnode.ledger import Ledger
from dicomnode.peers import own_host
from dicomnode.supervise import Life

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def run(config: Config, life: Life) -> None:
    """Serve the pages; uvicorn itself ends at SIGTERM."""
    app = create_app(config)
    if not life.stop.is_set():
        uvicorn.run(app, host=config.web.host, port=config.web.port, log_config=None, access_log=False)


def create_app(config: Config) -> Starlette:
    """The pages over one node's ledger."""
    pages = _Pages(config)
    # A page on another site must not read ours through a name that it points at this machine.
    hosts = ["127.0.0.1", "localhost", config.web.host, socket.gethostname(), socket.getfqdn()]
    return Starlette(
        routes=[
            Route("/", pages.overview),
            Route("/studies/{id:int}", pages.study),
            Route("/studies/{id:int}/{number:int}.png", pages.picture),
            Route("/health", pages.health),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(_Guarded), Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


class _Guarded:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await self._app(scope, receive, guarded)


class _Pages:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._ledger: Ledger = ledger.connect(config.ledger_url)
        self._trail = Trail(config)
        self._templates = Jinja2Templates(directory=HERE / "templates")

    # Plain functions: Starlette runs them in a thread, so that a slow database does not stop other pages.

    def overview(self, request: Request) -> Response:
        rows = report.overview_rows(self._ledger)
        node, problem = self._config.receive, self._room()
        context = {"columns": report.OVERVIEW, "studies": rows, "node": node, "problem": problem}
        context |= {"undelivered": report.undelivered_rows(self._ledger), "undelivered_columns": report.UNDELIVERED}
        return self._templates.TemplateResponse(request, "overview.html", context)

    def study(self, request: Request) -> Response:
        document = self._document(request)
        pictures = range(len(_pictures(document)))
        return self._templates.TemplateResponse(request, "study.html", {"study": document, "pictures": pictures})

    def picture(self, request: Request) -> Response:
        pictures = _pictures(self._document(request))
        number = request.path_params["number"]
        if number >= len(pictures):
            raise HTTPException(404, "this study has no such key image")
        image, buffer = pydicom.dcmread(pictures[number]), BytesIO()
        Image.fromarray(image.pixel_array).save(buffer, format="PNG")
        self._trail.viewed(request.client.host if request.client else "", image)
        return Response(buffer.getvalue(), media_type="image/png")

    def health(self, request: Request) -> Response:
        """200 if instances can be received and kept, else 503 and the reason; late deliveries change neither."""
        problems = []
        try:
            with socket.create_connection((own_host(self._config), self._config.receive.port), timeout=1.0):
                pass
        except OSError as error:
            problems.append(f"the receiver does not listen: {error.strerror}")
        if room := self._room():
            problems.append(str(room))
        states = Counter(row["state"] for row in self._ledger.studies())
        late: dict[str, dict[str, Any]] = {}
        for row in owed.late(self._ledger):
            place = late.setdefault(row["name"], {"deliveries": 0, "reason": ""})
            place["deliveries"] += 1
            place["reason"] = place["reason"] or row["reason"]  # those behind the first are not tried meanwhile
        answer = {"ok": not problems, "problems": problems, "studies": states, "late": late}
        return JSONResponse(answer, status_code=503 if problems else 200)

    def _room(self) -> Room:
        return disk.room(self._config.data_dir, self._config.limits.free_mb)

    def _document(self, request: Request) -> dict[str, Any]:
        uid = self._ledger.study_uid(str(request.path_params["id"]))
        if uid is None:
            raise HTTPException(404, "no such study")
        return report.stored_document(self._ledger, uid)


def _pictures(document: dict[str, Any]) -> list[str]:
    return [result["path"] for result in document["results"] if result["kind"] == "SC"]
