"""A fleet without Ray: one request after the other in one process, the reference for every other way."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from hyperfleet.client import GeneratorClient
from hyperfleet.device import DeviceGroup, QuestionStream, gather_samples
from hyperfleet.emulation.events import Event, events_table, join_events
from hyperfleet.emulation.exchange import Networks, ask_and_answer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SerialRun:
    """Events of a run and the devices that had nothing to ask."""

    events: pa.Table
    empty_devices: tuple[int, ...]


def run_serial(
    group: DeviceGroup,
    stream: Callable[[int], QuestionStream],
    client: GeneratorClient,
    chunks: Sequence[Sequence[int]],
    *,
    networks: Networks,
    samples_per_device: int | None = None,
    batch_size: int = 32,
) -> SerialRun:
    """Let the devices of `chunks` ask and answer all their questions, in order.

    For the same arguments a fleet on Ray gives the same events but for the measured times, and but
    for ties in the last bits of a head, which a service generates in batches of another size.
    """
    return asyncio.run(_run(group, stream, client, chunks, networks, samples_per_device, batch_size))


async def _run(
    group: DeviceGroup,
    stream: Callable[[int], QuestionStream],
    client: GeneratorClient,
    chunks: Sequence[Sequence[int]],
    networks: Networks,
    samples_per_device: int | None,
    batch_size: int,
) -> SerialRun:
    events: list[Event] = []
    all_empty: list[int] = []
    for device_ids in chunks:
        samples, empty = gather_samples(stream, device_ids, samples_per_device)
        all_empty += empty
        if samples is None:
            continue
        for batch in samples.batches(batch_size):
            encoded = group.encode(batch)
            for i, device_id in enumerate(batch.device_id):
                network = networks.of(int(device_id))
                events.append(await ask_and_answer(encoded, i, client, network))
    return SerialRun(events=join_events([events_table(events)]), empty_devices=tuple(all_empty))
