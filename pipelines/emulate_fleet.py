"""Run a fleet of emulated devices against the generator and keep what each of them reported."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from actors.device_host import HostSpec
from actors.fleet import Fleet, FleetProgress
from actors.node_folder import open_live_folder
from actors.placement import alive_nodes
from hyperfleet.bundle import BundleConfig, load_device_model
from hyperfleet.device.group import check_comparable
from hyperfleet.emulation.events import join_events, write_events
from hyperfleet.emulation.live_data import open_live_data
from hyperfleet.emulation.population import choose_devices, portion
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import DEFAULT_CODEC
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.link.network import PAPER_NETWORKS, network
from hyperfleet.tracking.registry import NEWEST, ResolvedBundle
from pipelines.fleet_models import NEWEST_STATIC, TOKEN_VARIABLE, check_service, open_models
from pipelines.generator_for_run import generator_for_run
from pipelines.progress import progress_bar
from pipelines.runtime import connect
from pipelines.storage import for_all_nodes

EVENTS_FILE = "events.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetConfig:
    """A fleet run: which devices, with which models, over which networks.

    Attributes:
        devices: devices in the fleet, drawn so that held-out ones keep their share of the data set.
        hosts: processes that host them; None means one for each place that the cluster has for them.
        seed: draws devices, their networks and the anchor frames.
        networks: networks that devices are on, each as often as the others.
        samples_per_device: questions a device asks at most; None means all of its live stream.
        data: a rendered data set (`hyperfleet data render`).
        model: personalized model: models:/name@alias, models:/name/3 or a bundle folder.
        static_model: Fine-tuning model that answers the same questions, named the same way.
        tracking_uri: MLflow store; None means $MLFLOW_TRACKING_URI or ./mlflow.db.
        generator_url: a generator that runs already; None starts one on the cluster for this run.
        port: port for the generator that is started; 0 takes a free one.
        replicas: replicas of it.
        codec: how heads travel, e.g. fp32 (exact), int8 or rank4; see `hyperfleet codecs`.
        concurrent_requests: requests each host has under way at a time.
        batch_size: samples a host encodes together.
        devices_per_chunk: devices a host is given at a time; what is lost and redone when a host dies.
        output: folder for the event table.
    """

    devices: int = 1000
    hosts: int | None = None
    seed: int = 0
    networks: tuple[str, ...] = tuple(PAPER_NETWORKS)
    samples_per_device: int | None = None
    data: Path = Path("data/demo")
    model: str = NEWEST
    static_model: str = NEWEST_STATIC
    tracking_uri: str | None = None
    generator_url: str | None = None
    port: int = 0
    replicas: int = 1
    codec: str = DEFAULT_CODEC
    concurrent_requests: int = 8
    batch_size: int = 32
    devices_per_chunk: int = 16
    output: Path = Path("outputs/fleet")

    def __post_init__(self) -> None:
        for name in ("devices", "replicas", "concurrent_requests", "batch_size", "devices_per_chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"FleetConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("hosts", "samples_per_device"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"FleetConfig.{name} must be at least 1, or left out, got {value}")
        if not self.networks:
            raise ConfigError(f"FleetConfig.networks is empty, expected some of {', '.join(PAPER_NETWORKS)}")
        for name in self.networks:
            network(name)
        head_codec(self.codec)


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetResult:
    """What a fleet run left behind and what it took.

    Attributes:
        events: Parquet table, one row a question that a device answered (`hyperfleet.emulation.events`).
        data: the data set, with the answer key for scoring.
        model: what the generator served.
        static_model: what answered beside it.
        bundle: configuration of the personalized model.
        num_devices: devices that took part.
        num_requests: questions they answered.
        fallbacks: for each reason how many questions were answered without a generated head.
        empty_devices: devices that had no live question; counted in `num_devices`.
        num_skipped: live questions of the data set left out because their video is broken.
        num_hosts: processes that hosted the devices.
        host_deaths: hosts that died and were replaced.
        wall_s: time from the first request handed out to the last answer, start-up aside.
        start_s: time to start generator and hosts.
        encode_s: time spent encoding, summed over hosts.
        host_cpu_s: CPU time of the hosts, start-up included.
        host_peak_bytes: largest resident size of each host, summed.
    """

    events: Path
    data: Path
    model: ResolvedBundle
    static_model: ResolvedBundle
    bundle: BundleConfig
    num_devices: int
    num_requests: int
    fallbacks: dict[str, int]
    empty_devices: tuple[int, ...]
    num_skipped: int
    num_hosts: int
    host_deaths: int
    wall_s: float
    start_s: float
    encode_s: float
    host_cpu_s: float
    host_peak_bytes: int

    @property
    def requests_per_s(self) -> float:
        """Questions answered in a second."""
        return self.num_requests / self.wall_s


def run_fleet(config: FleetConfig, console: Console | None = None) -> FleetResult:
    """Let the devices ask for heads and answer their questions; scoring is another step.

    Raises:
        HyperFleetError: data, models or service cannot be used; raised before any host starts.
        ServiceError: hosts die again and again.
    """
    started = time.perf_counter()
    models = open_models(config.model, config.static_model, config.data, config.tracking_uri)
    text_length = models.bundle.encoder.text_length
    data = open_live_data(config.data, text_length)
    devices = choose_devices(data.seen, config.devices, config.seed)
    connect()
    _check_reach(config)
    where = config.tracking_uri, config.generator_url
    with generator_for_run(models.personal.uri, *where, port=config.port, replicas=config.replicas) as url:
        served = check_service(url, models)
        spec = HostSpec(
            open_data=partial(open_live_folder, for_all_nodes(config.data), text_length),
            generator_url=url,
            task=served.task,
            model=served.name,
            codec=config.codec,
            token=os.environ.get(TOKEN_VARIABLE),
            seed=config.seed,
            networks=config.networks,
            samples_per_device=config.samples_per_device,
            batch_size=config.batch_size,
            max_concurrent_requests=config.concurrent_requests,
        )
        weights = [load_device_model(each.local_dir) for each in (models.personal, models.static)]
        check_comparable(*weights)
        with Fleet(spec, personal=weights[0], static=weights[1], num_hosts=config.hosts) as fleet:
            running = time.perf_counter()
            with _progress_bar(len(devices), console) as on_progress:
                results = fleet.run(portion(devices, config.devices_per_chunk), on_progress)
            wall_s = time.perf_counter() - running
            num_hosts = len(fleet.host_pids)
            usage = fleet.stop()
    events = join_events([result.events for result in results])
    return FleetResult(
        events=write_events(config.output / EVENTS_FILE, events),
        data=config.data,
        model=models.personal,
        static_model=models.static,
        bundle=models.bundle,
        num_devices=len(devices),
        num_requests=events.num_rows,
        fallbacks=dict(Counter(reason for reason in events["fallback"].to_pylist() if reason)),
        empty_devices=tuple(device for result in results for device in result.empty_devices),
        num_skipped=data.num_skipped,
        num_hosts=num_hosts,
        host_deaths=fleet.host_deaths,
        wall_s=wall_s,
        start_s=running - started,
        encode_s=sum(result.encode_s for result in results),
        host_cpu_s=sum(each.cpu_s for each in usage),
        host_peak_bytes=sum(each.peak_rss_bytes for each in usage),
    )


def _check_reach(config: FleetConfig) -> None:
    if config.generator_url is None and (num_nodes := len(alive_nodes())) > 1:
        raise ConfigError(
            "a generator that is started for a run listens on one machine alone, and this cluster has "
            f"{num_nodes}: `serve deploy serve_apps/production.yaml`, then name it as generator_url"
        )


@contextmanager
def _progress_bar(num_devices: int, console: Console | None) -> Iterator[Callable[[FleetProgress], None]]:
    started = time.perf_counter()
    with progress_bar(console) as progress:
        bar = progress.add_task("devices", total=num_devices, note="first answers are on their way")

        def show(state: FleetProgress) -> None:
            rate = state.requests_done / (time.perf_counter() - started)
            note = f"{state.requests_done:,} requests, {rate:.0f}/s"
            if state.fallbacks:
                note += f", {state.fallbacks:,} without a head"
            if state.host_deaths:
                note += f", {state.host_deaths} hosts replaced"
            progress.update(bar, completed=state.devices_done, note=note)

        yield show
