"""Start and stop of the generator from a program that is connected to Ray."""

import http.client
import time
import urllib.request

import ray
from ray import serve
from ray.serve import RunTarget
from ray.serve.schema import ApplicationStatusOverview

from hyperfleet.errors import ServiceError
from serve_apps.parameter_generator import GeneratorArgs, generator
from serve_apps.ports import free_port
from serve_apps.ray_private import quiet_serve

APPLICATION = "generator"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
START_TIMEOUT_S = 180.0
POLL_INTERVAL_S = 0.1
# For replicas too: at a lower level Serve logs every request.
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
        args: settings; None for the newest registered model with the defaults.
        port: TCP port on `host`; 0 for a free one.
        host: address to listen on; any other than 127.0.0.1 needs tokens.
        timeout_s: maximum seconds until the service answers.

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
        # Replicas share the port, so another program could share it too.
        free_port(args.grpc_host, args.grpc_port)
    url = f"http://{host}:{port}"
    with quiet_serve():
        try:
            serve.start(
                http_options={"host": host, "port": port},
                proxy_location="HeadOnly",
                logging_config=LOGGING,
            )
            # serve.run would wait forever if the cluster lacks a free CPU for the replica.
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
    """Stop the service that `start` started; do nothing if it does not run."""
    if ray.is_initialized() and APPLICATION in serve.status().applications:
        with quiet_serve():
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
