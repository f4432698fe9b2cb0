"""Closed-loop load for GenerateHeads: n requests in flight, four per channel.

python benchmarks/clients/grpc_load.py --port 9000 --codec fp16 --in-flight 32 --seconds 5
"""

import argparse
import asyncio
import json
import time

import grpc
import numpy as np

from hyperfleet.wire import generator_pb2

METHOD = "/hyperfleet.v1.ParameterGenerator/GenerateHeads"
PER_CHANNEL = 4


async def run(port: int, request: bytes, *, in_flight: int, seconds: float) -> dict[str, float]:
    """Load the server for `seconds` after a warm-up of a fifth of it; replies are not parsed."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        for _ in range(-(-in_flight // PER_CHANNEL))
    ]
    latencies: list[float] = []
    start = time.perf_counter() + seconds / 5
    end = start + seconds

    async def drive(channel: grpc.aio.Channel) -> None:
        ask = channel.unary_unary(METHOD)
        while (began := time.perf_counter()) < end:
            await ask(request)
            now = time.perf_counter()
            if start <= now < end:
                latencies.append(now - began)

    cpu_s = time.process_time()
    await asyncio.gather(*(drive(channels[i // PER_CHANNEL]) for i in range(in_flight)))
    cpu_s = time.process_time() - cpu_s
    for channel in channels:
        await channel.close()
    p50, p99 = np.percentile(latencies, [50, 99])
    return {
        "replies_per_s": len(latencies) / seconds,
        "p50_ms": 1e3 * float(p50),
        "p99_ms": 1e3 * float(p99),
        "client_cpu_ms": 1e3 * cpu_s / len(latencies),
    }


def main() -> None:
    """Print one load as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--task", default="open-ended-qa")
    parser.add_argument("--model", default="")
    parser.add_argument("--codec", default="fp32")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    features = np.random.default_rng(0).standard_normal(192, dtype=np.float32).tobytes()
    request = generator_pb2.GenerateHeadsRequest(
        task=args.task, model=args.model, features=features, codec=args.codec
    )
    load = run(args.port, request.SerializeToString(), in_flight=args.in_flight, seconds=args.seconds)
    print(json.dumps(asyncio.run(load)))


if __name__ == "__main__":
    main()
