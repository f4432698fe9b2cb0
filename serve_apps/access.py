"""Access to the service: bearer tokens that identify clients, and rate limits per client.

`BearerTokens` names the client of an `Authorization` value, and `RateLimit` counts the client's heads. Both
serve every transport, and neither keeps, logs or repeats a token.
"""

import hashlib
import hmac
import logging
import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from hyperfleet.errors import ConfigError, FeatureError, RateLimitedError, UnauthenticatedError

MIN_TOKEN_CHARS = 16
RECHECK_S = 1.0

_VISIBLE_ASCII = re.compile(rb"[!-~]+")
_OPEN_TO_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_HOW_TO_SEND = 'send "Authorization: Bearer <token>" (over gRPC: the metadata "authorization")'
_HOW_TO_LIST = "list each token as 'client-name token'"
_LOGGER = logging.getLogger(__name__)

# SHA-256 digests of tokens, each with the name of the client that holds it.
_Digests = tuple[tuple[bytes, str], ...]


class BearerTokens:
    """Valid tokens, as digests; create it with `from_file` or `from_env`.

    A client may hold several tokens, so that a new one is valid before the old one is removed.
    """

    def __init__(self, digests: _Digests, source: str, watch: "_FileWatch | None" = None):
        self._digests = digests
        self._source = source
        self._watch = watch

    @classmethod
    def from_file(
        cls, path: str | Path, *, recheck_s: float = RECHECK_S, clock: Callable[[], float] = time.monotonic
    ) -> Self:
        """Read a text file of `client-name token` lines; blank lines and `#` lines are skipped.

        A changed file is read again while requests come in. If it became unreadable, invalid or empty, the
        last good tokens stay valid; to exclude everyone, stop the service. Replace the file by renaming a
        new one over it, since a half-written file may hold half a token.

        Args:
            path: the file, which only its owner should be able to read.
            recheck_s: minimum seconds between two checks for a change.
            clock: monotonic time in seconds.

        Raises:
            ConfigError: the file cannot be read, a line of it is invalid, or it holds no token.
        """
        path = Path(path)
        # Created before the first read, or a change in between would go unnoticed.
        watch = _FileWatch(path, recheck_s, clock)
        return cls(_read_file(path), str(path), watch)

    @classmethod
    def from_env(cls, name: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the same entries, separated by commas or newlines, from the environment variable `name`.

        Raises:
            ConfigError: an entry is invalid, or there is none.
        """
        entries = re.split(rb"[,\n]", os.fsencode(environ.get(name, "")))
        return cls(_parse(entries, f"the environment variable {name}", "entry"), f"${name}")

    def authenticate(self, authorization: str | None) -> str:
        """Return the name of the client that sent this `Authorization` value.

        Raises:
            UnauthenticatedError: it is missing or of another scheme, or its token is not valid.
        """
        if self._watch is not None and self._watch.changed():
            self._reload(self._watch.path)
        if not authorization:
            raise UnauthenticatedError(f"the request carries no token; {_HOW_TO_SEND}")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            # The scheme is not repeated: it is the token if a caller forgot the scheme.
            raise UnauthenticatedError(f"the authorization is not of the scheme Bearer; {_HOW_TO_SEND}")
        offered = hashlib.sha256(token.strip(" ").encode("utf-8", "surrogatepass")).digest()
        client = None
        # Continues after a match, so that the time does not reveal which token is close or right.
        for digest, name in self._digests:
            if hmac.compare_digest(offered, digest):
                client = name
        if client is None:
            raise UnauthenticatedError(f"the bearer token is not valid, or no longer; {_HOW_TO_SEND}")
        return client

    def __repr__(self) -> str:
        return f"BearerTokens({self._source!r}, {_count(self._digests)})"

    def _reload(self, path: Path) -> None:
        try:
            self._digests = _read_file(path)
        except ConfigError as error:
            _LOGGER.error("%s; the tokens read before stay valid (%s)", error, _count(self._digests))
        else:
            _LOGGER.info("read the changed token file %s: %s", path, _count(self._digests))


class RateLimit:
    """At most `heads_per_s` heads per second and client, counted in this process.

    The rate is exact over longer times. Within one second, a client that saved its heads for the end of the
    previous second may take up to twice as many.

    Raises:
        ConfigError: `heads_per_s` is less than 1.
    """

    def __init__(self, heads_per_s: int):
        if heads_per_s < 1:
            raise ConfigError(f"heads_per_s must be >= 1, got {heads_per_s}; use no RateLimit for no limit")
        # Two counters per client. The moving window would keep one list item per head (hundreds of
        # microseconds per request at high limits) and lock a client out while the wall clock is set back.
        # The fixed window would also charge for refused requests.
        self._storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._item = RateLimitItemPerSecond(heads_per_s)
        # The storage reads and adds in two steps, and a server may call from several threads.
        self._lock = threading.Lock()

    def acquire(self, client: str, cost: int) -> None:
        """Take `cost` heads for `client`; a refused request takes none.

        Raises:
            RateLimitedError: the client exceeds its rate now.
            FeatureError: `cost` exceeds the limit, so the request can never succeed.
        """
        assert cost >= 1, cost
        limit = self._item.amount
        if cost > limit:
            raise FeatureError(
                f"a request of {cost} heads can never fit a limit of {limit} heads per second; "
                "send smaller requests"
            )
        with self._lock:
            if self._limiter.hit(self._item, client, cost=cost):
                return
            wait_s = self._wait_s(client, cost)
        # Rounded up, and one millisecond more: rounding must not refuse a client that returns on time.
        retry_after_s = math.ceil(1e3 * wait_s + 1) / 1e3
        raise RateLimitedError(
            f"{cost} more heads now would exceed this client's limit of {limit} heads per second; "
            f"send the request again after {retry_after_s} s",
            retry_after_s,
        )

    def _wait_s(self, client: str, cost: int) -> float:
        # The reset time of the library is for one head; `cost` heads may have to wait longer.
        expiry_s = self._item.get_expiry()
        window = self._storage.get_sliding_window(self._item.key_for(client), expiry_s)
        previous, previous_left_s, current, current_left_s = window
        room = self._item.amount - cost
        if current <= room:
            return _fade_s(previous, room - current, previous_left_s)
        return current_left_s - expiry_s + _fade_s(current, room, expiry_s)


def _fade_s(heads: int, room: int, left_s: float) -> float:
    """Return the seconds until the `heads` of the previous second, which count heads * left_s, fit `room`."""
    return max(0.0, left_s - (room + 1) / heads) if heads else 0.0


class _FileWatch:
    """Notices that a file was changed, replaced or removed; checks at most every `recheck_s` seconds."""

    def __init__(self, path: Path, recheck_s: float, clock: Callable[[], float]):
        self.path = path
        self._recheck_s = recheck_s
        self._clock = clock
        self._next_check_s = clock() + recheck_s
        self._fingerprint = self._look()

    def changed(self) -> bool:
        now_s = self._clock()
        if now_s < self._next_check_s:
            return False
        self._next_check_s = now_s + self._recheck_s
        before, self._fingerprint = self._fingerprint, self._look()
        return self._fingerprint != before

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _read_file(path: Path) -> _Digests:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(
            f"the token file {path} cannot be read: {error.strerror}; {_HOW_TO_LIST} there"
        ) from error
    if mode & _OPEN_TO_OTHERS:
        _LOGGER.warning("the token file %s is open to other users of this machine; run: chmod 600", path)
    return _parse(lines, f"the token file {path}", "line")


def _parse(entries: Sequence[bytes], source: str, unit: str) -> _Digests:
    clients: dict[bytes, str] = {}
    numbers: dict[bytes, int] = {}
    # Bytes throughout: text has more line ends and spaces, and its decoding errors quote the token.
    for number, entry in enumerate(entries, start=1):
        words = entry.split()
        if not words or words[0].startswith(b"#"):
            continue
        where = f"{unit} {number} of {source}"
        if len(words) != 2:
            raise ConfigError(f"{where} has {len(words)} words, expected 2; {_HOW_TO_LIST}")
        name, token = words
        if len(token) < MIN_TOKEN_CHARS:
            raise ConfigError(
                f"{where} has a token of less than {MIN_TOKEN_CHARS} characters; draw a longer one"
            )
        if not (_VISIBLE_ASCII.fullmatch(name) and _VISIBLE_ASCII.fullmatch(token)):
            raise ConfigError(f"{where} has characters other than visible ASCII; draw another token")
        digest = hashlib.sha256(token).digest()
        if digest in clients:
            raise ConfigError(f"{where} repeats the token of {unit} {numbers[digest]}; remove one of them")
        clients[digest] = name.decode("ascii")
        numbers[digest] = number
    if not clients:
        raise ConfigError(f"{source} holds no token; {_HOW_TO_LIST}")
    return tuple(clients.items())


def _count(digests: _Digests) -> str:
    return f"{len(digests)} tokens of {len({client for _, client in digests})} clients"
