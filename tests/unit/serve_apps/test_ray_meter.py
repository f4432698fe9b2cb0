import asyncio
from types import SimpleNamespace

import pytest

from serve_apps import ray_meter
from serve_apps.encoded_heads import EncodedHeads


class Told:
    """Stands for one of Ray's metrics; notes what it is told."""

    def __init__(self, name, **_):
        self.name, self.told = name, []

    def inc(self, value, tags):
        self.told.append((value, tags))

    def observe(self, value, tags=None):
        self.told.append((value, tags))


@pytest.fixture
def metrics(monkeypatch):
    made = {}

    def make(name, **settings):
        made[name] = Told(name, **settings)
        return made[name]

    monkeypatch.setattr(ray_meter, "Counter", make)
    monkeypatch.setattr(ray_meter, "Histogram", make)
    monkeypatch.setattr(ray_meter, "_TELL_EVERY_S", 0.01)
    return made


def heads(codec="fp32"):
    return EncodedHeads(
        body=bytes(10),
        checksum="",
        codec=codec,
        served=SimpleNamespace(info=SimpleNamespace(name="qa", version="3")),
        queue_s=-1e-9,
        generate_s=0.02,
        encode_s=0.03,
    )


def test_ray_is_told_the_sums_of_counters_once_and_every_latency(metrics):
    async def run():
        meter = ray_meter.RayMeter()
        meter.answered(heads(), 2)
        meter.answered(heads(), 3)
        meter.answered(heads("int8"), 1)
        meter.generated(5, 0.02)
        meter.encoded(0.03)
        meter.refused("OverloadedError")
        meter.refused("OverloadedError")
        assert metrics["hyperfleet_requests"].told == []
        await asyncio.sleep(0.05)
        meter.answered(heads(), 4)
        meter.tell()
        await asyncio.sleep(0.05)

    asyncio.run(run())
    fp32 = {"model": "qa", "version": "3", "codec": "fp32"}
    int8 = fp32 | {"codec": "int8"}
    assert metrics["hyperfleet_requests"].told == [(2, fp32), (1, int8), (1, fp32)]
    assert metrics["hyperfleet_heads"].told == [(5, fp32), (1, int8), (4, fp32)]
    assert metrics["hyperfleet_reply_bytes"].told == [(20, fp32), (10, int8), (10, fp32)]
    assert metrics["hyperfleet_refusals"].told == [(2, {"reason": "OverloadedError"})]
    parts = [(value, tags["part"]) for value, tags in metrics["hyperfleet_latency_s"].told]
    queue = [(0.0, "queue")]
    assert parts == [*queue * 3, (0.02, "generate"), (0.03, "encode"), *queue]
    assert [value for value, _ in metrics["hyperfleet_batch_heads"].told] == [5]


def test_what_ray_does_not_take_does_not_end_the_counting(metrics):
    async def run():
        meter = ray_meter.RayMeter()
        counter = metrics["hyperfleet_refusals"]
        takes, counter.inc = counter.inc, None
        meter.refused("a")
        with pytest.raises(TypeError):
            meter.tell()
        counter.inc = takes
        meter.refused("b")
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert metrics["hyperfleet_refusals"].told == [(1, {"reason": "b"})]
