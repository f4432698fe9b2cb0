"""Rounds of Flower's simulation engine; run with the Python of the peers' environment.

Uses the Message API, the cheapest way through Flower: no strategy, and only the feature is sent down. Two Ray
actors, as in ours. All other settings are Flower's defaults.
"""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from workload import HEAD_FLOATS, arguments, check_sum, features, make_head, measure, report

NUM_ACTORS = 2
# A dead Flower actor never answers; the sum then shows that heads are missing.
ROUND_TIMEOUT_S = 900.0


def answer(message: Message, context: Context) -> Message:
    """Act as one device."""
    (feature,) = message.content["feature"].to_numpy_ndarrays()
    return Message(RecordDict({"head": ArrayRecord([make_head(feature)])}), reply_to=message)


def node_ids(grid: Grid, num_devices: int) -> list[int]:
    """Return the nodes, which register while the server starts."""
    while len(ids := list(grid.get_node_ids())) < num_devices:
        pass
    return ids


def main() -> None:
    """Run and print the figures."""
    args = arguments(__doc__)
    sent = features(args.devices)
    server, client = ServerApp(), ClientApp()
    client.query()(answer)
    figures: dict[str, float] = {}

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        ids = node_ids(grid, args.devices)

        def run_round() -> list[Message]:
            messages = [
                Message(
                    RecordDict({"feature": ArrayRecord([feature])}), dst_node_id=node, message_type="query"
                )
                for node, feature in zip(ids, sent, strict=True)
            ]
            replies = list(grid.send_and_receive(messages, timeout=ROUND_TIMEOUT_S))
            total = np.zeros(HEAD_FLOATS, np.float32)
            for reply in replies:
                total += reply.content["head"].to_numpy_ndarrays()[0]
            check_sum(total, args.devices)
            return replies

        figures.update(measure(args.devices, args.seconds, run_round))

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=args.devices,
        backend_config={
            "init_args": {"num_cpus": NUM_ACTORS},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    report(figures)


if __name__ == "__main__":
    main()
