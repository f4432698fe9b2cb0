"""Headroom of personalization: what a head could gain on a data set's devices, before any generator exists.

Everything is measured on the features and the static head of one model. References use labels or the data
set's truth about words and taste; rivals use what a device has without a cloud.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from hyperfleet.device.adaptation import lame, prior_corrected, t3a
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.paired import PairedDifference, compare_mean, holm_corrected
from hyperfleet.head_codecs import BaseHead
from hyperfleet.seeding import numpy_generator

STATIC = "static head"
TOLD = "told words and taste"
FITTED = "fitted with all other labels"
NUM_LABELS = (1, 3, 10)
# A device counts as made worse from this loss of accuracy on.
WORSE_BY = 0.02
# Pull of a fitted head towards the static one, relative to the mean loss.
_PULL = 0.03


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LiveDevice:
    """Live samples of one device in order of time; -1 is an answer outside the vocabulary."""

    device_id: int
    seen: bool
    hidden: Float32[np.ndarray, "sample hidden"]
    clip_row: Int[np.ndarray, " sample"]
    label: Int[np.ndarray, " sample"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StaticHead:
    """The static head, and the class frequencies in training that were shipped with it."""

    base: BaseHead
    prior: Float[np.ndarray, " output"]

    @property
    def weight(self) -> Float32[np.ndarray, "output hidden"]:
        """Weights of the head, one row per class."""
        weight: np.ndarray = self.base.layout.split(self.base.flat.numpy()[None])[0][0]
        return weight

    def answers(self, device: LiveDevice) -> Int[np.ndarray, " sample"]:
        """Return the static answers of a device's samples."""
        answers: np.ndarray = self.base.scores(device.hidden).argmax(axis=1)
        return answers


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rung:
    """Result of one way to answer.

    Attributes:
        needs: what it uses beyond the device's unlabelled samples: "", "labels" or "truth".
        accuracy: per device.
        worse: share of the devices that lose more than `WORSE_BY` against the static head.
        device_ms: CPU milliseconds per sample beyond the static head.
        test: against the static head, over devices, p-values corrected over the rungs; None for itself.
    """

    name: str
    needs: str
    accuracy: Float[np.ndarray, " device"]
    worse: float
    device_ms: float
    test: PairedDifference | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Headroom:
    """All rungs on the same samples, the static head first."""

    rungs: tuple[Rung, ...]
    num_samples: int
    seen: Bool[np.ndarray, " device"]

    @property
    def static(self) -> Rung:
        """The static head."""
        return self.rungs[0]

    @property
    def best(self) -> Rung:
        """The rung of highest mean accuracy besides the static head; its difference is the headroom."""
        return max(self.rungs[1:], key=lambda rung: rung.accuracy.mean())

    def share(self, rung: Rung) -> float | None:
        """Return the part of the headroom that a rung takes; None without headroom."""
        assert self.best.test is not None
        whole = self.best.test.difference
        return None if rung.test is None or whole <= 0 else rung.test.difference / whole


def fitted_head(
    hidden: Float32[np.ndarray, "sample hidden"], label: Int[np.ndarray, " sample"], base: BaseHead
) -> BaseHead:
    """Return the head of least cross-entropy on labelled samples, held to the static one by its distance."""
    start = base.flat.numpy().astype(np.float64)
    rows = np.arange(len(label))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = (part[0] for part in base.layout.split(flat[None]))
        log_p = log_softmax(hidden @ weight.T + bias, axis=1)
        error = softmax(log_p, axis=1)
        error[rows, label] -= 1
        error /= len(label)
        away = flat - start
        slope = np.concatenate([(error.T @ hidden).ravel(), error.sum(axis=0)]) + _PULL * away
        return float(-log_p[rows, label].mean() + 0.5 * _PULL * away @ away), slope

    flat = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 50}).x
    return BaseHead(layout=base.layout, flat=torch.from_numpy(flat.astype(np.float32)))


