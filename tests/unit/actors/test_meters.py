from typing import ClassVar

import pytest

from actors import meters
from actors.meters import FleetMeter, TrainMeter


class Counted:
    """Stands for Ray's Counter and Gauge: keeps what it was told under its name."""

    told: ClassVar[dict[str, list[tuple[float, dict[str, str]]]]] = {}

    def __init__(self, name, description, tag_keys):
        assert description
        self.name, self.keys, self.defaults = name, tag_keys, {}

    def set_default_tags(self, tags):
        self.defaults = tags

    def inc(self, value):
        self.set(value, {})

    def set(self, value, tags):
        tags = {**self.defaults, **tags}
        assert set(tags) == set(self.keys)
        Counted.told.setdefault(self.name, []).append((value, tags))


@pytest.fixture(autouse=True)
def _counted(monkeypatch):
    monkeypatch.setattr(Counted, "told", {})
    monkeypatch.setattr(meters, "Counter", Counted)
    monkeypatch.setattr(meters, "Gauge", Counted)


def test_a_fleet_counts_what_is_new_and_each_death_once():
    meter = FleetMeter("01")
    meter.answered(samples=10, requests=8, fallbacks=0, deaths=1)
    meter.answered(samples=5, requests=5, fallbacks=2, deaths=1)
    meter.answered(samples=5, requests=5, fallbacks=0, deaths=3)
    run = {"run": "01"}
    assert Counted.told == {
        "hyperfleet_fleet_samples": [(10, run), (5, run), (5, run)],
        "hyperfleet_fleet_requests": [(8, run), (5, run), (5, run)],
        "hyperfleet_fleet_fallbacks": [(2, run)],
        "hyperfleet_fleet_host_deaths": [(1, run), (2, run)],
    }


def test_a_training_tells_its_step_and_what_it_measured():
    meter = TrainMeter("ab")
    meter.at(12)
    meter.measured("warm", {"loss_total": 2.5})
    assert Counted.told == {
        "hyperfleet_train_step": [(12, {"run": "ab"})],
        "hyperfleet_train_value": [(2.5, {"run": "ab", "stage": "warm", "name": "loss_total"})],
    }
