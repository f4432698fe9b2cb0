import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from hyperfleet.planning.cloud_fit import Latencies
from hyperfleet.scenario.definition import Scenario
from pipelines import show_fleet


@pytest.mark.parametrize(("lag_s", "warned"), [(0.02, False), (0.9, True)])
def test_a_run_that_did_not_keep_up_with_its_clock_says_so(monkeypatch, lag_s, warned):
    times = Latencies(total_s=np.full(9, 0.1), cloud_s=np.full(9, 0.05), num_fallbacks=0)
    bursts = SimpleNamespace(num_heads=np.array([1, 2, 4]), seconds=np.array([0.01, 0.02, 0.04]))
    monkeypatch.setattr(show_fleet, "Latencies", SimpleNamespace(of=lambda _: times))
    monkeypatch.setattr(show_fleet, "Bursts", SimpleNamespace(load=lambda _: bursts))
    monkeypatch.setattr(show_fleet, "predict", lambda *_, **__: times)
    result = SimpleNamespace(
        real=SimpleNamespace(max_lag_s=lag_s),
        log=SimpleNamespace(answers=lambda: None, scenario=Scenario(name="x"), folder=None),
        plan=None,
        work=None,
        anchor=None,
    )
    printed = io.StringIO()
    facts = dict(show_fleet._prediction(result, Console(file=printed, width=1000)))
    assert ("900 ms behind their clock" in printed.getvalue()) == warned
    assert ("behind their clock" in facts["queue model"]) == warned
    assert "p99 50.0 predicted, 50.0 ms measured" in facts["queue model"]
