"""Where heads are asked for; read in proxies too, which load no PyTorch."""

from starlette.types import Scope

_GENERATE = "/v1/generate/"
GENERATE_PATH = _GENERATE + "{task}"


def task_of(scope: Scope) -> str | None:
    """Return the task that a request asks heads for; None if it asks for something else."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    task = path[len(_GENERATE) :]
    return task if task and path.startswith(_GENERATE) and "/" not in task else None
