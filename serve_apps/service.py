"""Starting and stopping the generator from within a program that is connected to Ray."""

import contextlib
import http.client
import logging
import re
import time
import urllib.request
from collections.abc import Iterator

import ray
import ray._private.ray_logging
from ray import serve
from ray.serve import RunTarget
from ray.serve.schema import ApplicationStatusOverview

from hyperfleet.errors import ServiceError
from serve_apps.parameter_generator import GeneratorArgs, generator
from serve_apps.ports import free_port

APPLICATION = "generator"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
START_TIMEOUT_S = 180.0
POLL_INTERVAL_S = 0.1
# For the replicas as well: below this level Serve makes a record of every request.
LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def start(
    args: GeneratorArgs | None = None,
    port: int = DEFAULT_PORT,
    *,
    host: str = DEFAULT_HOST,
    timeout_s: float = START_TIMEOUT_S,
) -> str:
    """Serve the generator on this cluster and return its URL once it answers.

    Args:
        args: what to serve; None means the newest registered model with the defaults.
        port: TCP port on `host`; 0 takes a free one.
        host: address to listen on; others than 127.0.0.1 need tokens.
        timeout_s: how long the service may take to answer.

    Raises:
        ModelNotRegisteredError: there is no such model.
        CheckpointError: its files are damaged or of another version.
        ServiceError: not connected to Ray, already serving, port in use, or no answer in time.
    """
    if not ray.is_initialized():
        raise ServiceError("not connected to Ray; call pipelines.runtime.connect() first")
    if serve.status().proxies:
        raise ServiceError("Ray Serve is running on this cluster already; call serve_apps.stop() first")
    application = generator(args or GeneratorArgs())
    port = free_port(host, port)
    if args is not None and args.grpc_port:
        # Replicas share the port, so a stranger on it would share it too.
        free_port(args.grpc_host, args.grpc_port)
    url = f"http://{host}:{port}"
    with _quiet_serve():
        try:
            serve.start(
                http_options={"host": host, "port": port},
                proxy_location="HeadOnly",
                logging_config=LOGGING,
            )
            # serve.run would wait for ever where the cluster lacks a free CPU for the replica.
            serve.run_many(
                [RunTarget(target=application, name=APPLICATION, route_prefix="/", logging_config=LOGGING)],
                wait_for_applications_running=False,
            )
            _wait_until_healthy(url, time.monotonic() + timeout_s)
        except BaseException as error:
            serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
            if isinstance(error, ServiceError) or not isinstance(error, Exception):
                raise
            raise ServiceError(f"the generator did not start at {url}: {error}") from error
    return url


def stop() -> None:
    """Stop what `start` started; does nothing where it does not run."""
    if ray.is_initialized() and APPLICATION in serve.status().applications:
        with _quiet_serve():
            serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def _wait_until_healthy(url: str, deadline_s: float) -> None:
    message = "nothing deployed yet"
    while time.monotonic() < deadline_s:
        application = serve.status().applications.get(APPLICATION)
        if application is not None:
            message = _describe(application)
            if application.status == "DEPLOY_FAILED":
                raise ServiceError(f"the generator did not start at {url}: {message}")
            if application.status == "RUNNING" and _answers(f"{url}/healthz"):
                return
        time.sleep(POLL_INTERVAL_S)
    raise ServiceError(
        f"the generator did not answer at {url} in time; last state: {message}; "
        "each replica needs one free CPU of the cluster"
    )


def _describe(application: ApplicationStatusOverview) -> str:
    deployments = [each.message for each in application.deployments.values()]
    return " ".join(part for part in (application.status.value, application.message, *deployments) if part)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False


@contextlib.contextmanager
def _quiet_serve() -> Iterator[None]:
    # Serve reports each step of a start and a shutdown to the driver's terminal, and Ray reports the end
    # of Serve's controller as a failed task. Ray's own setting for this (RAY_DEDUP_LOGS_SKIP_REGEX) is
    # read when Ray is imported; the notice may come after the shutdown, so the filter stays.
    ray._private.ray_logging.stdout_deduplicator.skip_re = re.compile(r"ServeController\.graceful_shutdown")
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
