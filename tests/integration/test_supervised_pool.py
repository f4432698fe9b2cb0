import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from actors.device_host import DeviceHost, HostSpec, RemoteDeviceHost
from actors.supervised_pool import WINDOW_PER_HOST, Job, SupervisedPool
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation.answering import answer_pairs
from hyperfleet.emulation.feature_table import (
    FeatureTable,
    encode_all,
    encoding_batches,
    join_parts,
    live_samples,
)
from hyperfleet.errors import ConfigError, DataError, ServiceError, UnknownNameError
from hyperfleet.messages import HeadLayout
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig
from pipelines.runtime import connect, disconnect
from tests.worlds.devices_in_memory import NUM_CLASSES, World, tiny_models

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def _ray():
    connect(num_cpus=2)
    yield
    disconnect()


@ray.remote(num_cpus=0)
class Squarer:
    """A host that writes down what it does and dies when told to."""

    def __init__(self, log: Path, on_start: str = "") -> None:
        self.log = log
        self.on_start = on_start

    def start(self) -> None:
        if self.on_start == "refuse":
            raise DataError("no data here")
        if self.on_start == "die":
            os._exit(1)

    def square(self, number: int, sleep_s: float = 0.0) -> int:
        with self.log.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(sleep_s)
        return number * number

    def refuse(self, number: int) -> int:
        raise DataError(f"{number} is refused")

    def break_down(self, number: int) -> int:
        raise ZeroDivisionError("not on purpose")

    def die(self, number: int) -> int:
        os._exit(1)

    def pid(self) -> int:
        return os.getpid()


@dataclass
class Results:
    seen: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, job: Job, result: int) -> None:
        self.seen.append((job.key, result))


def pool_of(log: Path, num_hosts: int = 2, **fields: str) -> SupervisedPool:
    return SupervisedPool(lambda: Squarer.remote(log, **fields), num_hosts)


def squares(number: int, sleep_s: float = 0.0) -> list[Job]:
    return [Job(key=i, method="square", args=(i, sleep_s)) for i in range(number)]


def times_run(log: Path) -> Counter[int]:
    return Counter(map(int, log.read_text().split()))


def test_results_come_once_in_order_as_jobs_are_read(tmp_path) -> None:
    results, ahead, read = Results(), [], []

    def jobs():
        for job in squares(60):
            read.append(job)
            ahead.append(len(read) - len(results.seen))
            # The first is slow: nothing may be delivered before it.
            yield Job(key=job.key, method="square", args=(job.key, 1.0 if job.key == 0 else 0.0))

    with pool_of(tmp_path / "log") as pool:
        pool.run(jobs(), results)
        assert results.seen == [(i, i * i) for i in range(60)]
        assert max(ahead) == 2 * WINDOW_PER_HOST
        assert set(times_run(tmp_path / "log").values()) == {1}
        assert pool.deaths == []
        assert len(set(pool.host_pids)) == 2
        assert sorted(pool.ask_all("pid")) == sorted(pool.host_pids)
        pool.run([], results)
        pool.run(squares(1), results)
    assert len(results.seen) == 61


def placed_pool(log: Path, num_hosts: int, num_cpus: int, start_timeout_s: float) -> SupervisedPool:
    host = Squarer.options(num_cpus=num_cpus)
    return SupervisedPool(lambda: host.remote(log), num_hosts, start_timeout_s=start_timeout_s)


def test_hosts_without_room_hold_nobody_up(tmp_path) -> None:
    results = Results()
    # Time enough for two processes to start on a busy machine; the third has no room, however long it waits.
    with placed_pool(tmp_path / "log", num_hosts=3, num_cpus=1, start_timeout_s=10.0) as pool:
        assert len(pool.host_pids) == 2
        pool.run(squares(20), results)
        assert len(pool.ask_all("pid")) == 2
    assert results.seen == [(i, i * i) for i in range(20)]


