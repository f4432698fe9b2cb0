"""Served generators of a process, and their replacement by new versions."""

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, Field

from hyperfleet.bundle import read_config
from hyperfleet.cloud.generator import ParameterGenerator, Weights
from hyperfleet.errors import ConfigError, HyperFleetError, UnknownNameError
from hyperfleet.head_codecs import CODECS, DEFAULT_CODEC
from hyperfleet.head_codecs.frame import pack
from hyperfleet.messages import FEATURE_DIM, ModelLabel
from hyperfleet.tracking.registry import ResolvedBundle, resolve_bundle, resolved_uri

_log = logging.getLogger(__name__)
REFUSED_S = 600.0
# A folder's path may contain "=" too, but a name contains no slash, since it is part of a URL.
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<uri>.*)")


class CodecInfo(BaseModel):
    """A codec that can carry a model's heads."""

    name: str = Field(description="value of the codec parameter of the media type")
    head_bytes: int = Field(description="size of one head's tensors in bytes, without the safetensors header")
    needs_base: bool = Field(description="whether the device adds the head to its own static head")


class ModelInfo(BaseModel):
    """Description of a served model: its name, version, inputs and outputs."""

    name: str = Field(description="name it is served under; `model` of the generate path")
    version: str = Field(description="registered version; also in the header X-Model-Version of every reply")
    run_id: str = Field(description="tracking run that trained it; empty for a bundle folder")
    task: str = Field(description="the {task} of the generate path")
    method: str
    num_classes: int = Field(description="rows of a head's weight")
    hidden: int = Field(description="columns of a head's weight")
    feature_dim: int = FEATURE_DIM
    head_bytes: int = Field(description="size of one head's float32 values in bytes")
    max_features: int = Field(description="maximum features in one request")
    base_id: str = Field(description="name of the static head that offsets are added to; empty for none")
    codecs: list[CodecInfo]
    default_codec: str = DEFAULT_CODEC


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class ServedGenerator:
    """One version of a model, ready to generate; `uri` identifies this version."""

    uri: str
    info: ModelInfo
    label: ModelLabel
    generator: ParameterGenerator

    def base_file(self) -> bytes:
        """Return the static head as a safetensors file with one tensor `head` (1, num_params).

        Raises:
            UnknownNameError: the model has none.
        """
        base = self.generator.base
        if base is None:
            raise UnknownNameError(f"model {self.info.name!r} generates full heads and has no static one")
        return pack({"head": base.flat[None]}, {"base_id": base.id, "model_version": self.info.version})


def parse_models(model: str) -> Mapping[str, str]:
    """Parse "URI" or "name=URI,name=URI"; a model without a name is served under its registered name.

    Raises:
        ConfigError: an empty or repeated name, or an empty URI.
    """
    named: dict[str, str] = {}
    for entry in model.split(","):
        found = _NAMED.fullmatch(entry.strip())
        name, uri = (found["name"], found["uri"]) if found else ("", entry.strip())
        if not uri or uri.startswith("=") or name in named or (not name and "," in model):
            raise ConfigError(
                f"model={model!r} must be one model, or name=model pairs with different names separated by "
                "commas, e.g. qa=models:/hyperfleet-generator@champion,qa2=models:/hyperfleet-generator/3"
            )
        named[name] = uri
    return named


