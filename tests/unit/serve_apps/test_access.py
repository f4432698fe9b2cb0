import hmac
import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import limits.storage.memory
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hyperfleet.errors import (
    ConfigError,
    FeatureError,
    HyperFleetError,
    RateLimitedError,
    UnauthenticatedError,
)
from serve_apps.access import BearerTokens, RateLimit

OLD = "old-Secret_0123456789"
NEW = "new-Secret_9876543210"
OTHER = "other-Secret_55555555"

VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F))
TOKENS = st.text(VISIBLE, min_size=16, max_size=40)
NAMES = st.text(VISIBLE, min_size=1, max_size=12).filter(lambda name: not name.startswith("#"))


class Clock:
    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.txt"
    write(path, f"# who may ask\n\nfleet-a {OLD}\r\nfleet-b\t{OTHER}\n")
    return path


def env(text: str) -> BearerTokens:
    return BearerTokens.from_env("HYPERFLEET_TOKENS", {"HYPERFLEET_TOKENS": text})


def assert_secret_free(text: str) -> None:
    assert [secret for secret in (OLD, NEW, OTHER) if secret in text] == []


def test_each_token_names_its_client(token_file: Path) -> None:
    tokens = BearerTokens.from_file(str(token_file))
    assert tokens.authenticate(f"Bearer {OLD}") == "fleet-a"
    assert tokens.authenticate(f"bEARER   {OTHER}") == "fleet-b"


@given(entries=st.lists(st.tuples(NAMES, TOKENS), min_size=1, max_size=8, unique_by=lambda entry: entry[1]))
def test_what_is_listed_is_what_authenticates(entries: list[tuple[str, str]]) -> None:
    assume(not any("," in name + token for name, token in entries))
    for separator in (",", "\n", " \r\n\n# note\n\t"):
        tokens = env(separator.join(f"{name} {token}" for name, token in entries))
        assert [tokens.authenticate(f"Bearer {token}") for _, token in entries] == [
            name for name, _ in entries
        ]
        with pytest.raises(UnauthenticatedError):
            tokens.authenticate(f"Bearer {entries[0][1]}x")


@given(authorization=st.text(st.characters(exclude_categories=())))
def test_any_other_header_is_refused_and_never_repeated(authorization: str) -> None:
    tokens = env(f"fleet-a {OLD}")
    for value in (authorization, f"Bearer {authorization}"):
        with pytest.raises(UnauthenticatedError, match="Authorization: Bearer <token>") as refused:
            tokens.authenticate(value)
        assert "fleet-a" not in str(refused.value)


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "carries no token"),
        ("", "carries no token"),
        (OLD, "not of the scheme Bearer"),
        (f"Basic {OLD}", "not of the scheme Bearer"),
        ("Bearer", "not valid"),
        (f"Bearer {NEW}", "not valid"),
        (f"Bearer {OLD[:-1]}", "not valid"),
        (f"Bearer {OLD.upper()}", "not valid"),
        (f"Bearer {OLD} {OLD}", "not valid"),
    ],
)
def test_a_refusal_gives_the_reason_and_holds_no_secret(authorization: str | None, reason: str) -> None:
    with pytest.raises(UnauthenticatedError, match=reason) as refused:
        env(f"fleet-a {OLD}").authenticate(authorization)
    assert_secret_free(repr(refused.value))
    assert isinstance(refused.value, HyperFleetError)


