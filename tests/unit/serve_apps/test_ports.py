"""Who listens on the port that the service would take."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ray.serve._private import constants

from serve_apps.ports import free_port, is_serve_proxy


@pytest.fixture
def port_saying():
    """Start servers that answer everything with one status and text."""
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
def test_another_server_is_none_of_serves(port_saying, status, text):
    assert not is_serve_proxy("127.0.0.1", port_saying(status, text))


def test_nobody_is_no_proxy():
    assert not is_serve_proxy("127.0.0.1", free_port("127.0.0.1", 0))
