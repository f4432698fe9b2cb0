"""Rivals on the device, against naive readings of their papers, and that no answer sees the future."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from hyperfleet.device.adaptation import LAME_NEIGHBORS, lame, prior_corrected, t3a

NUM_CLASSES, HIDDEN = 6, 12


def device(seed: int, num_samples: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(NUM_CLASSES, HIDDEN)), 0.1 * rng.normal(size=NUM_CLASSES)
    return rng.normal(size=(num_samples, HIDDEN)), weight, bias


def scores(hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return hidden @ weight.T + bias


def ways(hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    logits = scores(hidden, weight, bias)
    prior = np.full(NUM_CLASSES, 1 / NUM_CLASSES)
    return [
        prior_corrected(logits, prior),
        t3a(hidden, scores(hidden, weight, bias), weight),
        lame(hidden, logits),
    ]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 14))
def test_no_answer_depends_on_later_samples(seed: int, cut: int) -> None:
    hidden, weight, bias = device(seed)
    other = hidden.copy()
    other[cut:] = np.random.default_rng(seed + 1).normal(size=other[cut:].shape)
    for one, two in zip(ways(hidden, weight, bias), ways(other, weight, bias), strict=True):
        assert one[:cut].tolist() == two[:cut].tolist()


def test_the_first_sample_has_the_static_answer_from_em() -> None:
    hidden, weight, bias = device(3)
    logits = scores(hidden, weight, bias)
    prior = softmax(np.random.default_rng(0).normal(size=NUM_CLASSES))
    assert prior_corrected(logits, prior)[0] == logits[0].argmax()


def test_em_finds_a_prior_that_moved() -> None:
    """Two classes that overlap: with a known prior of 0.9 Bayes' rule has a known accuracy."""
    rng = np.random.default_rng(7)
    label = (rng.random(400) < 0.9).astype(int)
    x = rng.normal(np.where(label, 0.7, -0.7))
    # Exact posteriors under equal priors: log odds 2 mu x.
    logits = np.stack([np.zeros(400), 1.4 * x], axis=1)
    answers = prior_corrected(logits, np.array([0.5, 0.5]))
    bayes = (1.4 * x + math.log(9) > 0).astype(int)
    static = (logits.argmax(axis=1) == label)[200:].mean()
    assert (answers == bayes)[200:].mean() > 0.95
    assert (answers == label)[200:].mean() > static + 0.08


def test_em_equals_its_equations_in_loops() -> None:
    hidden, weight, bias = device(5, 8)
    logits = scores(hidden, weight, bias)
    prior = softmax(np.random.default_rng(1).normal(size=NUM_CLASSES))
    posterior = [list(each) for each in softmax(logits, axis=1)]
    own = list(prior)
    for _ in range(30):
        corrected = []
        for row in posterior:
            weighed = [p * o / q for p, o, q in zip(row, own, prior, strict=True)]
            corrected.append([w / sum(weighed) for w in weighed])
        own = [sum(row[c] for row in corrected) / len(corrected) for c in range(NUM_CLASSES)]
    assert prior_corrected(logits, prior)[-1] == int(np.argmax(corrected[-1]))


@pytest.mark.parametrize("kept", [1, 2, 20])
def test_t3a_equals_a_loop_over_its_support(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr("hyperfleet.device.adaptation.T3A_KEPT", kept)
    hidden, weight, bias = device(11, 30)
    support: list[tuple[int, float, np.ndarray]] = []
    expected = []
    for sample in hidden:
        log_p = log_softmax(weight @ sample + bias)
        entropy = -float((np.exp(log_p) * log_p).sum())
        support.append((int(log_p.argmax()), entropy, sample / np.linalg.norm(sample)))
        similar = []
        for c in range(NUM_CLASSES):
            mine = sorted((each for each in support if each[0] == c), key=lambda each: each[1])[:kept]
            center = weight[c] / np.linalg.norm(weight[c]) + sum(each[2] for each in mine)
            similar.append(center @ sample / np.linalg.norm(center))
        expected.append(int(np.argmax(similar)))
    assert t3a(hidden, scores(hidden, weight, bias), weight).tolist() == expected


def test_lame_is_a_fixed_point_and_alone_changes_nothing() -> None:
    hidden, weight, bias = device(13, 10)
    logits = scores(hidden, weight, bias)
    assert lame(hidden[:1], logits[:1]).tolist() == logits[:1].argmax(axis=1).tolist()
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    affinity = np.zeros((10, 10))
    for i in range(10):
        order = [j for j in np.argsort(-(unit @ unit[i])) if j != i][:LAME_NEIGHBORS]
        for j in order:
            affinity[i, j] += 0.5
            affinity[j, i] += 0.5
    assigned = softmax(logits, axis=1)
    for _ in range(500):
        assigned = softmax(log_softmax(logits, axis=1) + affinity @ assigned, axis=1)
    again = softmax(log_softmax(logits, axis=1) + affinity @ assigned, axis=1)
    assert np.abs(again - assigned).max() < 1e-9
    assert lame(hidden, logits)[-1] == assigned[-1].argmax()