def measure_headroom(
    devices: Iterable[LiveDevice], head: StaticHead, odds: Mapping[int, Float[np.ndarray, " output"]]
) -> Headroom:
    """Answer every device's samples in every way.

    `odds` are those of `answer_odds`; without any there is no rung with the truth.

    Raises:
        ConfigError: fewer than two devices, or no device with two clips.
    """
    given = list(devices)
    most_clips = max((len(np.unique(one.clip_row)) for one in given), default=0)
    if len(given) < 2 or most_clips < 2:
        raise ConfigError(
            f"headroom is measured between devices and between a device's clips, got {len(given)} devices "
            f"with {most_clips} live clips at most; use data with device ids and two live clips per device"
        )
    untold = [one.device_id for one in given if odds and one.device_id not in odds]
    if untold:
        raise ConfigError(
            f"the data set's truth lacks {len(untold)} of {len(given)} devices, e.g. {untold[0]}; "
            "render the data set again"
        )
    ways = _ways(head, odds)
    accuracy, cpu_s = {}, {}
    for name, (_, answer) in ways.items():
        begin_s = time.process_time()
        accuracy[name] = np.array([(answer(one) == one.label).mean() for one in given])
        cpu_s[name] = time.process_time() - begin_s
    num_samples = sum(len(one.label) for one in given)
    tests = holm_corrected(
        [
            None
            if name == STATIC
            else compare_mean(accuracy[STATIC], accuracy[name], numpy_generator(0, "headroom", name))
            for name in ways
        ]
    )
    rungs = tuple(
        Rung(
            name=name,
            needs=needs,
            accuracy=accuracy[name],
            worse=float((np.round(accuracy[name] - accuracy[STATIC], 9) < -WORSE_BY).mean()),
            device_ms=1e3 * max(0.0, cpu_s[name] - cpu_s[STATIC]) / num_samples,
            test=test,
        )
        for (name, (needs, _)), test in zip(ways.items(), tests, strict=True)
    )
    return Headroom(rungs=rungs, num_samples=num_samples, seen=np.array([one.seen for one in given]))


def _ways(
    head: StaticHead, odds: Mapping[int, Float[np.ndarray, " output"]]
) -> dict[str, tuple[str, Callable[[LiveDevice], np.ndarray]]]:
    """Return every way to answer a device's samples, with what it needs."""
    ways: dict[str, tuple[str, Callable[[LiveDevice], np.ndarray]]] = {
        STATIC: ("", head.answers),
        "prior correction (EM)": ("", lambda one: prior_corrected(head.base.scores(one.hidden), head.prior)),
        "T3A": ("", lambda one: t3a(one.hidden, head.base.scores(one.hidden), head.weight)),
        "LAME": ("", lambda one: lame(one.hidden, head.base.scores(one.hidden))),
        **{
            f"fitted with {count} label{'s' if count > 1 else ''}": (
                "labels",
                partial(_fitted, head=head, count=count),
            )
            for count in NUM_LABELS
        },
        FITTED: ("labels", partial(_fitted, head=head, count=None)),
    }
    if odds:
        ways[TOLD] = ("truth", lambda one: _told(one, head, odds[one.device_id]))
    return ways


def _fitted(device: LiveDevice, head: StaticHead, count: int | None) -> Int[np.ndarray, " sample"]:
    """Answer each clip by a head fitted to `count` labelled samples of the others, all of them for None."""
    answers = head.answers(device)
    for clip in np.unique(device.clip_row):
        inside = device.clip_row == clip
        others = np.flatnonzero(~inside & (device.label >= 0))[:count]
        if len(others):
            fitted = fitted_head(device.hidden[others], device.label[others], head.base)
            answers[inside] = fitted.scores(device.hidden[inside]).argmax(axis=1)
    return answers


def _told(
    device: LiveDevice, head: StaticHead, odds: Float[np.ndarray, " output"]
) -> Int[np.ndarray, " sample"]:
    answers: np.ndarray = (softmax(head.base.scores(device.hidden), axis=1) * odds).argmax(axis=1)
    return answers
