"""The parameter generator as a Ray Serve application.

`serve run serve_apps:generator` serves the newest registered model; `key=value` arguments are the
fields of `GeneratorArgs`, e.g. `serve run serve_apps:generator model=models:/hyperfleet-generator/3`.
"""

import asyncio
import time
from dataclasses import dataclass
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
from ray.serve.config import HTTPOptions

from hyperfleet.bundle import read_config
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.errors import HyperFleetError
from hyperfleet.messages import HeadLayout
from hyperfleet.tracking.mlflow_store import absolute_uri, default_tracking_uri
from hyperfleet.tracking.registry import NEWEST, ResolvedBundle, resolve_bundle
from serve_apps.http_api import GeneratedHeads, ModelInfo, build_api
from serve_apps.ports import free_port, is_serve_proxy

DEPLOYMENT = "ParameterGenerator"


def _in_serve_run() -> bool:
    # The command line of `serve run` is click's: it prints a ClickException in one line and ends with
    # status 1, where Serve would show a stack trace of its own code.
    return click.get_current_context(silent=True) is not None


class GeneratorArgs(BaseModel):
    """What may be chosen about the service; a misspelt name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default=NEWEST, description="models:/name@alias, models:/name/3 or a bundle folder")
    tracking_uri: str | None = Field(default=None, description="None: $MLFLOW_TRACKING_URI or ./mlflow.db")
    replicas: int = Field(default=1, ge=1)
    max_batch_size: int = Field(default=32, ge=1, description="most heads generated together")
    batch_wait_s: float = Field(default=0.001, ge=0, description="how long the first one waits for others")
    torch_threads: int = Field(default=1, ge=1)
    max_features: int = Field(default=64, ge=1, description="most features in one request")
    max_ongoing_requests: int = Field(default=128, ge=1, description="requests inside one replica")
    max_queued_requests: int = Field(default=4096, ge=1, description="waiting in the proxy; more get 503")

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
    """One process that holds the generator and answers HTTP; a plain class until `generator` wraps it.

    Args:
        args: with a pinned model, so that every replica of a deployment serves the same version
            whatever the alias names by then.
    """

    def __init__(self, args: GeneratorArgs) -> None:
        bundle = resolve_bundle(args.model, args.tracking_uri)
        self._generator = ParameterGenerator.from_bundle(bundle.local_dir, num_threads=args.torch_threads)
        self._generator.check()
        self.info = _model_info(bundle, layout=self._generator.layout, max_features=args.max_features)
        self._max_batch_size = args.max_batch_size
        batch = serve.batch(
            max_batch_size=args.max_batch_size,
            batch_wait_timeout_s=args.batch_wait_s,
            batch_size_fn=lambda chunks: sum(map(len, chunks)),
        )
        self._batched = batch(self._generate_batch)

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve calls this after the constructor; a module-level FastAPI object would be pickled instead.
        return build_api(self)

    async def check_health(self) -> None:
        """Generate one head; Serve replaces the replica when this raises."""
        self._generator.check()

    async def generate(self, features: np.ndarray) -> GeneratedHeads:
        """Generate one head for each feature (n, 192), in batches with other requests."""
        queued_at_s = time.perf_counter()
        size = self._max_batch_size
        chunks = [features[start : start + size] for start in range(0, len(features), size)]
        parts: list[_Part] = await asyncio.gather(*map(self._batched, chunks))
        generate_s = sum(part.finished_s - part.started_s for part in parts)
        return GeneratedHeads(
            weight=np.concatenate([part.weight for part in parts]) if len(parts) > 1 else parts[0].weight,
            bias=np.concatenate([part.bias for part in parts]) if len(parts) > 1 else parts[0].bias,
            queue_s=max(part.finished_s for part in parts) - queued_at_s - generate_s,
            generate_s=generate_s,
        )

    async def _generate_batch(self, chunks: list[np.ndarray]) -> list["_Part"]:
        # On the event loop, on purpose: Serve closes a batch after `batch_wait_s` whether or not the one
        # before has finished, so beside a working thread batches of one or two would pile up, each of
        # which reads all weights. A loop that computes finds everything that came meanwhile in one batch.
        started_s = time.perf_counter()
        weight, bias = self._generator.generate(np.concatenate(chunks))
        finished_s = time.perf_counter()
        ends = np.cumsum([len(chunk) for chunk in chunks])
        parts = [slice(end - len(chunk), end) for chunk, end in zip(chunks, ends, strict=True)]
        return [
            _Part(weight=weight[part], bias=bias[part], started_s=started_s, finished_s=finished_s)
            for part in parts
        ]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Part:
    """Heads of at most one batch and when that batch ran, by the performance counter."""

    weight: np.ndarray
    bias: np.ndarray
    started_s: float
    finished_s: float


def generator(args: GeneratorArgs) -> Application:
    """Build the application around the model that `args` names, as it stands now.

    Raises:
        ModelNotRegisteredError: there is no such model.
        CheckpointError: its files are damaged or of another version.
        ServiceError: the tracking store cannot be reached, the model makes unusable heads, or the port
            of `serve run` is in use.
    """
    try:
        if _in_serve_run():
            _check_serve_run_port()
        pinned = pin_model(args)
    except HyperFleetError as error:
        if _in_serve_run():
            raise click.ClickException(f"{type(error).__name__}: {error}") from None
        raise
    as_deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=pinned.replicas,
        max_ongoing_requests=pinned.max_ongoing_requests,
        max_queued_requests=pinned.max_queued_requests,
        # A constructor that failed twice on the same files fails a third time as well.
        max_constructor_retry_count=2,
        logging_config={"enable_access_log": False},
    )
    return as_deployment(serve.ingress()(GeneratorReplica)).bind(pinned)


def pin_model(args: GeneratorArgs) -> GeneratorArgs:
    """Replace an alias by the version it names now and relative places by absolute ones, and try the model.

    Raises:
        ModelNotRegisteredError: there is no such model.
        CheckpointError: its files are damaged or of another version.
        ServiceError: the tracking store cannot be reached, or the model makes unusable heads.
    """
    tracking_uri = absolute_uri(args.tracking_uri) if args.tracking_uri else default_tracking_uri()
    bundle = resolve_bundle(args.model, tracking_uri)
    # Once here, so that a bad file is one clear error now and no replica that fails again and again.
    ParameterGenerator.from_bundle(bundle.local_dir).check()
    return args.model_copy(update={"model": bundle.uri, "tracking_uri": tracking_uri})


def _check_serve_run_port() -> None:
    options = HTTPOptions()
    host, port = str(options.host), int(options.port)
    if not is_serve_proxy(host, port):
        free_port(host, port)


def _model_info(bundle: ResolvedBundle, *, layout: HeadLayout, max_features: int) -> ModelInfo:
    config = read_config(bundle.local_dir)
    return ModelInfo(
        name=bundle.name,
        version=bundle.version,
        run_id=bundle.run_id,
        task=config.task,
        method=config.method,
        num_classes=layout.num_classes,
        hidden=layout.hidden,
        head_bytes=layout.num_bytes,
        max_features=max_features,
    )
