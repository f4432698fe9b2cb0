"""Python's search for garbage in cycles, and when a timeline does without."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_cycle_search() -> Iterator[None]:
    """Keep Python from searching for garbage in cycles, in the whole process, until this is left.

    A timeline leaves no cycle behind, and every new device makes the search longer: it took a third of the
    time of a row with 10,000 devices and nearly half with 100,000. Whatever else makes cycles meanwhile waits
    for the next search; so leave this often.
    """
    # Who found it on switches it on again, so threads that overlap leave it on.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
