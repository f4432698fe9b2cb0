"""Generator of a run: one that is running already, or one started for the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import serve_apps


@contextmanager
def generator_for_run(
    model: str, tracking_uri: str | None, url: str | None, *, replicas: int = 1
) -> Iterator[str]:
    """Yield the URL of a generator of `model`, started for this run unless `url` names one."""
    if url is not None:
        yield url.rstrip("/")
        return
    args = serve_apps.GeneratorArgs(model=model, tracking_uri=tracking_uri, replicas=replicas)
    started = serve_apps.start(args, 0)
    try:
        yield started
    finally:
        serve_apps.stop()
