"""Steady load on the service with the shipped client, and the outcome of each request."""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from hyperfleet.client import PATIENT, AsyncHttpClient, ServedModel
from hyperfleet.errors import HyperFleetError
from hyperfleet.messages import FEATURE_DIM, HeadRequest


@dataclass(frozen=True, slots=True)
class Sent:
    """One request.

    Attributes:
        at_s: time of sending, on the clock of `time.monotonic`.
        latency_s: seconds until its head arrived, including tries and pauses.
        num_tries: number of times it was sent.
        version: version of the model that made its head.
        fault: reason of its failure, "" for none.
    """

    at_s: float
    latency_s: float
    num_tries: int
    version: str
    fault: str


@dataclass(kw_only=True)
class Load:
    """Devices that each request a head, wait for it, pause and repeat; runs in a thread during `with`.

    Attributes:
        url: URL of the service.
        model: the served model.
        devices: number of devices that ask at the same time.
        pause_s: pause between a device's requests.
        token: their token for the service.
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
        """Requests without a head."""
        return [each for each in self.sent if each.fault]

    def wait_for(self, num: int) -> None:
        """Wait until `num` more requests have ended.

        Raises:
            TimeoutError: they take longer than a device waits at most.
        """
        wanted, deadline_s = len(self.sent) + num, time.monotonic() + PATIENT.deadline_s
        while len(self.sent) < wanted:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{len(self.sent) - wanted + num} of {num} requests ended in time")
            self._stop.wait(0.05)

    def summary(self, since_s: float) -> str:
        """Summarize the requests since a moment on the clock of `time.monotonic`."""
        sent = [each for each in self.sent if each.at_s + each.latency_s >= since_s]
        before_s = [each.latency_s for each in self.sent if each.at_s + each.latency_s < since_s]
        if not sent or not before_s:
            return f"{len(self.sent)} requests"
        p99_s, longest_s = np.percentile([each.latency_s for each in sent], [99, 100])
        again = sum(each.num_tries > 1 for each in sent)
        failed = sum(bool(each.fault) for each in sent)
        return (
            f"{len(sent):,} requests, {failed} failed, {again} asked again, p99 {1e3 * p99_s:.0f} ms "
            f"({1e3 * np.percentile(before_s, 99):.0f} before), longest {longest_s:.1f} s"
        )

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
            at_s = time.monotonic()
            fault, version, num_tries = "", "", 0
            try:
                received = await client.request(HeadRequest(features=feature))
                version, num_tries = received.reply.label.version, received.num_tries
            except HyperFleetError as error:
                fault = str(error)
            self.sent.append(Sent(at_s, time.monotonic() - at_s, num_tries, version, fault))
            await asyncio.sleep(self.pause_s)
