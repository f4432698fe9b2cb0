"""Cost of each head codec: the head of every live sample is sent in every codec and answers the sample."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from hyperfleet.bundle import load_device_model, read_config
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.datasets import Corpus
from hyperfleet.datasets.task_names import OPEN_ENDED_QA
from hyperfleet.device import DeviceGroup, gather_samples
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.codec_accuracy import LiveFeatures, measure_codecs
from hyperfleet.evaluation.codec_report import codec_table, write_codec_report
from hyperfleet.evaluation.rendering import to_rich
from hyperfleet.messages import ModelLabel
from hyperfleet.tracking.registry import resolve_bundle
from pipelines.commands.models import CodecsConfig
from pipelines.progress import progress_bar

DEVICES_PER_CHUNK = 32
BATCH_SIZE = 64


def codecs(config: CodecsConfig, console: Console | None = None) -> Path:
    """Measure, print the table and return the page.

    Raises:
        ConfigError: the model answers no open-ended questions.
        ModelNotRegisteredError, CheckpointError, DataError: model or data cannot be used.
    """
    console = console or Console()
    bundle = resolve_bundle(config.model, config.tracking_uri)
    described = read_config(bundle.local_dir)
    if described.task != OPEN_ENDED_QA:
        raise ConfigError(f"codecs are measured on {OPEN_ENDED_QA}, {config.model} is for {described.task}")
    generator = ParameterGenerator.from_bundle(bundle.local_dir)
    label = ModelLabel(model=bundle.name, version=bundle.version, task=described.task)
    results = measure_codecs(generator, _live(config, bundle.local_dir), label=label)
    title = f"Accuracy against bytes: {described.method}, version {bundle.version}, {config.data.name}"
    console.print(to_rich(codec_table(results, title=title)))
    return write_codec_report(results, config.output, title=title)


def _live(config: CodecsConfig, bundle_dir: Path) -> Iterator[LiveFeatures]:
    corpus = Corpus.open(config.data)
    device = load_device_model(bundle_dir)
    live = corpus.split("test", device.encoder.config.text_length)
    answers = dict(zip(live.example_id.tolist(), live.label.tolist(), strict=True))
    group = DeviceGroup(personal=device, static=device, store=corpus.store, seed=config.seed)
    devices = [int(device_id) for device_id in live.device_ids]
    starts = range(0, len(devices), DEVICES_PER_CHUNK)
    chunks = [devices[start : start + DEVICES_PER_CHUNK] for start in starts]
    with progress_bar() as bar:
        for device_ids in bar.track(chunks, task_id=bar.add_task("answering", total=len(chunks), note="")):
            samples = gather_samples(live.stream, device_ids)
            for batch in samples.batches(BATCH_SIZE) if samples is not None else ():
                encoded = group.encode(batch)
                label = np.array([answers[example] for example in batch.example_id.tolist()])
                yield LiveFeatures(anchor=encoded.anchor, hidden=encoded.hidden, label=label)
