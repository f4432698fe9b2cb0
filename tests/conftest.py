"""Settings of all tests, made before Ray or MLflow is imported, and what `make quick` runs."""

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

_RAY_PROCESS = re.compile(r"\bgcs_server\b|\braylet\b|ray\S*\bstart\b")
_started_by: list[str] = [""]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note whether the test may start Ray; its fixtures run inside."""
    _started_by[0] = "" if item.get_closest_marker("integration") else item.nodeid
    return (yield)


def _refuse_ray(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen" and _started_by[0] and _RAY_PROCESS.search(str(arguments[1])):
        pytest.fail(f"{_started_by[0]} starts Ray: mark it with pytest.mark.integration", pytrace=False)


# `make quick` runs what is not marked, and relies on it.
sys.addaudithook(_refuse_ray)
