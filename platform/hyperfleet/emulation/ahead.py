"""Prefetching iterator: a thread makes items before they are read."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], num: int = 2) -> Iterator[Item]:
    """Yield `items`, made up to `num` ahead of the reader; errors are raised at their position."""
    source = iter(items)
    executor = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        made: deque[Future[Any]] = deque(executor.submit(next, source, _END) for _ in range(num))
        while (item := made.popleft().result()) is not _END:
            made.append(executor.submit(next, source, _END))
            yield item
    finally:
        executor.shutdown(cancel_futures=True)
