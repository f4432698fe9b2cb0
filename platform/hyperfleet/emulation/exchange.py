"""One request of one device, from asking for a head to answering with it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hyperfleet.client import GeneratorClient, ReceivedHead
from hyperfleet.device import EncodedSamples
from hyperfleet.emulation.events import Event
from hyperfleet.errors import FeatureError, HeadLayoutError, ServiceError
from hyperfleet.link.network import NetworkProfile, assign_network
from hyperfleet.messages import FEATURE_BYTES, DeviceReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Networks:
    """Which network a device is on: drawn from `names` by `seed` and the device, see `assign_network`."""

    seed: int
    names: Sequence[str]

    def of(self, device_id: int) -> NetworkProfile:
        """Return the network of a device."""
        return assign_network(self.seed, device_id, self.names)


async def ask_and_answer(
    encoded: EncodedSamples, i: int, client: GeneratorClient, network: NetworkProfile
) -> Event:
    """Ask for the head of sample `i` and answer it, with the device's own head if none can be had.

    Link time is computed from the bytes that were sent, on the network of the device; everything else
    is measured. A request that fails is recorded with its reason: it stops neither device nor fleet.
    """
    asked_at_s, started = time.time(), time.perf_counter()
    try:
        head = await client.request(encoded.request(i))
        received = time.perf_counter()
        answer = encoded.answer(i, head.reply)
        apply_s = time.perf_counter() - received
    except (ServiceError, HeadLayoutError, FeatureError) as error:
        report = _fallback(encoded, i, network, error, waited_s=time.perf_counter() - started)
        num_tries = 0
    else:
        report = _personalized(encoded, i, network, head, answer, apply_s)
        num_tries = head.num_tries
    return Event(
        report=report,
        anchor_frame=int(encoded.anchor_frame[i]),
        base_answer=int(encoded.base_answer[i]),
        num_tries=num_tries,
        asked_at_s=asked_at_s,
        answered_at_s=time.time(),
    )


def _personalized(
    encoded: EncodedSamples, i: int, network: NetworkProfile, head: ReceivedHead, answer: int, apply_s: float
) -> DeviceReport:
    return DeviceReport(
        device_id=int(encoded.samples.device_id[i]),
        example_id=int(encoded.samples.example_id[i]),
        network=network.name,
        model_version=head.reply.label.version,
        answer=answer,
        static_answer=int(encoded.static_answer[i]),
        uplink_bytes=head.uplink_bytes,
        downlink_bytes=head.downlink_bytes,
        uplink_s=network.uplink_s(head.uplink_bytes),
        queue_s=head.queue_s,
        generate_s=head.generate_s,
        downlink_s=network.downlink_s(head.downlink_bytes),
        apply_s=apply_s,
    )


def _fallback(
    encoded: EncodedSamples, i: int, network: NetworkProfile, error: Exception, waited_s: float
) -> DeviceReport:
    was_sent = not isinstance(error, FeatureError)
    uplink_bytes = FEATURE_BYTES if was_sent else 0
    return DeviceReport(
        device_id=int(encoded.samples.device_id[i]),
        example_id=int(encoded.samples.example_id[i]),
        network=network.name,
        model_version="",
        answer=int(encoded.base_answer[i]),
        static_answer=int(encoded.static_answer[i]),
        uplink_bytes=uplink_bytes,
        downlink_bytes=0,
        uplink_s=network.uplink_s(uplink_bytes),
        queue_s=waited_s,
        generate_s=0.0,
        downlink_s=0.0,
        apply_s=0.0,
        fallback=f"{type(error).__name__}: {error}",
    )