class ModelTable:
    """All models of a process by name; each is replaced in one step when its alias names another version.

    A batch keeps the version that it began with, so running requests do not see the change.

    Args:
        models: model URI by name; "" for the registered name.
        tracking_uri: store of the registered models.
        torch_threads: threads per call.
        max_features: maximum features per request, reported to clients.
        weights: see `ParameterGenerator`.
        proven: exact versions by name that were served before. A restarted replica falls back to them if by
            then an alias names a version that cannot replace them.

    Raises:
        ModelNotRegisteredError, CheckpointError, ServiceError: one of them cannot be served.
        ConfigError: two have the same name.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        *,
        tracking_uri: str,
        torch_threads: int,
        max_features: int,
        weights: Weights = "fp32",
        proven: Mapping[str, str] | None = None,
    ) -> None:
        self._tracking_uri = tracking_uri
        self._torch_threads = torch_threads
        self._max_features = max_features
        self._weights: Weights = weights
        self._wanted: dict[str, str] = {}
        self._served: dict[str, ServedGenerator] = {}
        for name, uri in models.items():
            served = self._first(name, uri, (proven or {}).get(name))
            self._wanted[served.info.name] = uri
            self._served[served.info.name] = served

    def __iter__(self) -> Iterator[ServedGenerator]:
        return iter(tuple(self._served.values()))

    def infos(self) -> list[ModelInfo]:
        """Return the descriptions of the served models."""
        return [each.info for each in self._served.values()]

    def named(self, name: str) -> ServedGenerator:
        """Return the model served under `name`.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self._served:
            raise UnknownNameError(f"no model {name!r}; served are {', '.join(self._served)}")
        return self._served[name]

    def of_task(self, task: str, name: str | None = None) -> ServedGenerator:
        """Return the model called `name`, or the first of the task.

        Raises:
            UnknownNameError: there is none, or it is for another task.
        """
        if name is not None:
            served = self.named(name)
            if served.info.task != task:
                raise UnknownNameError(f"model {name!r} is for task {served.info.task!r}, not {task!r}")
            return served
        for served in self._served.values():
            if served.info.task == task:
                return served
        tasks = sorted({each.info.task for each in self._served.values()})
        raise UnknownNameError(f"no generator for task {task!r}; served are {', '.join(map(repr, tasks))}")

    def check(self) -> None:
        """Generate one head with each model.

        Raises:
            ServiceError: a model makes heads that are not finite.
        """
        for served in self._served.values():
            served.generator.check()

    async def follow(self, period_s: float) -> None:
        """Check every `period_s` seconds whether an alias names another version, and replace the old one.

        A version that cannot be served is logged once and tried again after `REFUSED_S` seconds, or when the
        alias names another one. Meanwhile the working version stays.
        """
        refused: dict[str, tuple[str, float]] = {}
        logged: dict[str, str] = {}
        while True:
            await asyncio.sleep(period_s)
            for name in tuple(self._served):
                try:
                    uri = await asyncio.to_thread(resolved_uri, self._wanted[name], self._tracking_uri)
                    known_uri, again_s = refused.get(name, ("", 0.0))
                    if uri == self._served[name].uri or (uri == known_uri and time.monotonic() < again_s):
                        continue
                    refused[name] = uri, time.monotonic() + REFUSED_S
                    await asyncio.to_thread(self._replace, name, uri)
                    del refused[name]
                except Exception as error:
                    # No error may stop the checks of the other models.
                    if logged.get(name) != str(error):
                        self._log_refused(name, error)
                    logged[name] = str(error)

    def _log_refused(self, name: str, error: Exception) -> None:
        version = self._served[name].info.version
        unforeseen = not isinstance(error, HyperFleetError)
        _log.error("model %s stays at version %s: %s", name, version, error, exc_info=unforeseen)

    def _replace(self, name: str, uri: str) -> None:
        old, served = self._served[name], self._load(name, uri)
        _check_same_devices(old, served)
        self._served[name] = served
        _log.warning("model %s: version %s replaces version %s", name, served.info.version, old.info.version)

    def _first(self, name: str, uri: str, proven: str | None) -> ServedGenerator:
        if proven is None or proven == uri:
            return self._load(name, uri)
        known = self._load(name, proven)
        try:
            if resolved_uri(uri, self._tracking_uri) == known.uri:
                return known
            served = self._load(name, uri)
            _check_same_devices(known, served)
            return served
        except HyperFleetError as error:
            _log.error("model %s starts at version %s: %s", name, known.info.version, error)
            return known

    def _load(self, name: str, uri: str) -> ServedGenerator:
        bundle = resolve_bundle(uri, self._tracking_uri)
        generator = ParameterGenerator.from_bundle(
            bundle.local_dir, num_threads=self._torch_threads, weights=self._weights
        )
        generator.check()
        if not (name or bundle.name).isascii():
            raise ConfigError(
                f"model {name or bundle.name!r} has a name that no header can carry; serve it as name={uri}"
            )
        info = _describe(name or bundle.name, bundle, generator, self._max_features)
        return ServedGenerator(
            uri=bundle.uri,
            info=info,
            label=ModelLabel(model=info.name, version=info.version, task=info.task),
            generator=generator,
        )


def _check_same_devices(old: ServedGenerator, new: ServedGenerator) -> None:
    def fits(served: ServedGenerator) -> tuple[str, int, int, bool]:
        info = served.info
        return info.task, info.num_classes, info.hidden, bool(info.base_id)

    if fits(old) != fits(new):
        raise ConfigError(
            f"{new.uri} (task, classes, hidden units, static head: {fits(new)}) does not fit the devices of "
            f"{old.uri} {fits(old)}; serve it under a name of its own"
        )


def _describe(
    name: str, bundle: ResolvedBundle, generator: ParameterGenerator, max_features: int
) -> ModelInfo:
    config = read_config(bundle.local_dir)
    layout = generator.layout
    codecs = [
        CodecInfo(name=each, head_bytes=CODECS[each].num_bytes(layout), needs_base=CODECS[each].needs_base)
        for each in generator.codecs
    ]
    return ModelInfo(
        name=name,
        version=bundle.version,
        run_id=bundle.run_id,
        task=config.task,
        method=config.method,
        num_classes=layout.num_classes,
        hidden=layout.hidden,
        head_bytes=layout.num_bytes,
        max_features=max_features,
        base_id=generator.base.id if generator.base is not None else "",
        codecs=codecs,
    )