@pytest.mark.parametrize("offered", [OLD, OTHER, NEW])
def test_every_digest_is_compared_whichever_matches(offered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = env(f"fleet-a {OLD}, fleet-b {OTHER}, fleet-c {'x' * 16}, fleet-d {'y' * 16}")
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    if offered == NEW:
        with pytest.raises(UnauthenticatedError):
            tokens.authenticate(f"Bearer {offered}")
    else:
        tokens.authenticate(f"Bearer {offered}")
    assert len({known for _, known in compared}) == len(compared) == 4
    assert {len(digest) for pair in compared for digest in pair} == {32}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"fleet-a {OLD}\nfleet-b", "line 2 of .* has 1 words"),
        (f"# note\nfleet-a {OLD} {NEW}", "line 2 of .* has 3 words"),
        ("fleet-a fifteen-letters", "line 1 of .* less than 16 characters"),
        (f"fleet-a {OLD}\u00e9", "line 1 of .* other than visible ASCII"),
        (f"fleet-a {OLD}\u00a0", "line 1 of .* other than visible ASCII"),
        (f"fleet-a {OLD}\x00", "line 1 of .* other than visible ASCII"),
        (f"\ufefffleet-a {OLD}", "line 1 of .* other than visible ASCII"),
        (f"fleet-a {OLD}\n\nfleet-b {OLD}", "line 3 of .* repeats the token of line 1"),
        (f"fleet-a {OLD}\nfleet-a {OLD}", "line 2 of .* repeats the token of line 1"),
        ("", "holds no token"),
        (f"# fleet-a {OLD}\n", "holds no token"),
    ],
)
def test_an_invalid_file_is_refused_by_line_without_its_secret(
    text: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.txt"
    write(path, text)
    with pytest.raises(ConfigError, match=reason) as refused:
        BearerTokens.from_file(path)
    assert str(path) in str(refused.value)
    assert_secret_free(repr(refused.value))


def test_a_missing_file_or_variable_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(ConfigError, match=f"{path} cannot be read: .* 'client-name token'"):
            BearerTokens.from_file(path)
    with pytest.raises(ConfigError, match="HYPERFLEET_TOKENS holds no token"):
        BearerTokens.from_env("HYPERFLEET_TOKENS", {})
    with pytest.raises(ConfigError, match="entry 2 of the environment variable HYPERFLEET_TOKENS"):
        env(f"fleet-a {OLD},fleet-b short")


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, True), (0o604, True), (0o620, True)])
def test_a_file_open_to_others_is_read_with_a_warning(
    mode: int, warns: bool, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.chmod(mode)
    assert BearerTokens.from_file(token_file).authenticate(f"Bearer {OLD}") == "fleet-a"
    assert ("chmod 600" in caplog.text) is warns
    assert_secret_free(caplog.text)


def test_tokens_rotate_while_requests_come_in(token_file: Path) -> None:
    clock = Clock()
    tokens = BearerTokens.from_file(token_file, recheck_s=2.0, clock=clock)
    write(token_file, f"fleet-a {OLD}\nfleet-a {NEW}\n")
    clock.now_s += 1.9
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(f"Bearer {NEW}")
    clock.now_s += 0.1
    assert tokens.authenticate(f"Bearer {NEW}") == tokens.authenticate(f"Bearer {OLD}") == "fleet-a"
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(f"Bearer {OTHER}")
    write(token_file, f"fleet-a {NEW}\n")
    clock.now_s += 2.0
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(f"Bearer {OLD}")


def test_a_change_in_place_of_equal_length_is_seen(token_file: Path) -> None:
    clock = Clock()
    tokens = BearerTokens.from_file(token_file, clock=clock)
    before = os.stat(token_file)
    token_file.write_bytes(token_file.read_bytes().replace(OLD.encode(), NEW.encode()))
    os.utime(token_file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert os.stat(token_file).st_size == before.st_size
    clock.now_s += 1.0
    assert tokens.authenticate(f"Bearer {NEW}") == "fleet-a"


def test_the_file_is_checked_once_per_period(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    tokens = BearerTokens.from_file(token_file, recheck_s=1.0, clock=clock)
    looks: list[object] = []
    look = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looks.append(path) or look(path, **options))
    for _ in range(40):
        clock.now_s += 0.25
        tokens.authenticate(f"Bearer {OLD}")
        tokens.authenticate(f"Bearer {OTHER}")
    assert looks == [token_file] * 10


@pytest.mark.parametrize(
    "broken", [None, "", f"fleet-a {NEW}\nfleet-b {NEW}", f"{NEW}\n", f"fleet-a {NEW}\x7f"]
)
def test_a_broken_file_keeps_the_last_good_tokens_and_logs_once(
    broken: str | None, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="serve_apps.access")
    clock = Clock()
    tokens = BearerTokens.from_file(token_file, clock=clock)
    if broken is None:
        token_file.unlink()
    else:
        write(token_file, broken)
    for _ in range(5):
        clock.now_s += 1.0
        assert tokens.authenticate(f"Bearer {OLD}") == "fleet-a"
        with pytest.raises(UnauthenticatedError):
            tokens.authenticate(f"Bearer {NEW}")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(token_file) in caplog.text
    assert "2 tokens of 2 clients" in caplog.text

    write(token_file, f"fleet-a {NEW}")
    clock.now_s += 1.0
    assert tokens.authenticate(f"Bearer {NEW}") == "fleet-a"
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert_secret_free(caplog.text)
    assert_secret_free("".join(repr(vars(record)) for record in caplog.records))


def test_the_object_holds_and_shows_digests_only(token_file: Path) -> None:
    for tokens in (BearerTokens.from_file(token_file), env(f"fleet-a {OLD}, fleet-a {OTHER}")):
        assert "2 tokens" in repr(tokens)
        assert_secret_free(repr(tokens) + str(tokens) + repr(vars(tokens)))
        assert "\\x" not in repr(tokens)
        assert_secret_free(pickle.dumps(tokens).decode("latin-1"))


@contextmanager
def wall_clock(now_s: float = 1_700_000_000.0) -> Iterator[Clock]:
    clock = Clock(now_s)
    with mock.patch.object(limits.storage.memory, "time", SimpleNamespace(time=clock)):
        yield clock


def refusal(limit: RateLimit, client: str, cost: int) -> float | None:
    try:
        limit.acquire(client, cost)
    except RateLimitedError as error:
        return error.retry_after_s
    return None


def test_a_client_takes_its_heads_and_no_more() -> None:
    with wall_clock() as clock:
        limit = RateLimit(10)
        limit.acquire("fleet-a", 4)
        limit.acquire("fleet-a", 6)
        with pytest.raises(
            RateLimitedError, match=r"1 more heads .* limit of 10 heads per second; send .* after"
        ):
            limit.acquire("fleet-a", 1)
        clock.now_s += 2.0
        limit.acquire("fleet-a", 10)


def test_a_refused_request_takes_nothing() -> None:
    with wall_clock():
        limit = RateLimit(10)
        limit.acquire("fleet-a", 4)
        for _ in range(5):
            assert refusal(limit, "fleet-a", 7) is not None
        limit.acquire("fleet-a", 6)


def test_clients_do_not_share_a_limit() -> None:
    with wall_clock():
        limit = RateLimit(10)
        for client in ("fleet-a", "fleet-b", "fleet-a/10", "10/1/second"):
            limit.acquire(client, 10)
            assert refusal(limit, client, 1) is not None


def test_retry_after_names_the_moment_the_heads_are_free() -> None:
    with wall_clock() as clock:
        limit = RateLimit(10)
        clock.now_s += 0.25
        limit.acquire("fleet-a", 10)
        # The second ends in 0.75 s; then the 10 heads fade and 3 fit as soon as fewer than 8 still count.
        assert refusal(limit, "fleet-a", 3) == pytest.approx(0.75 + 0.2, abs=2e-3)
        assert refusal(limit, "fleet-a", 10) == pytest.approx(0.75 + 0.9, abs=2e-3)
        clock.now_s += 0.75
        assert refusal(limit, "fleet-a", 3) == pytest.approx(0.2, abs=2e-3)


@given(
    limit=st.integers(1, 2_000_000),
    start_s=st.floats(0.0, 1.0, exclude_max=True),
    history=st.lists(st.tuples(st.floats(0.0, 0.6), st.floats(0.0, 1.0)), max_size=8),
    share=st.floats(0.0, 1.0),
)
def test_a_client_that_waits_for_retry_after_passes_and_an_earlier_one_does_not(
    limit: int, start_s: float, history: list[tuple[float, float]], share: float
) -> None:
    with wall_clock(1_700_000_000.0 + start_s) as clock:
        limiter = RateLimit(limit)
        for step_s, part in history:
            refusal(limiter, "fleet-a", max(1, round(part * limit)))
            clock.now_s += step_s
        cost = max(1, round(share * limit))
        retry_after_s = refusal(limiter, "fleet-a", cost)
        assume(retry_after_s is not None)
        assert retry_after_s is not None
        assert 0.0 < retry_after_s <= 2.002
        if retry_after_s > 0.003:
            clock.now_s += retry_after_s - 0.003
            assert refusal(limiter, "fleet-a", cost) is not None
            clock.now_s += 0.003
        else:
            clock.now_s += retry_after_s
        assert refusal(limiter, "fleet-a", cost) is None


@given(
    limit=st.integers(1, 50),
    requests=st.lists(st.tuples(st.floats(0.0, 0.4), st.integers(1, 50)), min_size=1, max_size=60),
)
def test_the_rate_holds_over_time(limit: int, requests: list[tuple[float, int]]) -> None:
    with wall_clock() as clock:
        limiter = RateLimit(limit)
        taken: dict[int, int] = {}
        for step_s, cost in requests:
            clock.now_s += step_s
            if cost <= limit and refusal(limiter, "fleet-a", cost) is None:
                second = int(clock.now_s)
                taken[second] = taken.get(second, 0) + cost
        assert all(heads <= limit for heads in taken.values())


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    with wall_clock() as clock:
        limit = RateLimit(10)
        limit.acquire("fleet-a", 10)
        clock.now_s -= 3600.0
        limit.acquire("fleet-a", 10)


def test_a_request_that_can_never_pass_gets_no_retry_after() -> None:
    with pytest.raises(FeatureError, match=r"11 heads can never fit a limit of 10 .* smaller requests"):
        RateLimit(10).acquire("fleet-a", 11)
    with pytest.raises(ConfigError, match="heads_per_s must be >= 1, got 0"):
        RateLimit(0)
