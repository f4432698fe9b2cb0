"""When a device asks again and when it gives up, whatever protocol it asks in."""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

from hyperfleet.errors import ConfigError, ServiceError

# What a try is given at least: the pause before it may have used up what was left.
_LEAST_TRY_S = 0.001

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When a device gives up.

    Attributes:
        max_tries: requests sent at most for one head.
        try_timeout_s: time limit of one try, in seconds; generous, since emulated devices share their
            cores with the cloud and a busy machine must not look like a cloud that is down.
        deadline_s: time limit of all tries and the pauses between them, in seconds. Each try tells the
            server what is left of it, so that the cloud does no work that nobody waits for.
        backoff_s: mean pause before the second try; it doubles from try to try up to an eighth of the
            deadline, and each pause is drawn at random so that a fleet does not come back all at once. A
            longer Retry-After of the server is honoured.
        max_hangs: requests in a row that waited as long as one try may for no head, after which a client
            stops asking (its circuit is open) and fails at once; `deadline_s` later one request tries again.
            Refusals that come quickly do not count: asking again costs nothing.
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
        """Return the bound below which the pause after so many tries is drawn, in seconds.

        Doubling ends at a quarter of the deadline; else a client would give up with most of it left.
        """
        return min(2 * self.backoff_s * 2.0 ** min(num_tries - 1, 64), self.deadline_s / 4)


# Outlives a replica, a proxy or a node of the service that dies and is replaced.
PATIENT = RetryPolicy(max_tries=40, try_timeout_s=15.0, deadline_s=90.0)


class _AskAgainError(ServiceError):
    """The try failed in a way that another one may mend; `retry_after_s` is what the server asked for."""

    retry_after_s = 0.0


def ask_again(message: str, retry_after_s: float = 0.0) -> ServiceError:
    """Return the error that makes `ask_until_answered` try again, after `retry_after_s` or longer."""
    error = _AskAgainError(message)
    error.retry_after_s = retry_after_s
    return error


def asked_to_wait_s(error: ServiceError) -> float:
    """Return for how many seconds the server wants to be left alone, 0 if it did not say."""
    return error.__cause__.retry_after_s if isinstance(error.__cause__, _AskAgainError) else 0.0


@dataclass(kw_only=True)
class Circuit:
    """Remembers hangs in a row, so that a cloud that hangs costs a fleet one deadline, not thousands."""

    retry: RetryPolicy
    num_hangs: int = 0
    open_until_s: float = 0.0

    def check(self) -> None:
        """Let a request through.

        Raises:
            ServiceError: too many before it hung.
        """
        if self.num_hangs < self.retry.max_hangs:
            return
        now_s = time.monotonic()
        if now_s < self.open_until_s:
            raise ServiceError(
                f"not asked: the last {self.num_hangs} requests waited for a head and got none; the next try "
                f"is in {self.open_until_s - now_s:.0f} s"
            )
        # This request is the one that tries; those beside it go on failing at once until it is back.
        self.open_until_s = now_s + self.retry.deadline_s

    def failed(self, waited_s: float) -> None:
        """Take note of a request without an answer."""
        # A hair less than the limit counts: some of it is over before the request is sent.
        if waited_s < 0.99 * min(self.retry.try_timeout_s, self.retry.deadline_s):
            return
        self.num_hangs += 1
        if self.num_hangs == self.retry.max_hangs:
            self.open_until_s = time.monotonic() + self.retry.deadline_s

    def succeeded(self) -> None:
        """Take note of a request that was answered."""
        self.num_hangs = 0


async def ask_until_answered(
    send: Callable[[float], Awaitable[Answer]],
    circuit: Circuit,
    sleep: Callable[[float], Awaitable[None]],
) -> tuple[Answer, int]:
    """Send, again where that can help, and return the answer and how often it was sent.

    Args:
        send: makes one try that takes at most the seconds it is given, and raises what `ask_again` returns
            if another one may end better.
        circuit: of the client; its policy says when to give up.
        sleep: waits between tries.

    Raises:
        ServiceError: no answer came; also all that `send` raises.
    """
    circuit.check()
    retry = circuit.retry
    started_s = time.monotonic()
    sent_s = 0.0
    tries = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(_AskAgainError),
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
    except _AskAgainError as error:
        # Pauses that the server asked for are no hanging.
        circuit.failed(sent_s)
        num_tries = tries.statistics["attempt_number"]
        raise ServiceError(f"no head after {num_tries} tries: {error}") from error
    circuit.succeeded()
    return answer, tries.statistics["attempt_number"]


def read_retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header, a number or a date; nonsense counts as absent: 0."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max((date - datetime.now(UTC)).total_seconds(), 0.0) if date.tzinfo is not None else 0.0


def _pause(retry: RetryPolicy) -> Callable[[tenacity.RetryCallState], float]:
    def pause_s(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked_s = error.retry_after_s if isinstance(error, _AskAgainError) else 0.0
        return max(asked_s, random.uniform(0.0, retry.longest_pause_s(state.attempt_number)))

    return pause_s
