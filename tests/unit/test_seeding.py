from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hyperfleet.seeding import uniform

NUM_DRAWS = 20_000
# One key counts up, the others stand still; 64 is how far the counts of a device's next sample lie.
SEQUENCES = {
    "number": lambda i: uniform(3, 1, 17, i),
    "number in steps of 64": lambda i: uniform(3, 1, 17, 64 * i + 1),
    "device": lambda i: uniform(3, 1, i, 65),
    "stream": lambda i: uniform(3, i, 17, 65),
    "seed": lambda i: uniform(i, 1, 17, 65),
    "device and number": lambda i: uniform(3, 1, i, i),
}
# The draws are fixed, so nothing here is a matter of luck: a p-value this small is a fault of the formula.
LEAST_P = 1e-3


def drawn(name: str) -> np.ndarray:
    return np.array([SEQUENCES[name](i) for i in range(NUM_DRAWS)])


@given(
    seed=st.integers(0, 2**64),
    stream=st.integers(0, 100),
    device=st.integers(0, 2**40),
    number=st.integers(0, 2**40),
)
def test_a_draw_is_in_range_and_the_same_whenever_it_is_asked_for(
    seed: int, stream: int, device: int, number: int
) -> None:
    draw = uniform(seed, stream, device, number)
    assert 0 <= draw < 1
    assert uniform(seed, stream, device, number) == draw


def test_draws_are_those_of_every_version() -> None:
    # Another formula would give another log for every seed that somebody has noted down.
    assert uniform(0, 1, 2, 3) == 0.1555458825549676
    assert uniform(7, 16, 999_999, 64) == 0.19140715839539046


@pytest.mark.parametrize("name", SEQUENCES)
def test_draws_are_uniform(name: str) -> None:
    draws = drawn(name)
    assert len(np.unique(draws)) == NUM_DRAWS
    assert stats.kstest(draws, "uniform").pvalue > LEAST_P
    # Also where a share of a percent is drawn.
    assert stats.binomtest(int((draws < 0.01).sum()), NUM_DRAWS, 0.01).pvalue > LEAST_P


@pytest.mark.parametrize("name", SEQUENCES)
def test_neighbouring_draws_know_nothing_of_each_other(name: str) -> None:
    draws = drawn(name)
    for distance in (1, 2, 64):
        cells, _, _ = np.histogram2d(draws[:-distance], draws[distance:], bins=10)
        assert stats.chi2_contingency(cells).pvalue > LEAST_P
        assert abs(stats.spearmanr(draws[:-distance], draws[distance:]).statistic) < 0.03


@pytest.mark.heavy
def test_two_streams_and_two_seeds_know_nothing_of_each_other() -> None:
    first = np.array([uniform(0, 16, 5, i) for i in range(NUM_DRAWS)])
    others = {
        "next stream": [uniform(0, 17, 5, i) for i in range(NUM_DRAWS)],
        "next seed": [uniform(1, 16, 5, i) for i in range(NUM_DRAWS)],
        "next device": [uniform(0, 16, 6, i) for i in range(NUM_DRAWS)],
        "keys swapped": [uniform(0, 16, i, 5) for i in range(NUM_DRAWS)],
    }
    for name, draws in others.items():
        cells, _, _ = np.histogram2d(first, np.array(draws), bins=10)
        assert stats.chi2_contingency(cells).pvalue > LEAST_P, name


def test_the_next_key_changes_half_of_the_bits_of_a_draw() -> None:
    draws = [int(uniform(0, 1, 0, i) * 2**53) for i in range(2000)]
    changed = [(left ^ right).bit_count() for left, right in pairwise(draws)]
    assert np.mean(changed) == pytest.approx(26.5, abs=0.5)
