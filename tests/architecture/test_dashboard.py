"""Grafana dashboard: Grafana reads all of it, and its metrics exist under Ray's names.

Grafana itself is in no package index, but its types are: they drop unknown fields, as Grafana does when it
loads a dashboard.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from enum import EnumType
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from beartype import BeartypeConf
from beartype.door import is_bearable
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).parents[2]
METERS = ("serve_apps/ray_meter.py", "actors/meters.py")
# What Prometheus sees of one metric of each kind.
SUFFIXES = {
    "Counter": ("_total",),
    "Gauge": ("",),
    "CountedHistogram": ("_bucket_total", "_sum_total", "_count_total"),
}
PANEL_TYPES = {"row", "timeseries"}
# JSON has one kind of number.
NUMBERS = BeartypeConf(is_pep484_tower=True)


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads((ROOT / "docs/grafana.json").read_text())


def targets(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in dashboard["panels"] for target in panel.get("targets", ())]


def exported() -> set[str]:
    """Names after `ray_`, read from the calls that make the metrics."""
    names = set()
    for file in METERS:
        calls = re.findall(r"_?(\w+)\(\s*\"(hyperfleet_\w+)\"", (ROOT / file).read_text())
        for kind, name in calls:
            kind = kind[0].upper() + kind[1:]
            names |= {f"ray_{name}{suffix}" for suffix in SUFFIXES[kind]}
    return names


def lost(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Return the parts of `before` that `after` lacks or has with another value."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name in after:
                yield from lost(value, after[name], f"{where}/{name}")
            else:
                yield f"{where}/{name}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from lost(left, right, f"{where}/{i}")
    elif before != after:
        yield f"{where}: {before!r} became {after!r}"


def misfits(model: Any, where: str = "") -> Iterator[str]:
    """Values of another type than Grafana's, or names that its enumerations do not have."""
    for name, hint in get_type_hints(type(model)).items():
        value, place = getattr(model, name), f"{where}/{name}"
        # Read as plain strings and numbers, which equal the members.
        choices = [
            choice for kind in (hint, *get_args(hint)) if isinstance(kind, EnumType) for choice in kind
        ]
        if not (value is None or value in choices if choices else is_bearable(value, hint, conf=NUMBERS)):
            yield f"{place}: {value!r} is not {hint}"
        for each in value if isinstance(value, list) else [value]:
            if hasattr(type(each), "from_json"):
                yield from misfits(each, place)


def test_grafana_reads_all_of_it(dashboard: dict[str, Any]) -> None:
    register_default_plugins()
    read = Dashboard.from_json(dashboard)
    assert list(lost(dashboard, json.loads(JSONEncoder().encode(read)))) == []
    assert list(misfits(read)) == []
    # Plugins are looked up by name, so that a misspelt one is a panel of any kind to the types.
    assert {panel["type"] for panel in dashboard["panels"]} <= PANEL_TYPES


def test_every_panel_asks_for_metrics_that_are_exported_and_none_is_left_out(
    dashboard: dict[str, Any],
) -> None:
    asked = {
        name for target in targets(dashboard) for name in re.findall(r"ray_hyperfleet_\w+", target["expr"])
    }
    assert asked <= exported()
    shown = {re.sub(r"(_bucket|_sum|_count)?_total$", "", name) for name in asked}
    assert shown == {re.sub(r"(_bucket|_sum|_count)?_total$", "", name) for name in exported()}


def test_panels_lie_beside_each_other_and_ask_the_chosen_source(dashboard: dict[str, Any]) -> None:
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
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(refs)) == len(refs)
        assert panel["type"] == "row" or refs, panel["title"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    sources = {
        f"${{{each['name']}}}" for each in dashboard["templating"]["list"] if each["type"] == "datasource"
    }
    assert {target["datasource"]["uid"] for target in targets(dashboard)} <= sources


def test_prometheus_understands_every_expression(dashboard: dict[str, Any], tmp_path: Path) -> None:
    assert all(target["expr"].strip() for target in targets(dashboard))
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    # As rules, since its older versions check nothing else. JSON is YAML.
    rules = [{"record": f"panel:{i}", "expr": each["expr"]} for i, each in enumerate(targets(dashboard))]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
