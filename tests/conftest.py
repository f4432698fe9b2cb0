"""Settings of all tests, applied before Ray or MLflow is imported, and the selection of `make quick`."""

import os
import re
import sys
from collections.abc import Generator

import pytest

# Ray's hook for `uv run` rebuilds an environment for every worker and can stall a suite.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
# Ray Train's controller looks at its workers every 2 s by default, and each report waits for it.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# A developer's cluster and tracking server are not for tests to write to.
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(name, None)
# Tests run on data they make; a hub that cannot be reached would only delay them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# Workers of pytest-xdist share the cores: threads of one would wait for those of the other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What one test may take where `make quick` runs it, fixtures left out. CPU time also grows on a busy machine.
QUICK_CPU_S = 10.0
_RAY_PROCESS = re.compile(r"\bgcs_server\b|\braylet\b|ray\S*\bstart\b")
_without_ray: str | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make quick`."""
    parser.addoption("--quick", action="store_true", help="leave out integration, slow and heavy tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what `make quick` runs."""
    if config.getoption("--quick"):
        left_out = [
            item for item in items if any(map(item.get_closest_marker, ("integration", "slow", "heavy")))
        ]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note whether the test and its fixtures may start Ray."""
    global _without_ray
    _without_ray = None if item.get_closest_marker("integration") else item.nodeid
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Keep `make quick` quick."""
    before_s = sum(os.times()[:4])
    result = yield
    cpu_s = sum(os.times()[:4]) - before_s
    if item.config.getoption("--quick") and cpu_s > QUICK_CPU_S:
        pytest.fail(f"{item.nodeid} took {cpu_s:.0f} s of CPU: mark it with pytest.mark.heavy", pytrace=False)
    return result


def _refuse_ray(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen" and _without_ray and _RAY_PROCESS.search(str(arguments[1])):
        pytest.fail(f"{_without_ray} starts Ray: mark it with pytest.mark.integration", pytrace=False)


# `make quick` leaves out what is marked, and so every start of Ray must be.
sys.addaudithook(_refuse_ray)
