"""A generator of this process behind the interface of the service.

It encodes and decodes the real messages, so a run without a network counts the same bytes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hyperfleet.client.received import ReceivedHead
from hyperfleet.client.wanted import check_codec
from hyperfleet.head_codecs import DEFAULT_CODEC, BaseHead, GeneratedHeads
from hyperfleet.messages import HeadReply, HeadRequest, ModelLabel, encode_heads


@dataclass(frozen=True, slots=True)
class InProcessClient:
    """Calls a generator of this process, as the serial emulation does; nothing queues but its own work.

    Attributes:
        generate: makes a head of each feature (n, 192).
        label: what the replies say of the model.
        codec: how heads travel.
        base: the device's own static head, for codecs that send what is added to it.

    Raises:
        ConfigError: a codec that cannot be used; an unknown one is an UnknownNameError.
    """

    generate: Callable[[np.ndarray], GeneratedHeads]
    label: ModelLabel
    codec: str = DEFAULT_CODEC
    base: BaseHead | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_codec(self.codec, self.base)

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Ask for the head of each feature; see `GeneratorClient`."""
        started_s = time.perf_counter()
        uplink = request.to_bytes()
        features = HeadRequest.from_bytes(uplink).features
        generating_s = time.perf_counter()
        generated = self.generate(features)
        encoding_s = time.perf_counter()
        downlink = encode_heads(generated, codec=self.codec, label=self.label)
        encoded_s = time.perf_counter()
        layout = generated.layout if self.base is None else self.base.layout
        reply = HeadReply.from_bytes(downlink, expected=layout, num_heads=len(features), base=self.base)
        return ReceivedHead(
            reply=reply,
            uplink_bytes=len(uplink),
            downlink_bytes=len(downlink),
            round_trip_s=time.perf_counter() - started_s,
            generate_s=encoding_s - generating_s,
            encode_s=encoded_s - encoding_s,
        )
