"""Counts of the real modules at the papers' sizes, for the analytic columns."""

import dataclasses
from functools import cache

import torch

from hyperfleet.messages import FEATURE_BYTES
from hyperfleet.methods import METHODS
from hyperfleet.nn import DeviceModel, HeadGenerator, HeadGeneratorConfig, all_in_one_ti, head_layout
from hyperfleet.papers import published
from hyperfleet.papers.experiments.cost import count_params, macs_of
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL, task
from hyperfleet.tasks.retrieval import EMBEDDING_DIM

OUTPUTS = {
    **{name: (OPEN_ENDED_QA, classes) for name, classes in published.NUM_CLASSES.items()},
    published.MULTIPLE_CHOICE: (MULTIPLE_CHOICE, 1),
    published.RETRIEVAL_DATASET: (RETRIEVAL, EMBEDDING_DIM),
}


@cache
def device_params(dataset: str) -> int:
    """Return D-Param: parameters of All-in-One-Ti with the data set's head."""
    name, outputs = OUTPUTS[dataset]
    return count_params(DeviceModel(all_in_one_ti(), outputs, task(name).readout))


@cache
def cloud_params(dataset: str, method: str) -> int | None:
    """Return C-Param: parameters of the method's generator; None for a static head."""
    generator = _generator(dataset, method)
    return None if generator is None else count_params(generator)


@cache
def download_bytes(dataset: str, method: str) -> int | None:
    """Return the bytes of one generated head in float32; None for a static head."""
    generator = _generator(dataset, method)
    return None if generator is None else generator.payload_bytes


@cache
def generator_macs(dataset: str, method: str) -> tuple[int, int] | None:
    """Return the multiply-accumulates before f_h and of f_h per head; None for a static head."""
    config = _config(dataset, method)
    if config is None:
        return None
    name, outputs = OUTPUTS[dataset]
    return macs_of(HeadGenerator(config, head_layout(outputs, task(name).readout)))


def upload_bytes(method: str) -> int:
    """Return the bytes that a device sends per head; 0 if no head is generated."""
    config = METHODS[method].generator_config
    return 0 if config is None else config.num_uploaded * FEATURE_BYTES


def _config(dataset: str, method: str) -> HeadGeneratorConfig | None:
    config = METHODS[method].generator_config
    if config is None or config.templates is None:
        return config
    _, outputs = OUTPUTS[dataset]
    # Templates are not parameters; their number affects only the multiplications of the front end.
    templates = dataclasses.replace(config.templates, num_categories=max(outputs, 256))
    return dataclasses.replace(config, templates=templates)


def _generator(dataset: str, method: str) -> HeadGenerator | None:
    config = _config(dataset, method)
    if config is None:
        return None
    name, outputs = OUTPUTS[dataset]
    # On the meta device a generator of 28 million parameters takes no memory.
    with torch.device("meta"):
        return HeadGenerator(config, head_layout(outputs, task(name).readout))
