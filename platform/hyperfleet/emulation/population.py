"""Which devices take part in a run, and in what portions they are handed out."""

from collections.abc import Mapping, Sequence

from hyperfleet.errors import ConfigError
from hyperfleet.seeding import numpy_generator


def choose_devices(seen: Mapping[int, bool], num_devices: int, seed: int) -> tuple[int, ...]:
    """Draw devices so that seen and held-out ones keep their proportion; a larger fleet contains a smaller.

    Args:
        seen: for each device that exists whether training saw it.
        num_devices: how many to draw.
        seed: makes the draw repeatable.

    Raises:
        ConfigError: more devices asked for than there are, or none.
    """
    if not 1 <= num_devices <= len(seen):
        raise ConfigError(
            f"the fleet was asked for {num_devices} devices and the data set has {len(seen)}; "
            "choose between 1 and that, or render a larger scale"
        )
    groups = [sorted(device for device, known in seen.items() if known is wanted) for wanted in (True, False)]
    shares = _shares([len(group) for group in groups], num_devices)
    chosen: list[int] = []
    for group, share, name in zip(groups, shares, ("seen", "held-out"), strict=True):
        order = numpy_generator(seed, "devices", name).permutation(len(group))
        chosen += [group[i] for i in order[:share]]
    return tuple(sorted(chosen))


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    first = round(total * sizes[0] / sum(sizes))
    # A group that exists is not rounded away as long as there is a device to spare.
    if total > 1 and all(sizes):
        first = min(max(first, 1), total - 1)
    return [first, total - first]


def portion(device_ids: Sequence[int], devices_per_chunk: int) -> list[tuple[int, ...]]:
    """Cut `device_ids` into chunks of `devices_per_chunk`, in order, the last one shorter.

    Chunks do not depend on the number of hosts. Devices are therefore encoded in the same batches
    however the fleet is spread, and a run gives the same features to the last bit.

    Raises:
        ConfigError: `devices_per_chunk` below 1.
    """
    if devices_per_chunk < 1:
        raise ConfigError(f"devices_per_chunk must be >= 1, got {devices_per_chunk}")
    starts = range(0, len(device_ids), devices_per_chunk)
    return [tuple(device_ids[start : start + devices_per_chunk]) for start in starts]
