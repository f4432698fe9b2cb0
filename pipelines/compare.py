"""Static against personalized heads over several seeds: training and scoring, without the service."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hyperfleet.bundle import load_device_model, load_generator, read_config
from hyperfleet.client import InProcessClient
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.datasets import Corpus
from hyperfleet.datasets.fleetqa.scales import at_shift
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation.exchange import Networks
from hyperfleet.emulation.population import portion
from hyperfleet.emulation.serial import run_serial
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation import wording
from hyperfleet.evaluation.metrics import AnswerKey, FleetScore, Roster, score
from hyperfleet.evaluation.rendering import to_markdown, to_rich
from hyperfleet.evaluation.seeds import seed_results, seeds_table, summarise
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.messages import ModelLabel
from hyperfleet.tracking.registry import GENERATOR_NAME
from pipelines.demo import DemoConfig, train_pair
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.train_generator import TrainResult

DEVICES_PER_CHUNK = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """Train both methods with several seeds on one data set and compare them on the live streams.

    Attributes:
        seeds: seeds of training; the data set is the same for all.
        scale: size of the rendered data set: smoke, demo or full.
        shift: how far cameras differ. 0 is the control in which personalization has nothing to gain: cameras
            are neutral, and devices get to see all colors and shapes equally often.
        workers: Ray Train workers; they share the cores of this machine.
        warm_epochs: passes that both methods share.
        epochs: passes of each method's own.
        data: folder of the data set; None means data/<scale>, or data/<scale>-shift-<shift>.
        output: folder of models and of the table.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    scale: str = "demo"
    shift: float = 1.0
    workers: int = 1
    warm_epochs: int = DemoConfig().warm_epochs
    epochs: int = DemoConfig().epochs
    data: Path | None = None
    output: Path = Path("outputs/compare")

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 2 or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"CompareConfig.seeds needs two or more different seeds, got {self.seeds}")


def compare(config: CompareConfig) -> Path:
    """Train and score every seed, print the table and return the Markdown file it is in."""
    console = Console()
    name = config.scale if config.shift == 1 else f"{config.scale}-shift-{config.shift:g}"
    data = config.data or Path("data") / name
    connect()
    try:
        render(at_shift(config.scale, config.shift), data)
        scores = {}
        for seed in config.seeds:
            scores[seed] = _train_and_score(config, data, config.output / name, seed)
            console.print(f"seed {seed}: {wording.headline(scores[seed])}")
    finally:
        disconnect()
    tables = [
        seeds_table(summarise(seed_results(scores))),
        seeds_table(summarise(seed_results(scores, held_out=True))),
    ]
    for table in tables:
        console.print(to_rich(table))
    path = config.output / name / "seeds.md"
    path.write_text("\n\n".join(to_markdown(table) for table in tables) + "\n")
    return path


def _train_and_score(config: CompareConfig, data: Path, output: Path, seed: int) -> FleetScore:
    pair = DemoConfig(
        scale=config.scale,
        workers=config.workers,
        warm_epochs=config.warm_epochs,
        epochs=config.epochs,
        data=data,
    )
    static, personal = train_pair(pair, output / f"seed-{seed}", seed)
    return score_pair(data, static, personal, seed)


def score_pair(data: Path, static: TrainResult, personal: TrainResult, seed: int) -> FleetScore:
    """Let every device of the data set answer its live stream with both heads, in this process."""
    corpus = Corpus.open(data)
    bundle = read_config(personal.bundle)
    live = corpus.split("test", bundle.encoder.text_length)
    group = DeviceGroup(
        personal=load_device_model(personal.bundle),
        static=load_device_model(static.bundle),
        store=corpus.store,
        seed=seed,
    )
    generator = ParameterGenerator(load_generator(personal.bundle))
    label = ModelLabel(model=GENERATOR_NAME, version=personal.model_version, task=bundle.task)
    client = InProcessClient(generator.generate, label)
    devices = [int(device) for device in live.device_ids]
    run = run_serial(
        group,
        live.stream,
        client,
        portion(devices, DEVICES_PER_CHUNK),
        networks=Networks(seed=seed, names=tuple(PAPER_NETWORKS)),
    )
    roster = Roster(device_id=corpus.device_map.device_id, seen=corpus.device_map.seen)
    return score(run.events, AnswerKey(example_id=live.example_id, label=live.label), roster)
