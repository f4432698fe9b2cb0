"""Headroom of personalization on a data set: page, Markdown and verdict; needs a static model only."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from hyperfleet.bundle import load_device_model, read_config
from hyperfleet.datasets import Corpus
from hyperfleet.datasets.fleetqa.truth import answer_odds
from hyperfleet.datasets.task_names import OPEN_ENDED_QA
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation.feature_table import encode_all, live_samples
from hyperfleet.emulation.live_data import open_live_data
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.headroom import LiveDevice, StaticHead, measure_headroom
from hyperfleet.evaluation.headroom_report import headroom_table, verdict, write_headroom_report
from hyperfleet.evaluation.rendering import to_rich, wide_console
from hyperfleet.head_codecs import BaseHead
from hyperfleet.nn import DeviceModel
from hyperfleet.tracking.registry import resolve_bundle
from pipelines.commands.models import HeadroomConfig

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
    found = measure_headroom(_live_devices(config.data, corpus, device), _static_head(corpus, device), odds)
    title = f"Headroom of personalization on {config.data.name}"
    wide = wide_console(console)
    wide.print(to_rich(headroom_table(found, title=title)))
    wide.print(verdict(found), markup=False)
    return write_headroom_report(found, config.output, title=title)


def _static_head(corpus: Corpus, device: DeviceModel) -> StaticHead:
    label = corpus.split("train", device.encoder.config.text_length).label
    count = np.bincount(label[label >= 0], minlength=device.layout.num_classes) + 1.0
    base = BaseHead(layout=device.layout, flat=device.flat_head().detach())
    return StaticHead(base=base, prior=count / count.sum())


def _live_devices(root: Path, corpus: Corpus, device: DeviceModel) -> Iterator[LiveDevice]:
    text_length = device.encoder.config.text_length
    live = open_live_data(root, text_length)
    samples = live_samples(live)
    group = DeviceGroup(personal=device, static=device, store=live.store, seed=0)
    hidden = encode_all(group, samples).hidden
    key = corpus.split("test", text_length)
    label_of = dict(zip(key.example_id.tolist(), key.label.tolist(), strict=True))
    label = np.array([label_of[example] for example in samples.example_id.tolist()])
    for device_id in np.unique(samples.device_id).tolist():
        own = samples.device_id == device_id
        yield LiveDevice(
            device_id=device_id,
            seen=live.seen[device_id],
            hidden=hidden[own],
            clip_row=samples.clip_row[own],
            label=label[own],
        )
