"""The two models of a fleet: the personalized one and the static one beside it."""

import os
from dataclasses import dataclass
from pathlib import Path

from hyperfleet.bundle import ANSWERS_FILE, TOKENIZER_FILE, BundleConfig, read_config
from hyperfleet.client import ServedModel, served_model
from hyperfleet.datasets import Corpus
from hyperfleet.errors import CheckpointError
from hyperfleet.tasks import OPEN_ENDED_QA
from hyperfleet.tracking.registry import ResolvedBundle, resolve_bundle

# Bearer token of the fleet, if the generator requires one; a command line could be read by others.
TOKEN_VARIABLE = "HYPERFLEET_TOKEN"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetModels:
    """Locations of a run's models; `bundle` is the configuration of the personalized one."""

    personal: ResolvedBundle
    static: ResolvedBundle
    bundle: BundleConfig


def open_models(model: str, static_model: str, data: Path, tracking_uri: str | None) -> FleetModels:
    """Find the models of a run and check that they and the data set fit together.

    Raises:
        ModelNotRegisteredError, CheckpointError, DataError: they cannot be used, or do not fit together.
    """
    corpus = Corpus.open(data)
    personal, static = (resolve_bundle(name, tracking_uri) for name in (model, static_model))
    for resolved in (personal, static):
        for name, file in ((TOKENIZER_FILE, corpus.tokenizer_file), (ANSWERS_FILE, corpus.answers_file)):
            if (resolved.local_dir / name).read_bytes() != file.read_bytes():
                raise CheckpointError(
                    f"{resolved.uri} was trained on another data set than {data}: {name} differs from "
                    f"{file}; name the data set it was trained on, or train on this one"
                )
    bundle = read_config(personal.local_dir)
    if bundle.task != OPEN_ENDED_QA:
        raise CheckpointError(
            f"{personal.uri} is a model of task {bundle.task!r}; a fleet answers {OPEN_ENDED_QA!r}"
        )
    if bundle.generator is None:
        raise CheckpointError(
            f"{personal.uri} was trained with {bundle.method!r}, which has no generator; name a model of a "
            "method that personalizes as `model` and this one as `static_model`"
        )
    return FleetModels(personal=personal, static=static, bundle=bundle)


def check_service(url: str, models: FleetModels) -> ServedModel:
    """Check that the service at `url` serves the devices' model, and return its description.

    Raises:
        CheckpointError: it serves another model.
    """
    served = served_model(url, task=models.bundle.task, token=os.environ.get(TOKEN_VARIABLE))
    expected = models.personal.version, models.bundle.num_classes
    if (served.version, served.layout.num_classes) != expected:
        raise CheckpointError(
            f"{url} serves version {served.version} of {served.name!r}, {served.layout.num_classes} classes; "
            f"the devices hold version {expected[0]} of {models.personal.name!r}, {expected[1]} classes; "
            "an encoder and a generator work together only if they were trained together: serve "
            f"{models.personal.uri}, or give the fleet the model that is served"
        )
    return served
