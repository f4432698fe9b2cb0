"""What a device gets for a request, whichever way it asked."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hyperfleet.messages import HeadReply, HeadRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedHead:
    """A head and what it took to get it.

    Attributes:
        reply: the head, checked against the layout of the device.
        uplink_bytes: size of the request body.
        downlink_bytes: size of the reply body.
        round_trip_s: from sending the request to holding the decoded head, pauses between tries included.
        generate_s: part of it in which the cloud computed, as the cloud measured it.
        num_tries: how often the request was sent; 1 when nothing went wrong.
        encode_s: part of it in which the cloud wrote the reply in the codec asked for, as the cloud measured
            it; 0 if it did not tell.
    """

    reply: HeadReply
    uplink_bytes: int
    downlink_bytes: int
    round_trip_s: float
    generate_s: float
    num_tries: int = 1
    encode_s: float = 0.0

    @property
    def queue_s(self) -> float:
        """What was neither generating nor link: waiting for a batch and a replica, encoding, HTTP itself."""
        return max(self.round_trip_s - self.generate_s, 0.0)


@runtime_checkable
class GeneratorClient(Protocol):
    """Anything a device can ask for a head."""

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Return the head of each of the request's features.

        Raises:
            ServiceError: no head came, in spite of trying again where that can help.
            HeadLayoutError: what came is no head for this device.
        """
        ...
