"""Addresses that the service listens on: free, and closed to strangers."""

import socket
from collections.abc import Mapping

from ray.serve.config import HTTPOptions

from hyperfleet.errors import ServiceError
from serve_apps.ray_private import is_serve_proxy

TOKENS_VARIABLE = "HYPERFLEET_TOKENS"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def free_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0, after checking that nobody listens there.

    Serve does not notice a port in use. Its proxy binds with SO_REUSEPORT, so that two services can share a
    port and answer each other's requests, or it retries forever.

    Raises:
        ServiceError: the port is in use or cannot be bound on this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            # Closing connections of an earlier service do not count as use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise ServiceError(
            f"the generator cannot listen on {host}:{port}: {error}; "
            "stop what listens there or choose another port"
        ) from error


def refuse_open(hosts: Mapping[str, str]) -> None:
    """Make sure that a service without tokens listens on loopback only; `hosts` holds one per transport.

    Raises:
        ServiceError: anyone could reach the service.
    """
    for transport, host in hosts.items():
        if host not in LOOPBACK:
            raise ServiceError(
                f"{transport} listens on {host} where anyone can ask for heads: give tokens_file or set "
                f"{TOKENS_VARIABLE}, or listen on 127.0.0.1"
            )


def will_serve_run_start_serve(grpc_host: str, grpc_port: int | None) -> bool:
    """Return whether `serve run` starts Serve itself, and make sure that the ports are free then.

    Raises:
        ServiceError: a port is in use.
    """
    options = HTTPOptions()
    host, port = str(options.host), int(options.port)
    # A running Serve may hold the ports for an older version of this application.
    if is_serve_proxy(host, port):
        return False
    free_port(host, port)
    if grpc_port is not None:
        free_port(grpc_host, grpc_port)
    return True