def test_a_pool_whose_every_host_is_without_room_is_an_error(tmp_path) -> None:
    with (
        pytest.raises(
            ServiceError, match=r"none of 1 hosts has started in 1 s; the cluster has CPU 2.*ray status"
        ),
        placed_pool(tmp_path / "log", num_hosts=1, num_cpus=64, start_timeout_s=1.0),
    ):
        pass


def kill_outside(pool: SupervisedPool) -> int:
    os.kill(pool.host_pids[0], signal.SIGKILL)
    return pool.host_pids[0]


def kill_inside(pool: SupervisedPool) -> int:
    return pool.kill_one(0)


@pytest.mark.parametrize("kill", [kill_outside, kill_inside])
def test_a_killed_host_loses_no_job_and_doubles_none(tmp_path, kill) -> None:
    results, killed, num_alive = Results(), [], []
    with pool_of(tmp_path / "log") as pool:

        def on_result(job: Job, result: int) -> None:
            results(job, result)
            num_alive.append(len(pool.host_pids))
            if len(results.seen) in (5, 50):
                killed.append(kill(pool))

        pool.run(squares(100, 0.02), on_result)
        assert results.seen == [(i, i * i) for i in range(100)]
        assert sum(times_run(tmp_path / "log").values()) <= 100 + sum(d.num_jobs_redone for d in pool.deaths)
        assert [death.pid for death in pool.deaths if death.pid] == [pid for pid in killed if pid]
        for death in pool.deaths:
            assert 0 <= death.num_jobs_redone <= 2
            assert death.at_s > 0
            assert death.recovery_s is not None
        assert any(death.num_jobs_redone and death.recovery_s > 0 for death in pool.deaths)
        # The other host took the jobs over and did not wait for a successor.
        assert 1 in num_alive[10:50]
        assert not set(killed) & set(pool.host_pids)


def test_a_pool_of_one_host_goes_on_with_its_successor(tmp_path) -> None:
    results = Results()
    with pool_of(tmp_path / "log", 1) as pool:

        def on_result(job: Job, result: int) -> None:
            results(job, result)
            if job.key in (2, 4, 6, 8):
                pool.kill_one(0)

        pool.run(squares(10, 0.05), on_result)
        # Killed on purpose more often than a job may kill hosts: nobody is blamed.
        assert [death.num_jobs_redone > 0 for death in pool.deaths] == [True] * 4
        assert all(death.recovery_s > 0 for death in pool.deaths)
    assert results.seen == [(i, i * i) for i in range(10)]


def test_a_job_that_kills_its_hosts_is_given_up_and_the_pool_goes_on(tmp_path) -> None:
    jobs = [*squares(3), Job(key="bad", method="die", args=(3,)), *squares(3)]
    with pool_of(tmp_path / "log") as pool:
        with pytest.raises(ServiceError, match="3 hosts died while they worked on die 'bad'"):
            pool.run(jobs, Results())
        assert len(pool.deaths) == 3
        results = Results()
        pool.run(squares(4), results)
        assert results.seen == [(i, i * i) for i in range(4)]


def test_what_a_host_refuses_is_raised_as_it_is(tmp_path) -> None:
    with pool_of(tmp_path / "log", 1) as pool:
        with pytest.raises(DataError, match=r"^7 is refused$"):
            pool.run([*squares(2), Job(key=2, method="refuse", args=(7,)), *squares(5)], Results())
        with pytest.raises(ZeroDivisionError):
            pool.run([Job(key=0, method="break_down", args=(1,))], Results())
        results = Results()
        pool.run(squares(3), results)
        assert results.seen == [(0, 0), (1, 1), (2, 4)]
        with pytest.raises(ConfigError, match="the pool has hosts 0 to 0, got 1"):
            pool.kill_one(1)


def test_hosts_that_cannot_start_say_why(tmp_path) -> None:
    with (
        pytest.raises(DataError, match=r"^no data here$"),
        pool_of(tmp_path / "log", on_start="refuse"),
    ):
        pass
    with (
        pytest.raises(ServiceError, match="3 hosts died while they started"),
        pool_of(tmp_path / "log", 1, on_start="die"),
    ):
        pass
    with pytest.raises(ConfigError, match="num_hosts must be >= 1, got 0"):
        pool_of(tmp_path / "log", 0)


