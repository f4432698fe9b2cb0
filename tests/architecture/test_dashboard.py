"""The Grafana dashboard asks for metrics that exist, under the names that Ray gives them."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
METERS = ("serve_apps/ray_meter.py", "actors/meters.py")
# What Prometheus makes of one metric of each kind.
SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}


def exported() -> set[str]:
    """Names after `ray_`, read from the calls that make the metrics."""
    names = set()
    for file in METERS:
        calls = re.findall(r"(\w+)\(\s*\"(hyperfleet_\w+)\"", (ROOT / file).read_text())
        for kind, name in calls:
            names |= {f"ray_{name}{suffix}" for suffix in SUFFIXES[kind.removeprefix("_").capitalize()]}
    return names


def test_every_panel_asks_for_metrics_that_are_exported_and_none_is_left_out() -> None:
    dashboard = json.loads((ROOT / "docs/grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"ray_hyperfleet_\w+", target["expr"])
    }
    assert asked <= exported()
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked}
    assert shown == {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported()}


def test_panels_lie_beside_each_other_and_ask_the_chosen_source() -> None:
    dashboard = json.loads((ROOT / "docs/grafana.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert all(t["datasource"]["uid"] == "${datasource}" for t in panel.get("targets", ()))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
