"""Headroom of personalization on a data set: page, Markdown and verdict; needs a static model only."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from hyperfleet.bundle import load_device_model, read_config
from hyperfleet.datasets import Corpus
from hyperfleet.datasets.fleetqa.truth import answer_odds
from hyperfleet.datasets.task_names import OPEN_ENDED_QA
from hyperfleet.device import DeviceGroup, gather_samples
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.headroom import LiveDevice, StaticHead, measure_headroom
from hyperfleet.evaluation.headroom_report import headroom_table, verdict, write_headroom_report
from hyperfleet.evaluation.rendering import to_rich
from hyperfleet.nn import DeviceModel
from hyperfleet.tracking.registry import resolve_bundle
from pipelines.commands.models import HeadroomConfig
from pipelines.progress import progress_bar

BATCH_SIZE = 64
WIDTH = 160
# The last class of every head.
NEVER_A_TARGET = ""


def headroom(config: HeadroomConfig, console: Console) -> Path:
    """Measure, print table and verdict, and return the page.

    Raises:
        ConfigError: the model answers no open-ended questions, or the data has no devices to tell apart.
        ModelNotRegisteredError, CheckpointError, DataError: model or data cannot be used.
    """
    bundle = resolve_bundle(config.static_model, config.tracking_uri)
    described = read_config(bundle.local_dir)
    if described.task != OPEN_ENDED_QA:
        raise ConfigError(
            f"headroom is measured on {OPEN_ENDED_QA}, {config.static_model} is for {described.task}"
        )
    corpus, device = Corpus.open(config.data), load_device_model(bundle.local_dir)
    vocabulary = corpus.vocabulary
    if vocabulary is None or vocabulary.num_classes != device.layout.num_classes:
        raise ConfigError(
            f"{config.static_model} has {device.layout.num_classes} answers, {config.data} "
            f"{vocabulary.num_classes if vocabulary else 0}; name a model that was trained on this data set"
        )
    odds = answer_odds(config.data, (*vocabulary.answers, NEVER_A_TARGET))
    found = measure_headroom(_live_devices(corpus, device), _static_head(corpus, device), odds)
    title = f"Headroom of personalization on {config.data.name}"
    # Files and pipes have no width, and 80 columns would fold every cell.
    wide = console if console.is_terminal else Console(width=WIDTH)
    wide.print(to_rich(headroom_table(found, title=title)))
    wide.print(verdict(found), markup=False)
    return write_headroom_report(found, config.output, title=title)


def _static_head(corpus: Corpus, device: DeviceModel) -> StaticHead:
    label = corpus.split("train", device.encoder.config.text_length).label
    count = np.bincount(label[label >= 0], minlength=device.layout.num_classes) + 1.0
    weight, bias = device.head.weight.detach().numpy(), device.head.bias.detach().numpy()
    return StaticHead(weight=weight, bias=bias, prior=count / count.sum())


def _live_devices(corpus: Corpus, device: DeviceModel) -> Iterator[LiveDevice]:
    live = corpus.split("test", device.encoder.config.text_length)
    label_of = dict(zip(live.example_id.tolist(), live.label.tolist(), strict=True))
    group = DeviceGroup(personal=device, static=device, store=corpus.store, seed=0)
    devices = corpus.device_map
    seen = dict(zip(devices.device_id.tolist(), devices.seen.tolist(), strict=True))
    ids = live.device_ids.tolist()
    with progress_bar() as bar:
        for device_id in bar.track(ids, task_id=bar.add_task("answering", total=len(ids), note="devices")):
            samples = gather_samples(live.stream, [device_id])
            assert samples is not None
            hidden = [group.encode(batch).hidden for batch in samples.batches(BATCH_SIZE)]
            yield LiveDevice(
                device_id=device_id,
                seen=seen[device_id],
                hidden=np.concatenate(hidden),
                clip_row=samples.clip_row,
                label=np.array([label_of[example] for example in samples.example_id.tolist()]),
            )
