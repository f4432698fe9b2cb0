"""Python's search for garbage in cycles, and when a timeline does without."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_cycle_search() -> Iterator[None]:
    """Keep Python from searching for garbage in cycles, in the whole process, until this is left.

    A timeline leaves no cycle behind, and every new device makes the search longer: it took a third of the
    time of a row with 10,000 devices and nearly half with 100,000. One search after each stretch, which went
    through every device twice, still made a row with 100,000 devices a tenth dearer. So all that was made
    meanwhile counts as old in the end: a cycle that another thread leaves waits for a full search, and what
    someone froze is thawed.
    """
    # Who found it on switches it on again, so threads that overlap leave it on.
    was_on = gc.isenabled()
    if was_on:
        # What is garbage by now must not grow old as well.
        gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            # Both only move lists: all that is young to what no search looks at, and from there to the old.
            gc.freeze()
            gc.unfreeze()
            gc.enable()
