"""Private interfaces of the installed Ray that the service relies on."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ray._common.utils import import_attr
from ray.serve._private import constants
from ray.serve._private.http_util import (
    parse_disconnect_disabled_header,
    validate_http_proxy_callback_return,
)

from serve_apps.http_edge import HeaderGuard
from serve_apps.ports import free_port
from serve_apps.ray_private import is_serve_proxy, middlewares

ROOT = Path(__file__).parents[3]
FLAG = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
SEPARATE_THREAD = "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"


@pytest.fixture
def port_saying():
    """Start servers that answer every request with one status and text."""
    servers = []

    def start(status, text):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, constants.HEALTHY_MESSAGE),
        (503, constants.NO_ROUTES_MESSAGE),
        (503, constants.NO_REPLICAS_MESSAGE),
    ],
)
def test_serves_proxy_is_known_with_and_without_an_application(port_saying, status, text):
    assert is_serve_proxy("127.0.0.1", port_saying(status, text))


@pytest.mark.parametrize(("status", "text"), [(200, "hello"), (503, "down"), (404, "")])
def test_another_server_is_no_serve_proxy(port_saying, status, text):
    assert not is_serve_proxy("127.0.0.1", port_saying(status, text))


def test_a_free_port_is_no_serve_proxy():
    assert not is_serve_proxy("127.0.0.1", free_port("127.0.0.1", 0))


def test_a_proxy_loads_no_pytorch_for_the_middleware():
    code = "import sys, serve_apps.ray_private; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_flag_names_what_serve_accepts():
    lines = (ROOT / "serve_apps/tuned.env").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(FLAG))
    (guard,) = validate_http_proxy_callback_return(import_attr(line.split("=")[1])())
    assert guard.cls is HeaderGuard


@pytest.mark.parametrize("separate_thread", [True, False])
def test_serve_watches_callers_unless_replicas_run_requests_on_their_main_loop(separate_thread, monkeypatch):
    monkeypatch.setattr(constants, SEPARATE_THREAD, separate_thread)
    header = middlewares()[0].kwargs["for_heads"]
    assert (header is None) == separate_thread
    if header is not None:
        assert parse_disconnect_disabled_header(dict([header]))
