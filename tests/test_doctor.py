"""What the doctor says of the web port: free, the node's own, or another program's."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice
from pathlib import Path

import uvicorn

from dicomnode.config import Config, Receive, Web
from dicomnode.doctor import Check, examine
from dicomnode.network.archive import Archive
from dicomnode.network.listen import Listener
from dicomnode.web.pages import create_app
from tests.integration.programs import free_port


def config(folder: Path, port: int) -> Config:
    return Config(data_dir=folder, receive=Receive(port=free_port()), web=Web(port=port))


def web_port(settings: Config) -> Check:
    return next(check for check in examine(settings) if check.name == "web port")


def test_a_free_web_port_is_free(tmp_path):
    port = free_port()
    assert web_port(config(tmp_path, port)) == Check(name="web port", ok=True, detail=f"127.0.0.1:{port} is free")


def test_the_pages_of_the_node_are_known_by_their_health(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = config(tmp_path, taken.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        found = web_port(settings)
        server.should_exit = True
        thread.join()
    assert (found.ok, found.detail) == (True, f"127.0.0.1:{settings.web.port}: the node is running and answers")


def test_a_receiver_on_one_network_card_is_asked_there(tmp_path):
    archive = Archive(tmp_path / "archive", "DICOMNODE")
    listener = Listener(archive, host="127.0.0.2", port=0)
    settings = Config(data_dir=tmp_path, receive=Receive(host="127.0.0.2", port=listener.port))
    found = next(check for check in examine(settings) if check.name == "receive port")
    listener.stop()
    assert (found.ok, found.detail) == (True, f"127.0.0.2:{listener.port}: the node is running and answers")


def test_another_program_at_the_web_port_is_named_with_the_key(tmp_path):
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:  # it knows no GET and says so
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        found = web_port(config(tmp_path, other.server_port))
        thread.join()
    assert not found.ok
    assert found.detail.startswith(f"cannot listen on 127.0.0.1:{other.server_port}: Address already in use")
    assert "web.port" in found.detail


def test_a_page_that_is_turned_off_has_no_port_to_look_at(tmp_path):
    names = [check.name for check in islice(examine(config(tmp_path, 0)), 5)]
    assert names[3] == "receive port"
    assert names[4].startswith("model ")
