import asyncio
import os
import signal
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from actors.device_host import DeviceHost, HostSpec
from actors.fleet import Fleet, FleetProgress
from hyperfleet.client import InProcessClient, RetryPolicy
from hyperfleet.device import DeviceGroup, gather_samples
from hyperfleet.emulation.events import join_events
from hyperfleet.emulation.exchange import Networks
from hyperfleet.emulation.population import portion
from hyperfleet.emulation.serial import SerialRun, run_serial
from hyperfleet.errors import ConfigError, DataError, ServiceError, UnknownNameError
from hyperfleet.messages import FEATURE_BYTES
from pipelines.runtime import connect, disconnect
from tests.unit.device.fleet_world import (
    LABEL,
    NETWORKS,
    Traffic,
    World,
    generate,
    generator_server,
    opener,
    tiny_models,
)

pytestmark = pytest.mark.integration

CLIPS_OF = (2, 0, 1, 3, 1, 1, 2, 0, 1, 1)
REPEATABLE = [
    "device_id",
    "example_id",
    "network",
    "model_version",
    "answer",
    "static_answer",
    "base_answer",
    "anchor_frame",
    "uplink_bytes",
    "downlink_bytes",
    "uplink_s",
    "downlink_s",
    "fallback",
]
CHUNKS = portion(range(len(CLIPS_OF)), 2)


@pytest.fixture(scope="module", autouse=True)
def _ray():
    connect(num_cpus=2)
    yield
    disconnect()


@pytest.fixture(scope="module")
def oracle() -> SerialRun:
    world = World(CLIPS_OF)
    personal, static = tiny_models()
    group = DeviceGroup(personal=personal, static=static, store=world.store, seed=0)
    client = InProcessClient(generate, LABEL)
    return run_serial(group, world.stream, client, CHUNKS, networks=Networks(seed=0, names=NETWORKS))


def fleet(
    traffic: Traffic,
    num_hosts: int,
    *,
    on_progress: Callable[[Fleet, FleetProgress], None] = lambda fleet, progress: None,
    open_data: Callable[[], World] | None = None,
    retry: RetryPolicy | None = None,
    chunks: list[tuple[int, ...]] = CHUNKS,
) -> tuple[pa.Table, set[int], Fleet]:
    """Run the fleet of `CLIPS_OF` against `traffic`; return events, empty devices and the fleet."""
    personal, static = tiny_models()
    with generator_server(traffic) as url:
        spec = HostSpec(
            open_data=open_data or opener(CLIPS_OF),
            generator_url=url,
            task="vqa",
            seed=0,
            networks=NETWORKS,
            max_concurrent_requests=3,
            retry=retry or RetryPolicy(),
        )
        with Fleet(spec, personal=personal, static=static, num_hosts=num_hosts) as running:
            results = running.run(chunks, lambda progress: on_progress(running, progress))
            usage = running.stop()
    assert [result.device_ids for result in results] == chunks
    assert all(each.cpu_s > 0 and each.peak_rss_bytes > 50 << 20 for each in usage)
    return join_events([r.events for r in results]), {d for r in results for d in r.empty_devices}, running


@dataclass
class Run:
    events: pa.Table
    empty: set[int]
    traffic: Traffic
    progress: list[FleetProgress]


@pytest.fixture(scope="module", params=[1, 2], ids=["1 host", "2 hosts"])
def run(request) -> Run:
    traffic, progress = Traffic(hold_until_concurrent=3), []
    events, empty, _ = fleet(traffic, request.param, on_progress=lambda _, p: progress.append(p))
    assert traffic.max_concurrent <= 3 * request.param
    return Run(events, empty, traffic, progress)


def test_a_fleet_on_ray_gives_what_the_serial_loop_gives(run, oracle):
    assert run.events.select(REPEATABLE).equals(oracle.events.select(REPEATABLE))
    assert run.empty == set(oracle.empty_devices) == {1, 7}


def test_requests_of_one_device_each_reach_the_service_concurrently_and_progress_is_told(run):
    assert run.traffic.max_concurrent >= 3
    done = [(p.devices_done, p.requests_done) for p in run.progress]
    assert done == sorted(done)
    last = FleetProgress(devices_done=10, devices_total=10, requests_done=24, fallbacks=0, host_deaths=0)
    assert run.progress[-1] == last