CLIPS_OF = (30, 0, 12, 25)


@dataclass
class LiveWorld(World):
    @property
    def seen(self) -> dict[int, bool]:
        return dict.fromkeys(self.device_ids, True)


def shared_generator() -> SharedGenerator:
    torch.manual_seed(0)
    config = HeadGeneratorConfig(adr=None, offset_init=1.0)
    module = HeadGenerator(config, HeadLayout(num_classes=NUM_CLASSES)).requires_grad_(False).eval()
    module.base.normal_(std=0.1)
    return SharedGenerator.of(module)


SPEC = HostSpec(open_data=partial(LiveWorld, CLIPS_OF), seed=0, heads_at_once=8)


def test_hosts_compute_a_table_and_answers_and_one_that_is_killed_changes_nothing() -> None:
    world, models, shared = LiveWorld(CLIPS_OF), tiny_models(), shared_generator()
    samples = live_samples(world)
    group = DeviceGroup(personal=models[0], static=models[1], store=world.store, seed=0)
    expected = encode_all(group, samples)
    models_ref, generator_ref = ray.put(models), ray.put(shared)

    def make_actor():
        return RemoteDeviceHost.remote(SPEC, models=models_ref, generator=generator_ref)

    rng = np.random.default_rng(0)
    # More than are handed out ahead of a result: when the host dies, some are still to be given to it.
    windows = [rng.integers(len(samples), size=(2, 40)) for _ in range(40)]
    with SupervisedPool(make_actor, 2) as pool:
        parts, answers, keys = [], [], []
        batches = encoding_batches(samples)
        pool.run(
            [Job(key=i, method="encode", args=(rows,)) for i, rows in enumerate(batches)],
            lambda job, part: parts.append(part),
        )
        table = join_parts(samples, parts)
        rest = "fp32", ray.put(table)

        def on_answer(job: Job, result: tuple[np.ndarray, np.ndarray]) -> None:
            keys.append(job.key)
            answers.append(result)
            if job.key == 3:
                pool.kill_one(0)

        pool.run(
            [Job(key=i, method="answer", args=(*window, *rest)) for i, window in enumerate(windows)],
            on_answer,
        )
        assert len(pool.deaths) == 1
        assert min(each.cpu_s for each in pool.ask_all("usage")) > 0
    np.testing.assert_allclose(table.anchor, expected.anchor, atol=1e-5)
    np.testing.assert_allclose(table.hidden, expected.hidden, atol=1e-5)
    assert table.example_id.tolist() == expected.example_id.tolist()
    assert keys == list(range(40))
    generator = ParameterGenerator(shared.open()._module)
    for (answer, score), window in zip(answers, windows, strict=True):
        right, winning = answer_pairs(generator, table, *window)
        np.testing.assert_allclose(score, winning, rtol=1e-5, atol=1e-5)
        assert answer.tolist() == right.tolist()


def test_a_host_answers_in_any_codec_and_refuses_what_it_cannot() -> None:
    shared, rows = shared_generator(), np.arange(3)
    rng = np.random.default_rng(0)
    anchor, hidden = (rng.standard_normal((3, width), dtype=np.float32) for width in (192, 96))
    none = np.zeros(3, np.int32)
    table = FeatureTable(
        device_id=rows, example_id=rows, anchor=anchor, hidden=hidden, base_answer=none, static_answer=none
    )
    host = DeviceHost(SPEC, generator=shared)
    assert host.start() == os.getpid()
    for codec in ("fp32", "int8"):
        expected, _ = answer_pairs(shared.open(), table, rows, rows, codec)
        assert host.answer(rows, rows, codec, table)[0].tolist() == expected.tolist()
    with pytest.raises(UnknownNameError, match="unknown head codec 'fp8'"):
        host.answer(rows, rows, "fp8", table)
    with pytest.raises(ConfigError, match=r"HostSpec\.heads_at_once must be >= 1, got 0"):
        HostSpec(open_data=SPEC.open_data, seed=0, heads_at_once=0)
