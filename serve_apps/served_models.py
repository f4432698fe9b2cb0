"""The generators of one process: which are served, and how a new version takes the place of an old one."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, Field

from hyperfleet.bundle import read_config
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.errors import ConfigError, HyperFleetError, UnknownNameError
from hyperfleet.head_codecs import CODECS, DEFAULT_CODEC
from hyperfleet.head_codecs.frame import pack
from hyperfleet.messages import FEATURE_DIM, ModelLabel
from hyperfleet.tracking.registry import ResolvedBundle, resolve_bundle, resolved_uri

_log = logging.getLogger(__name__)


class CodecInfo(BaseModel):
    """One way for a model's heads to travel."""

    name: str = Field(description="value of the codec parameter of the media type")
    head_bytes: int = Field(description="size of one head's tensors in bytes, without the safetensors header")
    needs_base: bool = Field(description="whether the device adds what arrives to its own static head")


class ModelInfo(BaseModel):
    """Which model is served and what it takes and gives."""

    name: str = Field(description="name it is served under; `model` of the generate path")
    version: str = Field(description="registered version; also in the header X-Model-Version of every reply")
    run_id: str = Field(description="tracking run that trained it, empty for a bundle folder")
    task: str = Field(description="the {task} of the generate path")
    method: str
    num_classes: int = Field(description="rows of a head's weight")
    hidden: int = Field(description="columns of a head's weight")
    feature_dim: int = FEATURE_DIM
    head_bytes: int = Field(description="size of one head's float32 values in bytes")
    max_features: int = Field(description="most features in one request")
    base_id: str = Field(description="name of the static head that offsets are added to; empty for none")
    codecs: list[CodecInfo]
    default_codec: str = DEFAULT_CODEC


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ServedGenerator:
    """One version of a model, ready to generate; `uri` names exactly this version."""

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
            raise UnknownNameError(f"model {self.info.name!r} generates whole heads and has no static one")
        return pack({"head": base.flat[None]}, {"base_id": base.id, "model_version": self.info.version})


def parse_models(model: str) -> Mapping[str, str]:
    """Read "URI" or "name=URI,name=URI"; one without a name is served under its registered name.

    Raises:
        ConfigError: an empty or repeated name, or an empty URI.
    """
    named: dict[str, str] = {}
    for entry in model.split(","):
        name, separator, uri = entry.strip().partition("=")
        if not separator:
            name, uri = "", name
        if not uri or (separator and not name) or name in named or (not name and "," in model):
            raise ConfigError(
                f"model={model!r} must be one model, or name=model pairs with different names separated by "
                "commas, e.g. qa=models:/hyperfleet-generator@champion,qa2=models:/hyperfleet-generator/3"
            )
        named[name] = uri
    return named


class ModelTable:
    """All models of a process by name; each is replaced in one step when its alias names another version.

    A batch holds on to the version it began with, so nothing that is under way sees the change.

    Args:
        models: model URI by name; the name "" stands for the registered one.
        tracking_uri: where they are registered.
        torch_threads: threads of one call.
        max_features: told to clients.

    Raises:
        ModelNotRegisteredError, CheckpointError, ServiceError: one of them cannot be served.
        ConfigError: two have the same name.
    """

    def __init__(
        self, models: Mapping[str, str], *, tracking_uri: str, torch_threads: int, max_features: int
    ) -> None:
        self._tracking_uri = tracking_uri
        self._torch_threads = torch_threads
        self._max_features = max_features
        self._wanted: dict[str, str] = {}
        self._served: dict[str, ServedGenerator] = {}
        for name, uri in models.items():
            served = self._load(name, uri)
            self._wanted[served.info.name] = uri
            self._served[served.info.name] = served

    def __iter__(self) -> Iterator[ServedGenerator]:
        return iter(tuple(self._served.values()))

    def infos(self) -> list[ModelInfo]:
        """Return what is served now."""
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
        """Generate one head with each.

        Raises:
            ServiceError: one makes heads that are not finite.
        """
        for served in self._served.values():
            served.generator.check()

    async def follow(self, period_s: float) -> None:
        """Look again and again whether an alias names another version and load it beside the old one.

        What cannot be served is logged once and left alone: the version that works stays.
        """
        failed: dict[str, str] = {}
        while True:
            await asyncio.sleep(period_s)
            for name in tuple(self._served):
                try:
                    await asyncio.to_thread(self._refresh, name)
                    failed.pop(name, None)
                except HyperFleetError as error:
                    if failed.get(name) != str(error):
                        _log.error(
                            "model %s stays at version %s: %s", name, self._served[name].info.version, error
                        )
                    failed[name] = str(error)

    def _refresh(self, name: str) -> None:
        uri = resolved_uri(self._wanted[name], self._tracking_uri)
        if uri == self._served[name].uri:
            return
        served = self._load(name, uri)
        old = self._served[name].info
        if served.info.task != old.task:
            raise ConfigError(f"{uri} is for task {served.info.task!r}, {name} serves {old.task!r}")
        self._served[name] = served
        _log.warning("model %s: version %s takes the place of %s", name, served.info.version, old.version)

    def _load(self, name: str, uri: str) -> ServedGenerator:
        bundle = resolve_bundle(uri, self._tracking_uri)
        generator = ParameterGenerator.from_bundle(bundle.local_dir, num_threads=self._torch_threads)
        generator.check()
        info = _describe(name or bundle.name, bundle, generator, self._max_features)
        return ServedGenerator(
            uri=bundle.uri,
            info=info,
            label=ModelLabel(model=info.name, version=info.version, task=info.task),
            generator=generator,
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
