"""Random numbers by name instead of by order, cheap enough for one a message."""

from hyperfleet.seeding import draw64


def uniform(seed: int, stream: int, device: int, number: int) -> float:
    """Return the number in [0, 1) of a stream, a device and a count; the same whenever it is asked for."""
    return (draw64(draw64(draw64(seed, stream), device), number) >> 11) * 2.0**-53
