"""Generator with an untrained model on Serve's fast path; its replica is watched from outside.

Set the flags (`untrained_service.read_flags`) before anything here is used.
"""

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

MIB = 1 << 20
MODEL = "whole"
CLIENT, TOKEN = "load", "token-of-the-load-generator"
HOST = "127.0.0.1"
_OWN_PORTS = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
_LOOK_EVERY_S = 0.5
_REPLICA = "ray::ServeReplica"
_TRACE = re.compile(rb"Traceback \(most recent call last\)")


@dataclass(kw_only=True, slots=True)
class Watched:
    """A running service.

    Attributes:
        http_port: Serve's, HAProxy's on the fast path.
        grpc_port: the replica's own; 0 for none.
        feature: input that `expected` was made from, (1, 192).
        expected: the head that the service must answer, (1, k) float32.
        token: the token it requires; None for none.
        rss: time of `time.perf_counter` and resident bytes of the replica, twice per second.
        pids: every process that was the replica; more than one means a restart.
    """

    http_port: int
    grpc_port: int
    feature: np.ndarray
    expected: np.ndarray
    token: str | None
    rss: list[tuple[float, int]] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)

    @property
    def url(self) -> str:
        """URL of the HTTP port."""
        return f"http://{HOST}:{self.http_port}"

    def rss_mib(self) -> float:
        """Resident memory of the replica now; 0 while there is none."""
        self.look()
        return self.rss[-1][1] / MIB

    def look(self) -> None:
        """Record the process id and the size of the replica."""
        total = 0
        for process in _replicas():
            try:
                total += process.memory_info().rss
                self.pids.add(process.pid)
            except psutil.NoSuchProcess:
                continue
        self.rss.append((time.perf_counter(), total))

    def wrong_answers(self) -> list[str]:
        """Request the head over HTTP and gRPC; return the faults of the answers."""
        from hyperfleet.client import GrpcClient, HttpClient
        from hyperfleet.messages import HeadLayout, HeadRequest

        settings: dict[str, Any] = {"layout": HeadLayout(num_classes=1501), "token": self.token}
        clients = [("HTTP", HttpClient(url=self.url, **settings))]
        if self.grpc_port:
            clients.append(("gRPC", GrpcClient(url=f"http://{HOST}:{self.grpc_port}", **settings)))
        wrong = []
        for name, client in clients:
            try:
                with client:
                    head = client.request(HeadRequest(features=self.feature)).reply.heads.dense().numpy()
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
                continue
            if not np.allclose(head, self.expected, rtol=1e-4, atol=1e-6):
                wrong.append(f"{name}: the head is off by up to {np.abs(head - self.expected).max():.3g}")
        return wrong

    def logged(self) -> dict[str, int]:
        """Count stack traces in the replicas' logs, and tokens in any log of the cluster."""
        import ray

        logs = Path(ray._private.worker._global_node.get_logs_dir_path())
        counts = {"traces": 0, "tokens": 0}
        for path in logs.rglob("*"):
            if path.is_file() and "driver" not in path.name:
                content = path.read_bytes()
                counts["tokens"] += content.count(TOKEN.encode())
                if "replica" in path.name:
                    counts["traces"] += len(_TRACE.findall(content))
        return counts


def _replicas() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if _REPLICA in " ".join(process.cmdline()[:1]):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def running(*, with_grpc: bool = True, with_token: bool = False, **limits: Any) -> Iterator[Watched]:
    """Start the service with `limits`, watch it, and stop it at the end."""
    from clients.untrained_service import features, write_bundles

    import serve_apps
    from hyperfleet.cloud.generator import ParameterGenerator
    from pipelines.runtime import connect, disconnect
    from serve_apps.ports import free_port

    for name in _OWN_PORTS:
        # The cluster's processes read them when they start; another service may hold the default ports.
        os.environ.setdefault(name, str(free_port(HOST, 0)))
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        bundles = write_bundles(Path(folder))
        if with_token:
            limits["tokens_file"] = str(Path(folder) / "tokens.txt")
            Path(limits["tokens_file"]).write_text(f"{CLIENT} {TOKEN}\n")
            Path(limits["tokens_file"]).chmod(0o600)
        grpc_port = free_port(HOST, 0) if with_grpc else 0
        try:
            connect(num_cpus=3)
            models = ",".join(f"{name}={place}" for name, place in bundles.items())
            args = serve_apps.GeneratorArgs(model=models, grpc_port=grpc_port or None, **limits)
            url = serve_apps.start(args, port=0)
            feature = features(1)
            watched = Watched(
                http_port=int(url.rsplit(":", 1)[1]),
                grpc_port=grpc_port,
                feature=feature,
                expected=ParameterGenerator.from_bundle(bundles[MODEL]).generate(feature).numbers.numpy(),
                token=TOKEN if with_token else None,
            )
            threading.Thread(target=_watch, args=(watched, over), daemon=True).start()
            yield watched
        finally:
            over.set()
            disconnect()


def _watch(watched: Watched, over: threading.Event) -> None:
    while not over.wait(_LOOK_EVERY_S):
        watched.look()
