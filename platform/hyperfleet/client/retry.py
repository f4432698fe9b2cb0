"""Retry policy and circuit breaker, the same for HTTP and gRPC."""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from hyperfleet.errors import ConfigError, ServiceError

# Least time limit of a try: the pause before it may have used up the deadline.
_LEAST_TRY_S = 0.001

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Limits on tries and pauses.

    Attributes:
        max_tries: most requests sent for one head.
        try_timeout_s: time limit of one try, in seconds; generous, since emulated devices share their
            cores with the cloud and a busy machine must not look like a failed cloud.
        deadline_s: time limit of all tries and the pauses between them, in seconds. Each try sends
            the rest of it, so that the cloud does no work that nobody waits for.
        backoff_s: mean pause before the second try; it doubles from try to try up to an eighth of the
            deadline, and each pause is drawn at random so that a fleet does not return all at once. A
            longer Retry-After of the server is honoured.
        max_hangs: consecutive requests that got no head within the time limit of a try. After so many the
            circuit opens: requests fail at once, and after `deadline_s` one request tries again. Quick
            refusals do not count, since a retry costs nothing.
    """

    max_tries: int = 4
    try_timeout_s: float = 30.0
    deadline_s: float = 60.0
    backoff_s: float = 0.1
    max_hangs: int = 8

    def __post_init__(self) -> None:
        for name in ("max_tries", "max_hangs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"RetryPolicy.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("try_timeout_s", "deadline_s", "backoff_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"RetryPolicy.{name} must be > 0 seconds, got {getattr(self, name)}")

    def longest_pause_s(self, num_tries: int) -> float:
        """Return the upper bound of the random pause after `num_tries` tries, in seconds.

        Doubling ends at a quarter of the deadline, or a client would give up with most of it left.
        """
        return min(2 * self.backoff_s * 2.0 ** min(num_tries - 1, 64), self.deadline_s / 4)


# Long enough for a dead replica, proxy or node of the service to be replaced.
PATIENT = RetryPolicy(max_tries=40, try_timeout_s=15.0, deadline_s=90.0)


@dataclass(kw_only=True)
class Circuit:
    """Circuit breaker: a hanging cloud costs a fleet one deadline, not thousands."""

    retry: RetryPolicy
    num_hangs: int = 0
    open_until_s: float = 0.0

    def check(self) -> None:
        """Let a request through.

        Raises:
            ServiceError: the circuit is open.
        """
        if self.num_hangs < self.retry.max_hangs:
            return
        now_s = time.monotonic()
        if now_s < self.open_until_s:
            raise ServiceError(
                f"not asked: the last {self.num_hangs} requests waited for a head and got none; the next try "
                f"is in {self.open_until_s - now_s:.0f} s"
            )
        # This request is the probe; concurrent ones fail at once until it returns.
        self.open_until_s = now_s + self.retry.deadline_s

    def failed(self, waited_s: float) -> None:
        """Record a request without an answer, which took `waited_s` seconds without pauses."""
        # Slightly less than the limit counts: some of it passes before the request is sent.
        if waited_s < 0.99 * min(self.retry.try_timeout_s, self.retry.deadline_s):
            return
        self.num_hangs += 1
        if self.num_hangs == self.retry.max_hangs:
            self.open_until_s = time.monotonic() + self.retry.deadline_s

    def succeeded(self) -> None:
        """Record an answered request."""
        self.num_hangs = 0


async def ask_until_answered(
    send: Callable[[float], Awaitable[Answer]],
    circuit: Circuit,
    sleep: Callable[[float], Awaitable[None]],
) -> tuple[Answer, int]:
    """Send until an answer comes and return it with the number of tries.

    Args:
        send: makes one try within the given seconds; a transient ServiceError leads to another try.
        circuit: the client's circuit breaker, with its policy.
        sleep: waits between tries.

    Raises:
        ServiceError: no answer came; its fields are those of the last try. Also what `send` raises.
    """
    import tenacity  # not above: scenarios hold a policy and retry nothing

    circuit.check()
    retry = circuit.retry
    started_s = time.monotonic()
    sent_s = 0.0
    tries = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_attempt(retry.max_tries) | tenacity.stop_before_delay(retry.deadline_s),
        wait=_pause(retry),
        sleep=sleep,
        reraise=True,
    )
    try:
        async for attempt in tries:
            with attempt:
                try_s = time.monotonic()
                left_s = retry.deadline_s - (try_s - started_s)
                try:
                    answer = await send(max(min(left_s, retry.try_timeout_s), _LEAST_TRY_S))
                finally:
                    sent_s += time.monotonic() - try_s
    except ServiceError as error:
        if not error.transient:
            raise
        # Without the pauses: those that the server asks for are not hangs.
        circuit.failed(sent_s)
        num_tries = tries.statistics["attempt_number"]
        raise ServiceError(
            f"no head after {num_tries} tries: {error}",
            status=error.status,
            retry_after_s=error.retry_after_s,
        ) from error
    circuit.succeeded()
    return answer, tries.statistics["attempt_number"]


def read_retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 if it is absent or nonsense."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max((date - datetime.now(UTC)).total_seconds(), 0.0) if date.tzinfo is not None else 0.0


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, ServiceError) and error.transient


def _pause(retry: RetryPolicy) -> Callable[[Any], float]:
    def pause_s(state: Any) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked_s = error.retry_after_s if isinstance(error, ServiceError) else 0.0
        return max(asked_s, random.uniform(0.0, retry.longest_pause_s(state.attempt_number)))

    return pause_s
