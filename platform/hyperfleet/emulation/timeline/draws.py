"""Random numbers by name instead of by order, cheap enough for one a message.

A generator of NumPy takes 20 microseconds to make, more than all else that a message costs. These are
the SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) of what the number is for.
"""

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def uniform(seed: int, stream: int, device: int, number: int) -> float:
    """Return the number in [0, 1) of a stream, a device and a count; the same whenever it is asked for."""
    state = seed
    for part in (stream, device, number):
        state = (state + _GAMMA * (part + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return (state >> 11) * 2.0**-53
