"""Settings that every test and every process it starts must have before Ray or MLflow is imported."""

import os

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
