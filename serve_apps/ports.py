"""Making sure of a TCP port before Serve does.

Serve does not notice a port in use: its proxy binds with SO_REUSEPORT, so that two services can share
one and answer each other's requests, or it retries for ever.
"""

import http.client
import socket
import urllib.error
import urllib.request

from hyperfleet.errors import ServiceError

PROBE_TIMEOUT_S = 2.0
# What Serve's proxies answer to a look at their health, with an application and without one.
_OF_SERVE = (b"success", b"Route table is not populated yet.", b"No replicas are available yet.")


def free_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0, after making sure that nobody listens there.

    Raises:
        ServiceError: the port is in use or no port of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            # Connections of an earlier service that are still closing do not count as use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise ServiceError(
            f"the generator cannot listen on {host}:{port}: {error}; "
            "stop what listens there or choose another port"
        ) from error


def is_serve_proxy(host: str, port: int) -> bool:
    """Tell whether a Serve proxy listens there, to which `serve run` may add an application."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/-/healthz", timeout=PROBE_TIMEOUT_S) as reply:
            said = reply.read()
    except urllib.error.HTTPError as error:
        with error:
            said = error.read()
    except (OSError, http.client.HTTPException):
        return False
    return said in _OF_SERVE
