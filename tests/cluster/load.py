"""A steady load on the service with the client that is shipped, and what became of each request."""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from hyperfleet.client import AsyncHttpClient, RetryPolicy, ServedModel
from hyperfleet.errors import HyperFleetError
from hyperfleet.messages import FEATURE_DIM, HeadRequest

# As devices ask: enough tries to outlive a replica, a proxy or a node that starts again.
PATIENT = RetryPolicy(max_tries=12, try_timeout_s=15.0, deadline_s=90.0)


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: when it was sent, how long it took, in how many tries, and why it failed ("" if not)."""

    at_s: float
    latency_s: float
    num_tries: int
    fault: str


@dataclass(kw_only=True)
class Load:
    """Devices that each ask, wait for the head, pause and ask again; runs in a thread while `with` lasts.

    Attributes:
        url: of the service.
        model: what it serves.
        devices: that ask at the same time.
        pause_s: between a device's requests.
        token: what the service knows them by.
        sent: every request that has ended.
    """

    url: str
    model: ServedModel
    devices: int = 8
    pause_s: float = 0.05
    token: str | None = None
    sent: list[Sent] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * PATIENT.deadline_s)

    @property
    def failed(self) -> list[Sent]:
        """Requests that got no head."""
        return [each for each in self.sent if each.fault]

    def latency_s(self, percentile: float) -> float:
        """Return a percentile of the latencies, tries and pauses between them included."""
        return float(np.percentile([each.latency_s for each in self.sent], percentile))

    async def _run(self) -> None:
        client = AsyncHttpClient(
            url=self.url,
            layout=self.model.layout,
            task=self.model.task,
            model=self.model.name,
            token=self.token,
            max_connections=self.devices,
            retry=PATIENT,
        )
        async with client:
            await asyncio.gather(*(self._device(client, number) for number in range(self.devices)))

    async def _device(self, client: AsyncHttpClient, number: int) -> None:
        draw = np.random.default_rng(number)
        while not self._stop.is_set():
            feature = draw.standard_normal((1, FEATURE_DIM), dtype=np.float32)
            started, at_s = time.perf_counter(), time.time()
            fault, num_tries = "", 0
            try:
                num_tries = (await client.request(HeadRequest(features=feature))).num_tries
            except HyperFleetError as error:
                fault = str(error)
            self.sent.append(Sent(at_s, time.perf_counter() - started, num_tries, fault))
            await asyncio.sleep(self.pause_s)
