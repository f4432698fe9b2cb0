import dataclasses

import pytest

from hyperfleet.errors import ConfigError, DataError, UnknownNameError
from hyperfleet.link.conditions import CONDITIONS, LinkConditions, link_conditions
from hyperfleet.link.energy import RADIOS
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.link.synthetic import SYNTHETIC
from hyperfleet.link.trace import RateTrace

STEADY = RateTrace.constant(5.0)


def plain(**changes):
    return LinkConditions(
        **{"name": "plain", "label": "Plain", "uplink": STEADY, "downlink": STEADY, **changes}
    )


def test_the_catalogue_holds_the_networks_of_the_papers_and_ours():
    assert list(CONDITIONS) == [*PAPER_NETWORKS, *SYNTHETIC]
    assert len(CONDITIONS) == 8
    assert "6g" not in CONDITIONS
    with pytest.raises(KeyError):
        CONDITIONS["6g"]
    for name, conditions in CONDITIONS.items():
        assert conditions.name == name
        assert conditions.radio in RADIOS
        assert link_conditions(name) is conditions


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_links_of_the_papers_have_their_speed_and_nothing_else(name):
    profile = PAPER_NETWORKS[name]
    assert CONDITIONS[name] == LinkConditions(
        name=name,
        label=profile.label,
        uplink=RateTrace.constant(profile.uplink_mib_per_s),
        downlink=RateTrace.constant(profile.downlink_mib_per_s),
        radio={"4g": "lte", "5g": "nr"}[name[:2]],
    )


@pytest.mark.parametrize("name", SYNTHETIC)
def test_links_of_ours_have_delay_jitter_loss_and_handovers(name):
    conditions = CONDITIONS[name]
    assert conditions.rtt_s > conditions.jitter_s > 0
    assert 0 < conditions.loss < 0.02
    assert conditions.handover_every_s > 100 * conditions.handover_gap_s > 0


def test_files_make_a_link(tmp_path):
    up, down, table = tmp_path / "up.log", tmp_path / "down.log", tmp_path / "both.csv"
    up.write_text("10\n")
    down.write_text("1\n2\n")
    table.write_text("time_s,mbit_per_s\n0,8\n1,16\n")
    recorded = link_conditions(f"mahimahi:{up}:{down}")
    assert recorded.uplink.bytes_between(0.0, 1.0) == pytest.approx(150_000)
    assert recorded.downlink.bytes_between(0.0, 1.0) == pytest.approx(1_500_000)
    assert (recorded.name, recorded.label) == (f"mahimahi:{up}:{down}", "up / down")
    assert link_conditions(f"csv:{table}:{table}").uplink.bytes_between(0.0, 2.0) == 3_000_000


@pytest.mark.parametrize("name", ["mahimahi:a", "csv:a:b:c", "csv::b", "csv:a:"])
def test_a_link_of_files_needs_two_paths(name):
    with pytest.raises(ConfigError, match=r"must name an uplink and a downlink file.*UP_PATH:DOWN_PATH"):
        link_conditions(name)


def test_names_of_nothing_are_refused(tmp_path):
    for name in ("6g", "csv", "mahimahi:", "zip:a:b"):
        with pytest.raises(UnknownNameError, match=r"unknown link conditions .*4g-15.*lte_walk.*mahimahi:UP"):
            link_conditions(name)
    with pytest.raises(DataError, match="cannot read"):
        link_conditions(f"csv:{tmp_path / 'none'}:{tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rtt_s": -0.1}, r"LinkConditions\.rtt_s must be finite and >= 0, got -0.1"),
        ({"jitter_s": float("nan")}, r"LinkConditions\.jitter_s must be finite"),
        ({"loss": 1.0}, r"LinkConditions\.loss must be >= 0 and < 1, got 1.0"),
        ({"loss": -0.1}, r"LinkConditions\.loss"),
        ({"handover_gap_s": 0.1}, r"handover_gap_s must be 0.0 without handovers, got 0.1"),
        ({"handover_every_s": 0.0}, r"handover_every_s must be finite and longer than"),
        ({"handover_every_s": 1.0, "handover_gap_s": 1.0}, r"longer than handover_gap_s \(1.0 s\), got 1.0"),
        ({"handover_every_s": float("inf")}, r"handover_every_s must be finite"),
        ({"radio": "wifi"}, r"unknown LinkConditions\.radio 'wifi'; expected one of: lte, nr"),
    ],
)
def test_conditions_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plain(**changes)


def test_conditions_can_be_varied():
    assert dataclasses.replace(CONDITIONS["4g-5"], rtt_s=0.04).rtt_s == 0.04
