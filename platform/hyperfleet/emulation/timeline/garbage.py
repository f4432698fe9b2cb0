"""A pause of Python's cyclic garbage collector while a timeline runs."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_cycle_search() -> Iterator[None]:
    """Pause the cyclic garbage collector of the process.

    A timeline creates no cycles, and every device makes a collection longer: collections took a third of the
    time per row with 10,000 devices and nearly half with 100,000. One collection per stretch, which visited
    every device twice, still cost 10 % per row with 100,000 devices. So all objects made meanwhile are moved
    to the oldest generation: a cycle from another thread waits for a full collection, and frozen objects are
    unfrozen.
    """
    # Overlapping threads leave it on: only the one that found it on switches it.
    was_on = gc.isenabled()
    if was_on:
        # Existing garbage must not reach the oldest generation.
        gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            # Both only move lists: young objects to the permanent generation, and from there to the oldest.
            gc.freeze()
            gc.unfreeze()
            gc.enable()
