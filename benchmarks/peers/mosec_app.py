"""The generator behind Mosec: its server in Rust, one Python worker, bytes in and out."""

import os

from head_server import HOST, MAX_BATCH, OCTETS, PATH, PAUSE_MS, PORT, HeadBatch
from mosec import Server, Worker


class HeadWorker(Worker):
    """Passes the bodies of a batch to the generator."""

    req_mime_type = resp_mime_type = OCTETS

    def __init__(self) -> None:
        super().__init__()
        self._heads = HeadBatch()

    def deserialize(self, data: bytes) -> bytes:
        """Return the raw body."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """Generate."""
        return self._heads(data)

    def serialize(self, data: bytes) -> bytes:
        """Return the reply unchanged."""
        return data


if __name__ == "__main__":
    os.environ |= {"MOSEC_ADDRESS": HOST, "MOSEC_PORT": str(PORT), "MOSEC_LOG_LEVEL": "warning"}
    server = Server()
    server.append_worker(HeadWorker, num=1, max_batch_size=MAX_BATCH, max_wait_time=PAUSE_MS, route=PATH)
    server.run()
