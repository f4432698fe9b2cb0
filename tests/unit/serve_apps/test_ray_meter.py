import asyncio
from collections import defaultdict

import pytest

from hyperfleet.messages import ModelLabel
from serve_apps import ray_meter


class Told:
    """Counter that records its increments, in place of Ray's."""

    def __init__(self, name, **_):
        self.name, self.told = name, []

    def inc(self, value, tags):
        self.told.append((value, tags))


@pytest.fixture
def metrics(monkeypatch):
    made = {}

    def make(name, **settings):
        made[name] = Told(name, **settings)
        return made[name]

    monkeypatch.setattr(ray_meter, "Counter", make)
    monkeypatch.setattr(ray_meter, "_REPORT_EVERY_S", 0.01)
    return made


def answer(meter, num_heads, codec="fp32", queue_s=-1e-9):
    label = ModelLabel(model="qa", version="3", task="open-ended-qa")
    meter.answered(label, codec, num_heads, num_bytes=10, queue_s=queue_s)


def test_sums_are_reported_to_ray_once(metrics):
    async def run():
        meter = ray_meter.RayMeter()
        answer(meter, 2)
        answer(meter, 3)
        answer(meter, 1, "int8")
        meter.generated(5, 0.02)
        meter.encoded(0.03)
        meter.refused("OverloadedError")
        meter.refused("OverloadedError")
        assert metrics["hyperfleet_requests"].told == []
        await asyncio.sleep(0.05)
        answer(meter, 4)
        meter.report()
        await asyncio.sleep(0.05)

    asyncio.run(run())
    fp32 = {"model": "qa", "version": "3", "codec": "fp32"}
    int8 = fp32 | {"codec": "int8"}
    assert metrics["hyperfleet_requests"].told == [(2, fp32), (1, int8), (1, fp32)]
    assert metrics["hyperfleet_heads"].told == [(5, fp32), (1, int8), (4, fp32)]
    assert metrics["hyperfleet_reply_bytes"].told == [(20, fp32), (10, int8), (10, fp32)]
    assert metrics["hyperfleet_refusals"].told == [(2, {"reason": "OverloadedError"})]


def test_a_histogram_is_reported_as_prometheus_counters(metrics):
    waits = [0.0, 0.001, 0.0011, 0.3, 60.0]

    async def run():
        meter = ray_meter.RayMeter()
        for wait in waits:
            answer(meter, 1, queue_s=wait)
        meter.generated(5, 0.02)
        meter.encoded(0.03)
        await asyncio.sleep(0.05)
        meter.generated(1, 0.02)
        meter.report()

    asyncio.run(run())
    of_part = defaultdict(dict)
    for value, tags in metrics["hyperfleet_latency_s_bucket"].told:
        of_part[tags["part"]][tags["le"]] = of_part[tags["part"]].get(tags["le"], 0) + value
    bounds = [f"{value}" for value in ray_meter._LATENCY_BOUNDARIES_S]
    for part, values in {"queue": waits, "generate": [0.02, 0.02], "encode": [0.03]}.items():
        below = {bound: sum(value <= float(bound) for value in values) for bound in bounds}
        # All buckets are present, or a quantile would be computed from the lowest one that is.
        assert of_part[part] == pytest.approx(below | {"+Inf": len(values)}, abs=1e-6)
        assert all(num > 0 for num in of_part[part].values())
        told = [metrics[f"hyperfleet_latency_s_{name}"].told for name in ("sum", "count")]
        sums, counts = ([value for value, tags in each if tags == {"part": part}] for each in told)
        assert sum(sums) == pytest.approx(sum(values))
        counts = [
            value for value, tags in metrics["hyperfleet_latency_s_count"].told if tags == {"part": part}
        ]
        assert sum(counts) == len(values)
    assert metrics["hyperfleet_batch_heads_sum"].told == [(5, {}), (1, {})]
    buckets = [
        (value, tags["le"]) for value, tags in metrics["hyperfleet_batch_heads_bucket"].told if value == 1
    ]
    # Five heads, then one head: increments are reported.
    assert [label for _, label in buckets[:5]] == ["8.0", "16.0", "32.0", "64.0", "128.0"]
    assert [label for _, label in buckets[6:]][:2] == ["1.0", "2.0"]


def test_a_failed_report_does_not_end_the_counting(metrics):
    async def run():
        meter = ray_meter.RayMeter()
        counter = metrics["hyperfleet_refusals"]
        takes, counter.inc = counter.inc, None
        meter.refused("a")
        with pytest.raises(TypeError):
            meter.report()
        counter.inc = takes
        meter.refused("b")
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert metrics["hyperfleet_refusals"].told == [(1, {"reason": "b"})]
