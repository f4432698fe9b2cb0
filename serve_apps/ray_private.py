"""Private interfaces of Ray that the service relies on: check them at every upgrade of Ray.

They serve the fast path (tuned.env) and fill gaps in the public interfaces. Two more things depend on Ray's
internals: the RAY_SERVE_* variables of tuned.env, and `GeneratorReplica.__serve_build_asgi_app__`, which
`serve.ingress` calls.
tests/unit/serve_apps/test_ray_private.py and tests/integration check them against the installed Ray.
"""

import contextlib
import http.client
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import ray
import ray._private.ray_logging
from ray.util import list_named_actors
from starlette.middleware import Middleware

from hyperfleet.errors import ServiceError
from serve_apps.http_edge import HeaderGuard

PROBE_TIMEOUT_S = 2.0
# Health replies of Serve's proxies, with and without an application.
_PROXY_REPLIES = (b"success", b"Route table is not populated yet.", b"No replicas are available yet.")
_REPLICA_PREFIX = "SERVE_REPLICA::"
_UNWATCHED = (b"x-request-disconnect-disabled", b"?1")

# Serve is imported where it is used: a fleet without a service imports this module for `kill_replica` alone.


def middlewares() -> list[Middleware]:
    """Return the middleware that Serve puts around its HTTP servers.

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH in tuned.env names this function.

    Serve runs two tasks per request to notice a caller that leaves, which costs as much as answering for a
    small head. The generator notices by itself where a caller waits long enough to leave (`http_api`), so a
    header switches Serve's tasks off for heads. That needs replicas that run requests on their main event
    loop, as on the fast path: only then does Serve hand over the connection itself.
    """
    from ray.serve._private import constants

    watched_by_serve = getattr(constants, "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", True)
    return [Middleware(HeaderGuard, for_heads=None if watched_by_serve else _UNWATCHED)]


def http_host() -> str | None:
    """Return the address that Serve's proxies of this cluster listen on; None without Serve."""
    from ray.serve.context import _get_global_client

    serving = _get_global_client()
    return str(serving.http_config.host) if serving is not None else None


def is_serve_proxy(host: str, port: int) -> bool:
    """Return whether a Serve proxy listens there, to which `serve run` may add an application."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/-/healthz", timeout=PROBE_TIMEOUT_S) as reply:
            content = reply.read()
    except urllib.error.HTTPError as error:
        with error:
            content = error.read()
    except (OSError, http.client.HTTPException):
        return False
    return content in _PROXY_REPLIES


def kill_replica() -> str:
    """Kill one replica of this cluster's Serve without warning and return its name; Serve starts another.

    Raises:
        ServiceError: no replica runs on this cluster.
    """
    named = list_named_actors(all_namespaces=True)
    replicas = sorted(
        (actor["name"], actor["namespace"]) for actor in named if actor["name"].startswith(_REPLICA_PREFIX)
    )
    if not replicas:
        raise ServiceError(
            "no replica of Serve runs on this cluster, so none can be killed; start the generator here "
            "instead of naming a generator_url, or leave KillReplica out"
        )
    name, namespace = replicas[0]
    ray.kill(ray.get_actor(name, namespace=namespace))
    return str(name)


@contextlib.contextmanager
def quiet_serve() -> Iterator[None]:
    """Keep Serve's steps of a start and a shutdown off the driver's terminal.

    Ray reports the end of Serve's controller as a failed task. Its own setting for this,
    RAY_DEDUP_LOGS_SKIP_REGEX, is read when Ray is imported. The notice may come after the shutdown, so the
    filter stays.
    """
    ray._private.ray_logging.stdout_deduplicator.skip_re = re.compile(r"ServeController\.graceful_shutdown")
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
