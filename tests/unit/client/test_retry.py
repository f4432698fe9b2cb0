import asyncio
import math
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.client import AsyncHttpClient, RetryPolicy
from hyperfleet.client.retry import read_retry_after
from hyperfleet.errors import ConfigError, ServiceError
from tests.worlds.http_cloud import LAYOUT, Cloud, ask, feature, hang, hang_up, status


def ask_in_vain(cloud: Cloud, retry: RetryPolicy, num_requests: int) -> list[str]:
    """Send requests that must fail with one client and return the errors."""

    async def run(url: str) -> list[str]:
        told = []
        async with AsyncHttpClient(url=url, layout=LAYOUT, retry=retry) as client:
            for _ in range(num_requests):
                with pytest.raises(ServiceError) as error:
                    await client.request(feature())
                told.append(str(error.value))
        return told

    with cloud.running() as url:
        return asyncio.run(run(url))


def test_it_retries_where_that_can_help_and_honours_retry_after():
    cloud = Cloud(script=[status(429, **{"Retry-After": "7"}), hang_up, status(503)])
    (head,), pauses_s = ask(cloud, retry=RetryPolicy(backoff_s=0.01))
    assert head.num_tries == 4
    assert [body for *_, body in cloud.seen] == [feature().to_bytes()] * 4
    assert pauses_s[0] == 7
    assert all(0 <= pause_s < 1 for pause_s in pauses_s[1:])


def fields(error: ServiceError) -> tuple[int | None, float, bool]:
    """Return the fields of an error that has travelled between processes."""
    received = pickle.loads(pickle.dumps(error))
    assert str(received) == str(error)
    return received.status, received.retry_after_s, received.transient


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_transient_refusals_are_retried(code):
    (head,), _ = ask(Cloud(script=[status(code)]))
    assert head.num_tries == 2


@pytest.mark.parametrize("code", [400, 401, 404, 406, 413, 415, 422])
def test_a_refused_request_is_not_sent_twice(code):
    cloud = Cloud(script=[status(code)])
    with pytest.raises(ServiceError, match=f"HTTP {code}: the reason") as refused:
        ask(cloud)
    assert len(cloud.seen) == 1
    assert fields(refused.value) == (code, 0.0, False)


def test_it_gives_up_after_the_last_try_or_before_one_that_would_be_too_late():
    cloud = Cloud(script=[status(503)] * 9)
    with pytest.raises(ServiceError, match="no head after 3 tries: the generator answered HTTP 503"):
        ask(cloud, retry=RetryPolicy(max_tries=3))
    assert len(cloud.seen) == 3
    for code in (429, 504):
        cloud = Cloud(script=[status(code, **{"Retry-After": "3600"})] * 9)
        with pytest.raises(
            ServiceError, match=f"no head after 1 tries: the generator answered HTTP {code}"
        ) as given_up:
            ask(cloud, retry=RetryPolicy(deadline_s=5.0))
        assert fields(given_up.value) == (code, 3600.0, False)


@given(backoff_s=st.floats(1e-3, 10.0), deadline_s=st.floats(1.0, 600.0), num_tries=st.integers(1, 2000))
def test_pauses_double_up_to_a_quarter_of_the_deadline(backoff_s, deadline_s, num_tries):
    longest_s = RetryPolicy(backoff_s=backoff_s, deadline_s=deadline_s).longest_pause_s(num_tries)
    doubled_s = math.ldexp(2 * backoff_s, min(num_tries - 1, 900))
    assert longest_s == pytest.approx(min(doubled_s, deadline_s / 4))


def test_it_does_not_give_up_while_most_of_the_deadline_is_left():
    # With endless doubling the pause after about ten refusals would exceed the deadline.
    with pytest.raises(ServiceError, match="no head after 100 tries"):
        ask(Cloud(script=[status(503)] * 100), retry=RetryPolicy(max_tries=100, deadline_s=60.0))


def test_each_try_sends_the_rest_of_the_deadline_and_takes_no_longer():
    async def nap(seconds: float) -> None:
        await asyncio.sleep(0.005)

    cloud = Cloud(script=[status(504)] * 3)
    ask(cloud, sleep=nap, retry=RetryPolicy(try_timeout_s=30.0, deadline_s=20.0))
    left_s = [float(value) for value in cloud.sent("X-Deadline-Seconds")]
    assert 20 >= left_s[0] > left_s[1] > left_s[2] > left_s[3] > 0
    cloud = Cloud(script=[status(503)] * 3)
    ask(cloud, sleep=nap, retry=RetryPolicy(try_timeout_s=2.5, deadline_s=20.0))
    assert cloud.sent("X-Deadline-Seconds") == ["2.500"] * 4
    (told,) = ask_in_vain(Cloud(always=hang), RetryPolicy(try_timeout_s=50.0, deadline_s=0.1), 1)
    assert "TimeoutError" in told


@pytest.mark.parametrize(
    "retry",
    [
        RetryPolicy(max_tries=1, try_timeout_s=0.05, deadline_s=30.0, max_hangs=3),
        RetryPolicy(max_tries=1, try_timeout_s=30.0, deadline_s=1.0, max_hangs=1),
    ],
    ids=["by the time of a try", "by the deadline"],
)
def test_a_cloud_that_hangs_costs_a_few_timeouts_and_not_one_per_request(retry):
    cloud = Cloud(always=hang)
    told = ask_in_vain(cloud, retry, num_requests=30)
    assert len(cloud.seen) == retry.max_hangs
    assert "TimeoutError" in told[retry.max_hangs - 1]
    assert all(f"the last {retry.max_hangs} requests waited" in text for text in told[retry.max_hangs :])


def test_quick_refusals_do_not_stop_a_client_from_asking():
    cloud = Cloud(always=status(503))
    told = ask_in_vain(cloud, RetryPolicy(max_tries=1, max_hangs=1), num_requests=6)
    assert len(cloud.seen) == 6
    assert all("503" in text for text in told)


def test_nobody_listening_is_a_service_error():
    with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:9 cannot be reached") as unreachable:
        ask(Cloud(), url="http://127.0.0.1:9", retry=RetryPolicy(max_tries=1))
    assert fields(unreachable.value) == (None, 0.0, False)


def test_retry_after_is_a_number_a_date_or_nothing():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=90), usegmt=True)
    assert 80 < read_retry_after(soon) <= 90
    assert read_retry_after(" 12 ") == 12
    assert [read_retry_after(each) for each in (None, "", "soon", "-3", past)] == [0.0] * 5


def test_a_retry_policy_that_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="max_tries must be >= 1, got 0"):
        RetryPolicy(max_tries=0)
    with pytest.raises(ConfigError, match="deadline_s must be > 0"):
        RetryPolicy(deadline_s=0.0)
