"""Odds of a device's answers, from the truth that only an upper bound may read."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hyperfleet.datasets.fleetqa.device import draw_device
from hyperfleet.datasets.fleetqa.dialect import COLOR_WORDS
from hyperfleet.datasets.fleetqa.scales import TRAITS, with_traits
from hyperfleet.datasets.fleetqa.scene import COLORS
from hyperfleet.datasets.fleetqa.truth import answer_odds
from hyperfleet.errors import DataError

ANSWERS = [word for words in COLOR_WORDS.values() for word in words] + ["left", "two", "grass", "k", ""]


def write(root: Path, traits: tuple[str, ...], num_devices: int = 60) -> list:
    devices = [draw_device(with_traits("demo", traits), number) for number in range(num_devices)]
    (root / "devices.json").write_text(json.dumps([asdict(device) for device in devices]))
    return devices


def test_a_device_answers_in_its_later_owners_words_and_taste(tmp_path: Path) -> None:
    devices = write(tmp_path, TRAITS)
    odds = answer_odds(tmp_path, ANSWERS)
    assert {device.drift for device in devices} > {"sudden", "none"}
    for device in devices:
        words = device.later_words if device.drift == "sudden" else device.words
        priors = device.later if device.drift == "sudden" else device.priors
        own = dict(zip(ANSWERS, odds[device.device_id], strict=True))
        for name in COLORS:
            for number, word in enumerate(COLOR_WORDS[name]):
                assert (own[word] > 0) == (number == words.color)
        assert own["k"] == own[""] == 1
        usual = np.mean([(d.later if d.drift == "sudden" else d.priors).motion[0] for d in devices])
        assert own["left"] == pytest.approx(priors.motion[0] / usual)


def test_the_control_has_even_odds(tmp_path: Path) -> None:
    write(tmp_path, ())
    names = [*COLORS, "left", "two", "k"]
    assert all(np.allclose(each, 1) for each in answer_odds(tmp_path, names).values())


def test_data_without_truth_has_no_odds_and_broken_files_are_named(tmp_path: Path) -> None:
    assert answer_odds(tmp_path, ANSWERS) == {}
    (tmp_path / "devices.json").write_text(json.dumps([{"device_id": 0, "family": "phone"}]))
    assert answer_odds(tmp_path, ANSWERS) == {}
    (tmp_path / "devices.json").write_text(json.dumps([{"device_id": 0, "priors": {}}]))
    with pytest.raises(DataError, match=r"devices\.json holds no FleetQA devices"):
        answer_odds(tmp_path, ANSWERS)
