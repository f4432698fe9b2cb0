"""Ports and addresses that the service may use."""

import socket

import pytest

from hyperfleet.errors import ServiceError
from serve_apps.ports import free_port, refuse_open


def test_a_port_in_use_is_refused_and_a_free_one_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.1:{port}"):
            free_port("127.0.0.1", port)
        assert free_port("127.0.0.1", 0) not in (0, port)


def test_only_this_machine_may_ask_without_a_token() -> None:
    refuse_open({"HTTP": "127.0.0.1", "gRPC": "::1"})
    with pytest.raises(ServiceError, match=r"gRPC listens on 0\.0\.0\.0 where anyone can ask"):
        refuse_open({"HTTP": "localhost", "gRPC": "0.0.0.0"})
