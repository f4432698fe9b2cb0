"""The answer to a request, before a transport writes it."""

from dataclasses import dataclass

from serve_apps.served_models import ServedGenerator


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedHeads:
    """Heads of one request as they go over the link.

    Attributes:
        body: a safetensors file.
        checksum: xxh3-64 of the body in hexadecimal.
        codec: how they travel.
        served: the version that made them.
        queue_s: waited for the batches, in seconds.
        generate_s: time of the batches it was in.
        encode_s: time of the codec, for those of the batch that it encoded, and of packing this reply.
    """

    body: bytes
    checksum: str
    codec: str
    served: ServedGenerator
    queue_s: float
    generate_s: float
    encode_s: float
