"""Devices with private data, encoded and played by a real host, and the real service that serves them."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import uvicorn

from actors.device_host import DeviceHost, HostSpec, Service, Share
from hyperfleet.bundle import load_device_model, load_generator
from hyperfleet.client import RetryPolicy
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.emulation.feature_table import FeatureTable, encoding_batches, join_parts, live_samples
from hyperfleet.emulation.inputs import work_of
from hyperfleet.emulation.real_time import RealTimeRun
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.head_codecs import BaseHead
from hyperfleet.messages import HeadRequest, ModelLabel, encode_heads
from hyperfleet.nn import DeviceModel
from hyperfleet.scenario.arrivals import Poisson
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.policies import EverySample
from serve_apps.access import BearerTokens
from serve_apps.head_service import HeadService
from serve_apps.http_api import build_api
from serve_apps.served_models import ModelTable
from tests.worlds.grpc_service import TASK, TOKEN, alone
from tests.worlds.private_data import PrivateData
from tests.worlds.recorded_link import RecordedLink, recorded_link
from tests.worlds.small_bundles import MAX_FEATURES

NAME = "qa"
DEADLINE_S = 60.0
TOKENS = BearerTokens.from_env("TOKENS", {"TOKENS": f"fleet {TOKEN}"})


@dataclass
class Cloud:
    """A served model and the data of its devices."""

    folder: Path

    @cached_property
    def table(self) -> ModelTable:
        return ModelTable(
            {NAME: str(self.folder)},
            tracking_uri="sqlite:///none.db",
            torch_threads=1,
            max_features=MAX_FEATURES,
        )

    @cached_property
    def generator(self) -> ParameterGenerator:
        return ParameterGenerator(load_generator(self.folder))

    @cached_property
    def device(self) -> DeviceModel:
        return load_device_model(self.folder)

    @property
    def base(self) -> BaseHead:
        return BaseHead(layout=self.device.layout, flat=self.device.flat_head().detach())

    @property
    def label(self) -> ModelLabel:
        return self.table.named(NAME).label

    @contextmanager
    def over_http(self) -> Iterator[RecordedLink]:
        """Serve in a thread, behind a recorder."""
        service = HeadService(
            self.table, alone, max_features=MAX_FEATURES, max_waiting_heads=64, tokens=TOKENS
        )
        api = build_api(service, body_timeout_s=30.0)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(api, http="httptools", lifespan="off", log_level="critical"))
        serving = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        serving.start()
        try:
            with recorded_link(listener.getsockname()[1]) as link:
                yield link
        finally:
            server.should_exit = True
            serving.join()

    def reply_to(self, body: bytes, codec: str) -> bytes:
        """Return the only content that a reply to these features may have."""
        heads = self.generator.generate(HeadRequest.from_bytes(body).features)
        return encode_heads(heads, codec=codec, label=self.label)


@dataclass
class Fleet:
    """Devices with private data and its features."""

    cloud: Cloud
    private: PrivateData
    host: DeviceHost
    features: FeatureTable

    @classmethod
    def of(cls, cloud: Cloud) -> "Fleet":
        private = PrivateData(cloud.device.encoder.config)
        host = DeviceHost(HostSpec(open_data=lambda: private, seed=0), models=(cloud.device, cloud.device))
        samples = live_samples(private)
        features = join_parts(samples, [host.encode(rows) for rows in encoding_batches(samples)])
        return cls(cloud, private, host, features)

    def play(self, port: int, codec: str) -> tuple[Plan, RealTimeRun]:
        """Run a scenario in real time, as the hosts of a fleet do."""
        scenario = Scenario(
            name="recorded",
            active_devices=4,
            registered_devices=4,
            duration_s=1.0,
            arrivals=Poisson(per_device_per_s=4.0),
            networks=("5g-100",),
            policy=EverySample(),
            codec=codec,
            retry=RetryPolicy(try_timeout_s=DEADLINE_S, deadline_s=DEADLINE_S),
        )
        plan = draw_plan(scenario, Material.of(self.features.device_id, self.private.seen))
        service = Service(
            url=f"http://127.0.0.1:{port}",
            task=TASK,
            model=NAME,
            codec=codec,
            base=self.cloud.base,
            retry=scenario.retry,
            token=TOKEN,
        )
        share = Share(
            scenario=scenario,
            plan=plan,
            work=work_of(self.cloud.device, self.cloud.generator, codec, self.cloud.label),
            begin_at_s=time.time(),
            leads=True,
            kill_replica=lambda: None,
        )
        return plan, self.host.play(share, service, self.features)
