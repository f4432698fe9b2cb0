"""What the service counts about itself. Nothing here knows Ray: a replica gives it Ray's metrics."""

from typing import Protocol

from serve_apps.encoded_heads import EncodedHeads


class Meter(Protocol):
    """Counts requests, batches, bytes and refusals."""

    def answered(self, heads: EncodedHeads, num_heads: int) -> None:
        """Count a request that got its heads."""
        ...

    def refused(self, reason: str) -> None:
        """Count one that got none; `reason` is the name of an error or of an HTTP status."""
        ...

    def generated(self, num_heads: int, generate_s: float, encode_s: float) -> None:
        """Count heads made in one product, once for each codec that they travel in, and what that took."""
        ...


class NoMeter:
    """Counts nothing."""

    def answered(self, heads: EncodedHeads, num_heads: int) -> None:
        """Do nothing."""

    def refused(self, reason: str) -> None:
        """Do nothing."""

    def generated(self, num_heads: int, generate_s: float, encode_s: float) -> None:
        """Do nothing."""
