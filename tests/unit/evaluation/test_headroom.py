"""Headroom: where there is something to gain it is found, where there is nothing it is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.headroom import (
    FITTED,
    STATIC,
    TOLD,
    Headroom,
    LiveDevice,
    Rung,
    StaticHead,
    fitted_head,
    measure_headroom,
)
from hyperfleet.evaluation.headroom_report import headroom_table, verdict, write_headroom_report
from hyperfleet.evaluation.paired import compare_mean
from hyperfleet.head_codecs import BaseHead, HeadLayout

pytestmark = pytest.mark.heavy

NUM_CLASSES, HIDDEN, NUM_DEVICES = 4, 8, 40
LAYOUT = HeadLayout(num_classes=NUM_CLASSES, hidden=HIDDEN)
FLAT = torch.cat([2 * torch.eye(NUM_CLASSES, HIDDEN).flatten(), torch.zeros(NUM_CLASSES)])
HEAD = StaticHead(base=BaseHead(layout=LAYOUT, flat=FLAT), prior=np.full(NUM_CLASSES, 0.25))


def devices(*, taste: float, noise: float = 1.5, clips: int = 4) -> list[LiveDevice]:
    """Return devices whose owner films one class with probability `taste`, the others equally."""
    made = []
    for number in range(NUM_DEVICES):
        rng = np.random.default_rng(number)
        prior = np.full(NUM_CLASSES, (1 - taste) / (NUM_CLASSES - 1))
        prior[number % NUM_CLASSES] = taste
        label = rng.choice(NUM_CLASSES, size=5 * clips, p=prior)
        hidden = np.eye(NUM_CLASSES, HIDDEN)[label] + noise * rng.normal(size=(5 * clips, HIDDEN))
        clip_row = np.repeat(np.arange(clips), 5)
        made.append(
            LiveDevice(
                device_id=number,
                seen=number < 30,
                hidden=hidden.astype(np.float32),
                clip_row=clip_row,
                label=label,
            )
        )
    return made


def odds(taste: float) -> dict[int, np.ndarray]:
    other = (1 - taste) / (NUM_CLASSES - 1)
    return {
        n: 4 * np.where(np.arange(NUM_CLASSES) == n % NUM_CLASSES, taste, other) for n in range(NUM_DEVICES)
    }


def rung(found: Headroom, name: str):
    return next(each for each in found.rungs if each.name == name)


def test_a_taste_is_headroom_and_the_rungs_take_their_share() -> None:
    found = measure_headroom(devices(taste=0.85), HEAD, odds(0.85))
    assert found.rungs[0].name == STATIC
    assert found.best.name == TOLD
    assert found.best.test.difference > 0.2
    assert found.share(found.best) == 1
    em = rung(found, "prior correction (EM)")
    assert 0.2 < found.share(em) < 1
    assert rung(found, FITTED).accuracy.mean() > found.static.accuracy.mean()
    assert "Personalization can bring at least +" in verdict(found)


def test_without_anything_personal_there_is_no_headroom() -> None:
    found = measure_headroom(devices(taste=0.25), HEAD, odds(0.25))
    assert rung(found, TOLD).accuracy.tolist() == found.static.accuracy.tolist()
    assert verdict(found).startswith("No headroom found")


def test_a_label_of_the_answered_clip_is_not_used() -> None:
    """Labels of a clip must not change how it is answered, or the bound would be training accuracy."""
    plain = devices(taste=0.6)
    found = measure_headroom(plain, HEAD, {})
    rng = np.random.default_rng(0)
    for name in (FITTED, "fitted with 3 labels"):
        assert rung(found, name).accuracy.mean() < 0.97
    random = [replace(each, label=rng.integers(0, NUM_CLASSES, len(each.label))) for each in plain]
    assert rung(measure_headroom(random, HEAD, {}), FITTED).accuracy.mean() == pytest.approx(0.25, abs=0.06)


def test_a_fitted_head_lowers_the_loss_and_stays_near_the_static_one() -> None:
    (one, *_) = devices(taste=0.85)
    fitted = fitted_head(one.hidden, one.label, HEAD.base)

    def loss(head: BaseHead) -> float:
        log_p = log_softmax(head.scores(one.hidden), axis=1)
        return -log_p[np.arange(len(one.label)), one.label].mean()

    assert loss(fitted) < loss(HEAD.base)
    assert (fitted.flat - FLAT).norm() < FLAT.norm()


def test_answers_outside_the_vocabulary_are_wrong_and_teach_nothing() -> None:
    given = devices(taste=0.6)
    unknown = [replace(each, label=np.full_like(each.label, -1)) for each in given]
    found = measure_headroom(unknown, HEAD, {})
    assert all(each.accuracy.max() == 0 for each in found.rungs)


def test_a_device_that_the_truth_lacks_is_named() -> None:
    known = odds(0.5)
    del known[7]
    with pytest.raises(ConfigError, match=r"lacks 1 of 40 devices, e\.g\. 7"):
        measure_headroom(devices(taste=0.5), HEAD, known)


def made(**changes: float) -> Headroom:
    """Return rungs with given mean differences to the static head; those of |d| >= 0.04 are significant."""
    rng = np.random.default_rng(0)
    static = rng.uniform(0.4, 0.6, 60)
    noise = rng.normal(0, 0.05, 60)
    noise -= noise.mean()
    rungs = [Rung(name=STATIC, needs="", accuracy=static, worse=0.0, device_ms=0.0, test=None)]
    for name, difference in changes.items():
        accuracy = static + difference + noise
        test = compare_mean(static, accuracy, rng)
        needs = {"T": "truth", "L": "labels"}.get(name[0], "")
        rungs.append(Rung(name=name, needs=needs, accuracy=accuracy, worse=0.1, device_ms=0.1, test=test))
    return Headroom(rungs=tuple(rungs), num_samples=600, seen=np.ones(60, dtype=bool))


def test_the_verdict_holds_for_every_order_of_the_rungs() -> None:
    assert verdict(made(L=0.001, em=-0.02)).startswith("No headroom found: L")
    beaten = verdict(made(L=0.001, em=0.1))
    assert "at least +10.0 points" in beaten
    assert "em takes 100% of it" in beaten
    shared = verdict(made(T=0.2, em=0.1, lame=-0.1))
    assert "told the owner's words and taste" in shared
    assert "em takes 50% of it" in shared
    assert "no rival is significantly better" in verdict(made(T=0.2, em=0.001))


@pytest.mark.parametrize("given", [devices(taste=0.5)[:1], devices(taste=0.5, clips=1), []])
def test_data_without_devices_to_tell_apart_is_refused(given: list[LiveDevice]) -> None:
    with pytest.raises(ConfigError, match="device ids and two live clips"):
        measure_headroom(given, HEAD, {})


def test_page_and_table_hold_every_rung(tmp_path: Path) -> None:
    found = measure_headroom(devices(taste=0.85), HEAD, odds(0.85))
    table = headroom_table(found, title="Headroom")
    assert [cells[0].text for cells in table.rows] == [each.name for each in found.rungs]
    page = write_headroom_report(found, tmp_path, title="Headroom").read_text()
    assert verdict(found).split(".")[0] in page
    assert (tmp_path / "headroom.md").is_file()