def test_all_that_leaves_the_devices_is_one_feature_a_question(run):
    world = World(CLIPS_OF)
    group = DeviceGroup(personal=tiny_models()[0], static=tiny_models()[1], store=world.store, seed=0)
    anchors = np.concatenate([group.encode(gather_samples(world.stream, c)[0]).anchor for c in CHUNKS])
    assert {len(body) for body in run.traffic.bodies} == {FEATURE_BYTES}
    sent = np.stack([np.frombuffer(body, "<f4") for body in run.traffic.bodies])
    distance = np.abs(sent[:, None] - anchors).max(axis=2)
    assert sorted(distance.argmin(axis=1)) == list(range(len(anchors)))
    assert distance.min(axis=1).max() < 1e-4


def test_a_killed_host_loses_no_device_and_counts_no_request_twice(oracle):
    killed: list[int] = []

    def kill_one(running: Fleet, progress: FleetProgress) -> None:
        if not killed:
            killed.append(running.host_pids[0])
            os.kill(killed[0], signal.SIGKILL)

    # Many chunks, so that after the first there is work left for the dead one.
    alone = portion(range(len(CLIPS_OF)), 1)
    events, empty, running = fleet(Traffic(), 2, on_progress=kill_one, chunks=alone)
    assert running.host_deaths >= 1
    assert killed[0] not in running.host_pids
    assert events.select(REPEATABLE).equals(oracle.events.select(REPEATABLE))
    assert Counter(events["example_id"].to_pylist()).most_common(1)[0][1] == 1
    assert empty == {1, 7}


def test_a_service_that_refuses_some_requests_costs_answers_but_no_device(oracle):
    refused = {400, 503}
    traffic = Traffic(refuse=lambda body: {0: 400, 1: 503}.get(zlib.crc32(body) % 4))
    events, _, _ = fleet(traffic, 2, retry=RetryPolicy(max_tries=2, backoff_s=0.001))
    rows = events.to_pylist()
    assert len(rows) == oracle.events.num_rows
    reasons = [row["fallback"] for row in rows if row["fallback"]]
    assert len(reasons) < len(rows)
    assert all(any(f"HTTP {status}: refused" in reason for status in refused) for reason in reasons)
    assert any("no head after 2 tries" in reason for reason in reasons)
    assert all(row["answer"] == row["base_answer"] for row in rows if row["fallback"])


def no_data() -> World:
    raise DataError("no data set on this machine")


def no_process() -> World:
    os._exit(1)


def test_hosts_that_cannot_start_say_why():
    with pytest.raises(DataError, match=r"^no data set on this machine$"):
        fleet(Traffic(), 1, open_data=no_data)
    with pytest.raises(ConfigError, match="num_hosts must be >= 1, got 0"):
        fleet(Traffic(), 0)


def test_a_host_asks_for_what_the_service_has_and_keeps_its_token_to_itself():
    def host(url: str, **fields: str) -> DeviceHost:
        wanted = {"task": "vqa", **fields}
        spec = HostSpec(open_data=opener((1,)), generator_url=url, seed=0, networks=NETWORKS, **wanted)
        assert "s3cret" not in repr(spec)
        return DeviceHost(spec, *tiny_models())

    with generator_server(Traffic()) as url:
        with pytest.raises(ConfigError, match="test 3 is served in fp32, not in codec 'rank4'"):
            asyncio.run(host(url, codec="rank4", token="s3cret").start())
        with pytest.raises(ServiceError, match="no model called 'other' for task 'vqa'; it serves test 3"):
            asyncio.run(host(url, model="other").start())
    with pytest.raises(UnknownNameError, match="unknown head codec 'fp8'"):
        host(url, codec="fp8")


@pytest.mark.slow
def test_hosts_that_die_while_they_start_are_not_started_for_ever():
    with pytest.raises(ServiceError, match="3 hosts died while they started"):
        fleet(Traffic(), 1, open_data=no_process)


@pytest.mark.slow
def test_a_host_that_cannot_reach_the_generator_refuses_to_start():
    personal, static = tiny_models()
    spec = HostSpec(
        open_data=opener((1,)), generator_url="http://127.0.0.1:9", task="vqa", seed=0, networks=NETWORKS
    )
    with (
        pytest.raises(ServiceError, match=r"no parameter generator answers at http://127\.0\.0\.1:9"),
        Fleet(spec, personal=personal, static=static, num_hosts=1),
    ):
        pass
