"""The parameter generator as a Ray Serve application.

`serve run serve_apps:generator` serves the newest registered model; `key=value` arguments are the
fields of `GeneratorArgs`, e.g. `serve run serve_apps:generator model=models:/hyperfleet-generator/3`.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from fastapi import FastAPI
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig, HTTPOptions
from ray.serve.context import _get_global_client

from hyperfleet.cloud.generator import Weights
from hyperfleet.errors import HyperFleetError, ServiceError
from hyperfleet.head_codecs.frame import KEEP_MEMORY
from hyperfleet.tracking.mlflow_store import absolute_uri, default_tracking_uri
from hyperfleet.tracking.registry import NEWEST
from serve_apps.access import BearerTokens, RateLimit
from serve_apps.batching import Batcher
from serve_apps.grpc_api import GrpcOptions, start_grpc
from serve_apps.head_service import Chunk, GeneratedChunk, HeadService, generate_batch
from serve_apps.http_api import build_api
from serve_apps.metering import count_batch
from serve_apps.ports import free_port, is_serve_proxy
from serve_apps.ray_meter import RayMeter
from serve_apps.served_models import ModelTable, parse_models

DEPLOYMENT = "ParameterGenerator"
TOKENS_VARIABLE = "HYPERFLEET_TOKENS"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
GRPC_GRACE_S = 5.0
# torch's threads would fight for the replica's one core.
ENVIRONMENT = {**KEEP_MEMORY, "OMP_NUM_THREADS": "1"}


def _in_serve_run() -> bool:
    # The command line of `serve run` is click's: it prints a ClickException in one line and ends with
    # status 1, where Serve would show a stack trace of its own code.
    return click.get_current_context(silent=True) is not None


class GeneratorArgs(BaseModel):
    """What may be chosen about the service; a misspelt name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        default=NEWEST,
        description="models:/name@alias, models:/name/3 or a bundle folder; several as name=model,name=model",
    )
    tracking_uri: str | None = Field(default=None, description="None: $MLFLOW_TRACKING_URI or ./mlflow.db")
    replicas: int = Field(default=1, ge=1)
    max_batch_size: int = Field(default=32, ge=1, description="most heads generated together")
    batch_pause_s: float = Field(
        default=0.001,
        gt=0,
        description="how long no request comes before a batch is closed, or a tenth of the one before",
    )
    node_resource: str | None = Field(
        default=None, description="custom resource of the nodes that replicas run on, one each; None for any"
    )
    torch_threads: int = Field(default=1, ge=1)
    weights: Weights = Field(
        default="fp32",
        description="how the last layer is kept; fp16 makes small batches faster, heads less exact",
    )
    max_features: int = Field(default=32, ge=1, description="most features in one request")
    max_waiting_heads: int = Field(
        default=512, ge=1, description="heads waiting in one replica; more get 429 with Retry-After"
    )
    max_ongoing_requests: int = Field(default=1024, ge=1, description="requests inside one replica")
    max_queued_requests: int = Field(default=4096, ge=1, description="waiting in the proxy; more get 429")
    body_timeout_s: float = Field(default=10.0, gt=0, description="how long a body may take to arrive")
    follow_alias_s: float = Field(
        default=10.0, ge=0, description="how often to look whether an alias names a new version; 0 for never"
    )
    tokens_file: str | None = Field(
        default=None, description=f"lines of 'client token'; None: ${TOKENS_VARIABLE}, and without it anyone"
    )
    tokens_required: bool = Field(default=False, description="do not start without tokens")
    proven: str | None = Field(default=None, description="exact versions to start from if an alias fails")
    heads_per_s: int | None = Field(
        default=None, ge=1, description="what one client may ask of one replica; None for no limit"
    )
    grpc_port: int | None = Field(default=None, ge=1, le=65535, description="None for no gRPC")
    grpc_host: str = "127.0.0.1"
    grpc_certificate: str | None = Field(default=None, description="PEM file; TLS with grpc_key")
    grpc_key: str | None = None

    @model_validator(mode="after")
    def _fits_a_batch(self) -> "GeneratorArgs":
        if self.max_features > self.max_batch_size:
            raise ValueError(
                f"max_features={self.max_features} must be at most max_batch_size={self.max_batch_size}: "
                "a request is generated in one batch"
            )
        if self.max_features > self.max_waiting_heads:
            raise ValueError(
                f"max_features={self.max_features} must be at most "
                f"max_waiting_heads={self.max_waiting_heads}, or the largest request could never be let in"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_one_line(
        cls, data: Any, handler: ModelWrapValidatorHandler["GeneratorArgs"]
    ) -> "GeneratorArgs":
        try:
            return handler(data)
        except ValidationError as error:
            if not _in_serve_run():
                raise
            faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            known = ", ".join(cls.model_fields)
            raise click.ClickException(f"{faults}; the arguments of this application are {known}") from None


class GeneratorReplica:
    """One process that holds the generators and answers; a plain class until `generator` wraps it.

    Args:
        args: with absolute places.

    Raises:
        ServiceError: strangers could reach the service and no tokens are set.
        ModelNotRegisteredError, CheckpointError, ConfigError: a model or a token file cannot be used.
    """

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        tokens = _tokens(args)
        if tokens is None:
            _refuse_strangers(args)
        table = ModelTable(
            parse_models(args.model),
            tracking_uri=args.tracking_uri or default_tracking_uri(),
            torch_threads=args.torch_threads,
            max_features=args.max_features,
            weights=args.weights,
            proven=parse_models(args.proven) if args.proven is not None else None,
        )

        self._meter = meter = RayMeter()

        def generate(chunks: Sequence[Chunk]) -> list[GeneratedChunk]:
            made = generate_batch(chunks)
            count_batch(meter, chunks, made)
            return made

        batcher = Batcher(generate, max_heads=args.max_batch_size, pause_s=args.batch_pause_s)
        self.service = HeadService(
            table,
            batcher,
            max_features=args.max_features,
            max_waiting_heads=args.max_waiting_heads,
            batch_heads=args.max_batch_size,
            tokens=tokens,
            rate=RateLimit(args.heads_per_s) if args.heads_per_s is not None else None,
            meter=meter,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve calls this after the constructor; a module-level FastAPI object would be pickled instead.
        return build_api(self.service, body_timeout_s=self._args.body_timeout_s, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._meter.tell)
            if self._args.follow_alias_s > 0:
                following = asyncio.create_task(self.service.table.follow(self._args.follow_alias_s))
                stack.callback(following.cancel)
            if self._args.grpc_port is not None:
                running = await start_grpc(self.service, _grpc_options(self._args))
                stack.push_async_callback(running.stop, GRPC_GRACE_S)
            yield

    async def check_health(self) -> None:
        """Generate one head with each model; Serve replaces the replica when this raises."""
        self.service.table.check()

    async def generate_shard(self, features: np.ndarray, task: str, model: str | None = None) -> np.ndarray:
        """Generate for a shard of devices of this cluster; see `HeadService.generate_shard`.

        Call it through a handle by reference, `handle.generate_shard.options(_by_reference=True)`, so that
        the array goes through the object store.
        """
        service = self.service
        return await service.generate_shard(service.table.of_task(task, model), features)


def _tokens(args: GeneratorArgs) -> BearerTokens | None:
    if args.tokens_file is not None:
        return BearerTokens.from_file(args.tokens_file)
    # Set but empty is a mistake, and not one that should let everybody in.
    return BearerTokens.from_env(TOKENS_VARIABLE) if TOKENS_VARIABLE in os.environ else None


def _refuse_strangers(args: GeneratorArgs) -> None:
    if args.tokens_required:
        raise ServiceError(
            f"tokens were found where the service was started, but this replica's process has no "
            f"{TOKENS_VARIABLE}: set it before Ray starts on every node, or give tokens_file"
        )
    serving = _get_global_client()
    hosts = {"HTTP": str(serving.http_config.host)} if serving is not None else {}
    if args.grpc_port is not None:
        hosts["gRPC"] = args.grpc_host
    _refuse_open(hosts)


def _refuse_open(hosts: Mapping[str, str]) -> None:
    for transport, host in hosts.items():
        if host not in LOOPBACK:
            raise ServiceError(
                f"{transport} listens on {host} where anyone can ask for heads: give tokens_file or set "
                f"{TOKENS_VARIABLE}, or listen on 127.0.0.1"
            )


def _grpc_options(args: GeneratorArgs) -> GrpcOptions:
    def path(name: str | None) -> Path | None:
        return Path(name) if name is not None else None

    assert args.grpc_port is not None
    return GrpcOptions(
        host=args.grpc_host,
        port=args.grpc_port,
        tls_certificate=path(args.grpc_certificate),
        tls_key=path(args.grpc_key),
    )


def generator(args: GeneratorArgs) -> Application:
    """Build the application around the models that `args` names.

    Raises:
        ModelNotRegisteredError: there is no such model.
        CheckpointError: its files are damaged or of another version.
        ConfigError: a token file or a certificate that cannot be used.
        ServiceError: the tracking store cannot be reached, the model makes unusable heads, or `serve run`
            would take a port in use or let strangers ask.
    """
    try:
        starts_serve = _in_serve_run() and _will_start_serve(args)
        prepared = prepare(args)
        if starts_serve and not prepared.tokens_required:
            # A replica would refuse as well; Serve shows nothing of that where its logs do not go to stderr.
            _refuse_open({"HTTP": str(HTTPOptions().host)})
    except HyperFleetError as error:
        if _in_serve_run():
            raise click.ClickException(f"{type(error).__name__}: {error}") from None
        raise
    as_deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=prepared.replicas,
        max_ongoing_requests=prepared.max_ongoing_requests,
        max_queued_requests=prepared.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        ray_actor_options={
            "runtime_env": {"env_vars": ENVIRONMENT},
            "resources": {prepared.node_resource: 1} if prepared.node_resource is not None else {},
        },
        # A constructor that failed twice on the same files fails a third time as well.
        max_constructor_retry_count=2,
    )
    return as_deployment(serve.ingress()(GeneratorReplica)).bind(prepared)


def prepare(args: GeneratorArgs) -> GeneratorArgs:
    """Replace relative places by absolute ones and try everything once, here rather than in each replica.

    Raises:
        ModelNotRegisteredError: there is no such model.
        CheckpointError: its files are damaged or of another version.
        ConfigError: models of one name, a token file or a certificate that cannot be used.
        ServiceError: the tracking store cannot be reached, or a model makes unusable heads.
    """
    tracking_uri = absolute_uri(args.tracking_uri) if args.tracking_uri else default_tracking_uri()
    absolute = {
        name: str(Path(value).expanduser().absolute())
        for name in ("tokens_file", "grpc_certificate", "grpc_key")
        if (value := getattr(args, name)) is not None
    }
    args = args.model_copy(update={"tracking_uri": tracking_uri, **absolute})
    models = parse_models(args.model)
    table = ModelTable(
        models,
        tracking_uri=tracking_uri,
        torch_threads=1,
        max_features=args.max_features,
        weights=args.weights,
    )
    has_tokens = _tokens(args) is not None
    if args.grpc_port is not None:
        _grpc_options(args)
    wanted = ",".join(
        f"{served.info.name}={uri if uri.startswith('models:') else served.uri}"
        for served, uri in zip(table, models.values(), strict=True)
    )
    proven = ",".join(f"{served.info.name}={served.uri}" for served in table)
    required = args.tokens_required or has_tokens
    return args.model_copy(update={"model": wanted, "proven": proven, "tokens_required": required})


def _will_start_serve(args: GeneratorArgs) -> bool:
    """Tell whether `serve run` starts Serve itself, and make sure that the ports are free then."""
    options = HTTPOptions()
    host, port = str(options.host), int(options.port)
    # Where Serve runs already, an older version of this application may hold its ports.
    if is_serve_proxy(host, port):
        return False
    free_port(host, port)
    if args.grpc_port is not None:
        free_port(args.grpc_host, args.grpc_port)
    return True
