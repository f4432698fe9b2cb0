"""The generator behind LitServe: one worker, bytes in and out, batches by LitServe."""

import os
from typing import Annotated

import litserve
from fastapi import Body, Response
from head_server import HOST, MAX_BATCH, OCTETS, PATH, PAUSE_MS, PORT, HeadBatch


class HeadApi(litserve.LitAPI):
    """Passes the bodies of a batch to the generator."""

    def setup(self, device: str) -> None:
        """Load the weights, in the worker."""
        self._heads = HeadBatch()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """Return the raw body; LitServe itself would parse JSON."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Return the bodies unchanged; the generator joins them."""
        return inputs

    def predict(self, inputs: list[bytes]) -> list[bytes]:
        """Generate."""
        return self._heads(inputs)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Return the replies, which the generator has already split."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Return a response that FastAPI sends unchanged."""
        return Response(output, media_type=OCTETS)


if __name__ == "__main__":
    server = litserve.LitServer(
        HeadApi(max_batch_size=MAX_BATCH, batch_timeout=PAUSE_MS / 1e3, api_path=PATH),
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=os.environ.get("PEER_FAST_QUEUE") == "1",
    )
    server.run(host=HOST, port=PORT, num_api_servers=1, log_level="warning", generate_client_file=False)
