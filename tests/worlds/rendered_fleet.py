"""A rendered data set of six devices, untrained models for it and a scenario that runs on both."""

from dataclasses import dataclass
from pathlib import Path

import torch

from hyperfleet.bundle import BundleConfig, build_model, save_bundle
from hyperfleet.client import RetryPolicy
from hyperfleet.datasets import Corpus
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.nn import ENCODERS, HeadGeneratorConfig
from hyperfleet.scenario.arrivals import Poisson
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import ClockSkew, CorruptReplies, KillReplica, RefuseRequests
from hyperfleet.scenario.policies import EveryN
from pipelines.render_data import render

SCALE = FleetQAConfig(num_seen_devices=4, num_held_out_devices=2, history_clips=2, live_clips=1)
SCENARIO = Scenario(
    name="small",
    registered_devices=200,
    active_devices=30,
    duration_s=60.0,
    arrivals=Poisson(per_device_per_s=0.5),
    networks=("lte_drive", "4g-5"),
    policy=EveryN(n=2),
    cloud=CloudModel(replicas=2),
    retry=RetryPolicy(try_timeout_s=3.0, deadline_s=6.0),
    faults=(
        CorruptReplies(from_s=5.0, to_s=20.0, share=0.5),
        RefuseRequests(from_s=25.0, to_s=30.0, status=503),
        KillReplica(at_s=40.0),
        ClockSkew(share=0.3),
    ),
)


@dataclass(frozen=True)
class Place:
    """A folder with the data set and a bundle of each method."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def model(self) -> Path:
        return self.root / "cdc_mmpg"

    @property
    def static_model(self) -> Path:
        return self.root / "fine_tuning"


def make_place(root: Path) -> Place:
    """Render the data set and write the bundles."""
    place = Place(root)
    corpus = Corpus.open(render(SCALE, place.data, workers=0, show_progress=False))
    for method in ("cdc_mmpg", "fine_tuning"):
        torch.manual_seed(len(method) + 1)
        config = BundleConfig(
            task="open-ended-qa",
            method=method,
            seed=0,
            num_classes=corpus.vocabulary.num_classes,
            encoder=ENCODERS["tiny"](corpus.tokenizer.vocab_size),
            # Full heads, not offsets to the static one, so every sample gets a different head.
            generator=HeadGeneratorConfig(static_base=False) if method == "cdc_mmpg" else None,
        )
        model = build_model(config)
        with torch.no_grad():
            # An untrained encoder returns almost the same feature for every input, hence one answer for all.
            for weight in model.device.encoder.transformer.blocks.parameters():
                weight.mul_(16 if weight.dim() == 2 else 1)
        files = {"tokenizer_file": corpus.tokenizer_file, "answers_file": corpus.answers_file}
        save_bundle(root / method, config, model, **files)
    return place
