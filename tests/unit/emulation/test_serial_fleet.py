import dataclasses
import zlib
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from hyperfleet.client import InProcessClient
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation.events import EVENT_SCHEMA, join_events, read_events, write_events
from hyperfleet.emulation.exchange import Networks
from hyperfleet.emulation.population import choose_devices, portion
from hyperfleet.emulation.serial import SerialRun, run_serial
from hyperfleet.errors import ConfigError, DataError, ServiceError
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.messages import FEATURE_BYTES, DeviceReport
from tests.unit.device.fleet_world import (
    LABEL,
    LAYOUT,
    NETWORKS,
    World,
    generate,
    tiny_models,
    whole_heads,
)


def serial(world: World, generate=generate, **fields) -> SerialRun:
    personal, static = tiny_models()
    group = DeviceGroup(personal=personal, static=static, store=world.store, seed=0)
    client = InProcessClient(generate, LABEL)
    chunks = portion(world.device_ids, 2)
    return run_serial(
        group, world.stream, client, chunks, networks=Networks(seed=0, names=NETWORKS), **fields
    )


def test_every_question_of_every_device_is_answered_once_and_its_latency_adds_up():
    world = World((2, 0, 1, 2))
    run = serial(world)
    rows = run.events.to_pylist()
    assert run.empty_devices == (1,)
    assert Counter(row["device_id"] for row in rows) == {0: 4, 2: 2, 3: 4}
    assert [row["example_id"] for row in rows] == list(range(1000, 1010))
    for row in rows:
        network = PAPER_NETWORKS[row["network"]]
        assert (row["uplink_bytes"], row["model_version"], row["fallback"]) == (FEATURE_BYTES, "3", "")
        assert row["downlink_bytes"] > LAYOUT.num_bytes
        assert row["uplink_s"] == network.uplink_s(row["uplink_bytes"])
        assert row["downlink_s"] == network.downlink_s(row["downlink_bytes"])
        assert min(row["queue_s"], row["generate_s"], row["apply_s"]) >= 0
        # The link is computed, not slept: the clock saw only what was measured.
        measured_s = row["queue_s"] + row["generate_s"] + row["apply_s"]
        assert (row["answered_at"] - row["asked_at"]).total_seconds() >= measured_s - 1e-3
        assert datetime.now(UTC) >= row["answered_at"] >= row["asked_at"]
    assert len({row["network"] for row in rows if row["device_id"] == 0}) == 1


def test_a_run_repeats_and_batches_do_not_change_it():
    chosen = ["device_id", "example_id", "network", "answer", "static_answer", "base_answer", "anchor_frame"]
    run = serial(World((2, 1, 2)))
    assert serial(World((2, 1, 2))).events.select(chosen).equals(run.events.select(chosen))
    assert serial(World((2, 1, 2)), batch_size=3).events.select(chosen).equals(run.events.select(chosen))


def test_heads_sent_as_a_difference_to_the_devices_own_give_the_same_answers_for_half_the_bytes():
    world = World((2, 1))
    personal, static = tiny_models()
    group = DeviceGroup(personal=personal, static=static, store=world.store, seed=0)
    base = group.base
    client = InProcessClient(
        lambda features: dataclasses.replace(generate(features), base=base), LABEL, "delta-fp16", base
    )
    networks = Networks(seed=0, names=NETWORKS)
    events = run_serial(group, world.stream, client, portion(world.device_ids, 2), networks=networks).events
    whole = serial(World((2, 1))).events
    assert events["answer"].to_pylist() == whole["answer"].to_pylist()
    assert set(events["fallback"].to_pylist()) == {""}
    assert max(events["downlink_bytes"].to_pylist()) < 0.7 * min(whole["downlink_bytes"].to_pylist())


def test_without_a_head_the_device_answers_by_itself_and_says_why():
    def sometimes(features: np.ndarray):
        if zlib.crc32(features.tobytes()) % 2:
            raise ServiceError("no generator today")
        return generate(features)

    rows = serial(World((4, 4)), generate=sometimes).events.to_pylist()
    failed = [row for row in rows if row["fallback"]]
    assert 0 < len(failed) < len(rows) == 16
    for row in failed:
        assert row["fallback"] == "ServiceError: no generator today"
        assert row["answer"] == row["base_answer"]
        assert (row["model_version"], row["downlink_bytes"], row["downlink_s"]) == ("", 0, 0)


def test_a_head_of_nan_and_a_feature_of_nan_are_fallbacks_too():
    def broken(features: np.ndarray):
        return whole_heads(np.full((len(features), LAYOUT.num_params), np.nan, "f4"))

    rows = serial(World((1,)), generate=broken).events.to_pylist()
    assert all(
        row["fallback"].startswith("HeadLayoutError: the head from model 3 gives 7 scores") for row in rows
    )
    personal, static = tiny_models()
    personal.encoder.transformer.norm.bias.fill_(float("nan"))
    world = World((1,))
    group = DeviceGroup(personal=personal, static=static, store=world.store, seed=0)
    client = InProcessClient(generate, LABEL)
    run = run_serial(group, world.stream, client, [(0,)], networks=Networks(seed=0, names=NETWORKS))
    for row in run.events.to_pylist():
        assert row["fallback"].startswith("FeatureError: features must be finite")
        assert row["uplink_bytes"] == 0


def test_events_hold_every_field_of_a_report_and_survive_the_disk(tmp_path):
    assert set(DeviceReport.__dataclass_fields__) < set(EVENT_SCHEMA.names)
    assert all(field.metadata[b"description"] for field in EVENT_SCHEMA)
    events = serial(World((1, 1))).events
    assert read_events(write_events(tmp_path / "run" / "events.parquet", events)).equals(events)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["events.parquet"]
    with pytest.raises(DataError, match="`hyperfleet fleet` writes them"):
        read_events(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="8 events tell of 4 questions"):
        join_events([events, events])
    other = tmp_path / "other.parquet"
    pa.parquet.write_table(events.drop_columns("answer"), other)
    with pytest.raises(DataError, match="run the fleet again"):
        read_events(other)


def test_fleets_keep_the_proportion_of_held_out_devices():
    seen = {device: device < 80 for device in range(100)}
    drawn = choose_devices(seen, 25, seed=0)
    assert (len(drawn), sum(seen[device] for device in drawn)) == (25, 20)
    assert drawn == choose_devices(seen, 25, seed=0) != choose_devices(seen, 25, seed=1)
    assert set(drawn) < set(choose_devices(seen, 50, seed=0))
    assert choose_devices(seen, 100, seed=0) == tuple(range(100))
    assert sorted(seen[device] for device in choose_devices(seen, 2, seed=0)) == [False, True]
    with pytest.raises(ConfigError, match=r"asked for 101 devices and the data set has 100"):
        choose_devices(seen, 101, seed=0)


def test_portions_are_disjoint_and_complete():
    assert portion(range(7), 3) == [(0, 1, 2), (3, 4, 5), (6,)]
    with pytest.raises(ConfigError, match="devices_per_chunk must be >= 1"):
        portion(range(7), 0)
