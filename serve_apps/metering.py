"""What the service counts about itself. Nothing here knows Ray: a replica gives it Ray's metrics."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from serve_apps.encoded_heads import EncodedHeads

if TYPE_CHECKING:
    from serve_apps.head_service import Chunk, GeneratedChunk


class Meter(Protocol):
    """Counts requests, batches, bytes and refusals."""

    def answered(self, heads: EncodedHeads, num_heads: int) -> None:
        """Count a request that got its heads."""
        ...

    def refused(self, reason: str) -> None:
        """Count one that got none; `reason` is the name of an error or of an HTTP status."""
        ...

    def generated(self, num_heads: int, generate_s: float) -> None:
        """Count heads made in one product, and what that took."""
        ...

    def encoded(self, encode_s: float) -> None:
        """Count what a codec took for all heads of a product that travel in it."""
        ...


class NoMeter:
    """Counts nothing."""

    def answered(self, heads: EncodedHeads, num_heads: int) -> None:
        """Do nothing."""

    def refused(self, reason: str) -> None:
        """Do nothing."""

    def generated(self, num_heads: int, generate_s: float) -> None:
        """Do nothing."""

    def encoded(self, encode_s: float) -> None:
        """Do nothing."""


def count_batch(meter: Meter, chunks: Sequence["Chunk"], made: Sequence["GeneratedChunk"]) -> None:
    """Count the products of a batch, one for each version, and their codecs."""
    there = [(chunk, own) for chunk, own in zip(chunks, made, strict=True) if own.files is not None]
    for own in {id(chunk.served): own for chunk, own in there}.values():
        meter.generated(own.batch_heads, own.generate_s)
    for own in {id(own.files): own for _, own in there}.values():
        meter.encoded(own.encode_s)
