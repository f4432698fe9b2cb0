"""The parameter generator as a Ray Serve application.

`serve run serve_apps:generator` serves the newest registered model. Its `key=value` arguments are the fields
of `GeneratorArgs`, e.g. `serve run serve_apps:generator model=models:/hyperfleet-generator/3`.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
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

from hyperfleet.cloud.generator import Weights
from hyperfleet.errors import HyperFleetError, ServiceError
from hyperfleet.head_codecs.frame import KEEP_MEMORY
from hyperfleet.tracking.mlflow_store import absolute_uri, default_tracking_uri
from hyperfleet.tracking.model_names import NEWEST
from serve_apps.access import BearerTokens, RateLimit
from serve_apps.batching import Batcher, generate_batch
from serve_apps.grpc_api import GrpcOptions, start_grpc
from serve_apps.head_service import HeadService
from serve_apps.http_api import build_api
from serve_apps.ports import TOKENS_VARIABLE, refuse_open, will_serve_run_start_serve
from serve_apps.ray_meter import RayMeter
from serve_apps.ray_private import http_host
from serve_apps.served_models import ModelTable, parse_models

DEPLOYMENT = "ParameterGenerator"
GRPC_GRACE_S = 5.0
# More threads of torch would compete for the replica's one core.
ENVIRONMENT = {**KEEP_MEMORY, "OMP_NUM_THREADS": "1"}


def _in_serve_run() -> bool:
    # `serve run` uses click, which prints a ClickException in one line and exits with status 1. Serve would
    # print a stack trace of its own code.
    return click.get_current_context(silent=True) is not None


class GeneratorArgs(BaseModel):
    """Settings of the service; a misspelt name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        default=NEWEST,
        description="models:/name@alias, models:/name/3 or a bundle folder; several as name=model,name=model",
    )
    tracking_uri: str | None = Field(default=None, description="None: $MLFLOW_TRACKING_URI or ./mlflow.db")
    replicas: int = Field(default=1, ge=1)
    max_batch_size: int = Field(default=32, ge=1, description="maximum heads per batch")
    batch_pause_s: float = Field(
        default=0.001,
        gt=0,
        description="a batch closes after a pause of this length, or of a tenth of the previous batch",
    )
    node_resource: str | None = Field(
        default=None, description="custom resource of the nodes for replicas, one each; None for any node"
    )
    torch_threads: int = Field(default=1, ge=1)
    weights: Weights = Field(
        default="fp32",
        description="precision of the last layer; fp16 makes small batches faster and heads less exact",
    )
    max_features: int = Field(default=32, ge=1, description="maximum features per request")
    max_waiting_heads: int = Field(
        default=512, ge=1, description="maximum heads waiting in one replica; more get 429 with Retry-After"
    )
    max_ongoing_requests: int = Field(default=1024, ge=1, description="maximum requests inside one replica")
    max_queued_requests: int = Field(
        default=4096, ge=1, description="maximum waiting in the proxy; more get 429"
    )
    body_timeout_s: float = Field(default=10.0, gt=0, description="time limit for receiving a body")
    follow_alias_s: float = Field(
        default=10.0, ge=0, description="period of checking aliases for new versions; 0 for never"
    )
    tokens_file: str | None = Field(
        default=None, description=f"lines of 'client token'; None: ${TOKENS_VARIABLE}, and without it anyone"
    )
    tokens_required: bool = Field(default=False, description="refuse to start without tokens")
    proven: str | None = Field(default=None, description="exact versions to start with if an alias fails")
    heads_per_s: int | None = Field(
        default=None, ge=1, description="limit per client and replica; None for no limit"
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
                f"max_waiting_heads={self.max_waiting_heads}, or the largest request could never be admitted"
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
    """Replica of the service, a process that holds the generators; `generator` makes it a deployment.

    Args:
        args: settings with absolute paths, from `prepare`.

    Raises:
        ServiceError: anyone could reach the service and no tokens are set.
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
        self._meter = RayMeter()
        self.service = HeadService(
            table,
            Batcher(
                generate_batch,
                max_heads=args.max_batch_size,
                pause_s=args.batch_pause_s,
                meter=self._meter,
            ),
            max_features=args.max_features,
            max_waiting_heads=args.max_waiting_heads,
            batch_heads=args.max_batch_size,
            tokens=tokens,
            rate=RateLimit(args.heads_per_s) if args.heads_per_s is not None else None,
            meter=self._meter,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Private interface of Serve, called after the constructor. A FastAPI object would be pickled instead.
        return build_api(self.service, body_timeout_s=self._args.body_timeout_s, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._meter.report)
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

        Call it by reference, `handle.generate_shard.options(_by_reference=True)`, so that the array goes
        through the object store.
        """
        service = self.service
        return await service.generate_shard(service.table.of_task(task, model), features)


def _tokens(args: GeneratorArgs) -> BearerTokens | None:
    if args.tokens_file is not None:
        return BearerTokens.from_file(args.tokens_file)
    # An empty variable is a mistake and must not admit everybody.
    return BearerTokens.from_env(TOKENS_VARIABLE) if TOKENS_VARIABLE in os.environ else None


def _refuse_strangers(args: GeneratorArgs) -> None:
    if args.tokens_required:
        raise ServiceError(
            f"tokens were found where the service was started, but this replica's process has no "
            f"{TOKENS_VARIABLE}: set it before Ray starts on every node, or give tokens_file"
        )
    host = http_host()
    hosts = {"HTTP": host} if host is not None else {}
    if args.grpc_port is not None:
        hosts["gRPC"] = args.grpc_host
    refuse_open(hosts)


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
    """Build the application for the models that `args` names.

    Raises:
        ModelNotRegisteredError: there is no such model.
        CheckpointError: its files are damaged or of another version.
        ConfigError: a token file or a certificate cannot be used.
        ServiceError: the tracking store cannot be reached, the model makes unusable heads, or `serve run`
            would take a port in use or admit strangers.
    """
    try:
        starts_serve = _in_serve_run() and will_serve_run_start_serve(args.grpc_host, args.grpc_port)
        prepared = prepare(args)
        if starts_serve and not prepared.tokens_required:
            # A replica would refuse too, but Serve shows that only if its logs go to stderr.
            refuse_open({"HTTP": str(HTTPOptions().host)})
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
        # A constructor that failed twice on the same files fails a third time too.
        max_constructor_retry_count=2,
    )
    return as_deployment(serve.ingress()(GeneratorReplica)).bind(prepared)


def prepare(args: GeneratorArgs) -> GeneratorArgs:
    """Make paths absolute and check everything once, here rather than in each replica.

    Raises:
        ModelNotRegisteredError: there is no such model.
        CheckpointError: its files are damaged or of another version.
        ConfigError: two models have one name, or a token file or a certificate cannot be used.
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
