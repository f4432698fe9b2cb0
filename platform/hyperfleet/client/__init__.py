"""Clients of a running parameter generator.

    from hyperfleet.client import HttpClient, fetch_base, served_model
    from hyperfleet.messages import HeadRequest

    model = served_model("http://127.0.0.1:8000", task="open-ended-qa")
    base = fetch_base("http://127.0.0.1:8000", model.name, model.layout)
    with HttpClient(url="http://127.0.0.1:8000", layout=model.layout, codec="rank4", base=base) as client:
        received = client.request(HeadRequest(features=features))  # (n, 192) float32
    scores = received.reply.heads.scores(hidden)  # (n, 96) to (n, classes)

Programs with an event loop use `AsyncHttpClient`. `GrpcClient` and `AsyncGrpcClient` speak gRPC.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
