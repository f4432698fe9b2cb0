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

from hyperfleet.client.blocking import GrpcClient as GrpcClient
from hyperfleet.client.blocking import HttpClient as HttpClient
from hyperfleet.client.grpc import AsyncGrpcClient as AsyncGrpcClient
from hyperfleet.client.http import AsyncHttpClient as AsyncHttpClient
from hyperfleet.client.models import ServedModel as ServedModel
from hyperfleet.client.models import fetch_base as fetch_base
from hyperfleet.client.models import served_model as served_model
from hyperfleet.client.models import served_models as served_models
from hyperfleet.client.reply import GeneratorClient as GeneratorClient
from hyperfleet.client.reply import ReceivedHead as ReceivedHead
from hyperfleet.client.retry import PATIENT as PATIENT
from hyperfleet.client.retry import RetryPolicy as RetryPolicy
