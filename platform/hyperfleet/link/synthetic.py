"""Synthetic throughput traces, for links without a recording.

A device moves between states of reception, each with a median speed and a mean stay (exponential). The
logarithm of the speed is first-order autoregressive noise around the median: speeds are lognormal and stay
similar for about `memory_s`. Both directions share the states, because the same cell is near or far, but
not the noise.

The figures are our choices, not measurements, guided by medians of 13 Mbit/s down and 6 Mbit/s up on
commercial LTE (Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE
Networks", MobiSys 2012, abstract), by several times that on later networks, and by millimetre waves that a
body or a corner blocks for a second at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hyperfleet.errors import unknown_name
from hyperfleet.link.network import BYTES_PER_MBIT
from hyperfleet.link.trace import RateTrace
from hyperfleet.seeding import numpy_generator

PERIOD_S = 600.0
STEP_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Reception:
    """State of reception: median speeds in Mbit/s and mean stay in seconds."""

    down_mbit_per_s: float
    up_mbit_per_s: float
    mean_stay_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Movement:
    """Markov model of a moving device: `follow[i][j]` is the probability that state j follows state i."""

    states: tuple[Reception, ...]
    follow: tuple[tuple[float, ...], ...]
    log_spread: float
    memory_s: float


def _state(down: float, up: float, stay: float) -> Reception:
    return Reception(down_mbit_per_s=down, up_mbit_per_s=up, mean_stay_s=stay)


# Near the mast, between, at the edge; every move passes through the middle.
_ALONG_A_STREET = ((0.0, 1.0, 0.0), (0.5, 0.0, 0.5), (0.0, 1.0, 0.0))

SYNTHETIC: Mapping[str, Movement] = MappingProxyType(
    {
        "lte_walk": Movement(
            states=(_state(35.0, 12.0, 30.0), _state(18.0, 6.0, 40.0), _state(5.0, 1.5, 15.0)),
            follow=_ALONG_A_STREET,
            log_spread=0.35,
            memory_s=2.0,
        ),
        "lte_drive": Movement(
            states=(_state(30.0, 10.0, 6.0), _state(12.0, 4.0, 8.0), _state(1.0, 0.3, 4.0)),
            follow=_ALONG_A_STREET,
            log_spread=0.6,
            memory_s=0.7,
        ),
        "nr_urban": Movement(
            states=(_state(300.0, 50.0, 20.0), _state(120.0, 20.0, 25.0), _state(30.0, 6.0, 8.0)),
            follow=_ALONG_A_STREET,
            log_spread=0.4,
            memory_s=1.0,
        ),
        # Line of sight, reflected, blocked: a body blocks and clears the beam at once.
        "nr_mmwave": Movement(
            states=(_state(1200.0, 110.0, 6.0), _state(350.0, 40.0, 2.0), _state(1.0, 0.2, 0.6)),
            follow=((0.0, 0.4, 0.6), (0.6, 0.0, 0.4), (0.7, 0.3, 0.0)),
            log_spread=0.3,
            memory_s=0.5,
        ),
    }
)


def synthetic_trace(name: str, seed: int) -> tuple[RateTrace, RateTrace]:
    """Return uplink and downlink traces of the movement called `name`: ten minutes, repeated.

    Raises:
        UnknownNameError: no movement has that name.
    """
    if name not in SYNTHETIC:
        raise unknown_name("synthetic trace", name, SYNTHETIC)
    movement = SYNTHETIC[name]
    rng = numpy_generator(seed, "synthetic trace", name)
    visited = _visited(rng, movement)
    up = np.array([state.up_mbit_per_s for state in movement.states])[visited]
    down = np.array([state.down_mbit_per_s for state in movement.states])[visited]
    starts = (np.arange(len(visited)) * STEP_S).tolist()

    def direction(median: np.ndarray) -> RateTrace:
        rates = median * np.exp(_noise(rng, movement, len(visited))) * BYTES_PER_MBIT
        return RateTrace.of(starts, rates.tolist(), PERIOD_S)

    return direction(up), direction(down)


def _visited(rng: np.random.Generator, movement: Movement) -> list[int]:
    """Return the index of the state in each step."""
    num_steps = round(PERIOD_S / STEP_S)
    state = int(rng.integers(len(movement.states)))
    visited: list[int] = []
    while len(visited) < num_steps:
        stay = rng.exponential(movement.states[state].mean_stay_s)
        visited += [state] * max(round(stay / STEP_S), 1)
        state = int(rng.choice(len(movement.states), p=movement.follow[state]))
    return visited[:num_steps]


def _noise(rng: np.random.Generator, movement: Movement, num_steps: int) -> np.ndarray:
    """Return stationary autoregressive noise of standard deviation `log_spread`."""
    kept = float(np.exp(-STEP_S / movement.memory_s))
    fresh = movement.log_spread * float(np.sqrt(1 - kept * kept))
    drawn = rng.standard_normal(num_steps)
    noise = np.empty(num_steps)
    level = movement.log_spread * float(drawn[0])
    for i, shock in enumerate(drawn.tolist()):
        if i:
            level = kept * level + fresh * shock
        noise[i] = level
    return noise
