"""Ask a running parameter generator for heads.

    from hyperfleet.client import HttpClient, fetch_base, served_model
    from hyperfleet.messages import HeadRequest

    model = served_model("http://127.0.0.1:8000", task="open-ended-qa")
    base = fetch_base("http://127.0.0.1:8000", model.name, model.layout)
    with HttpClient(url="http://127.0.0.1:8000", layout=model.layout, codec="rank4", base=base) as client:
        received = client.request(HeadRequest(features=features))  # (n, 192) float32
    scores = received.reply.heads.scores(hidden)  # (n, 96) to (n, classes)

`AsyncHttpClient` is the same for programs with an event loop, `GrpcClient` and `AsyncGrpcClient` speak gRPC,
`InProcessClient` calls a generator of this process.
"""

from hyperfleet.client.grpc import AsyncGrpcClient as AsyncGrpcClient
from hyperfleet.client.grpc import GrpcClient as GrpcClient
from hyperfleet.client.http import AsyncHttpClient as AsyncHttpClient
from hyperfleet.client.in_process import InProcessClient as InProcessClient
from hyperfleet.client.models import ServedModel as ServedModel
from hyperfleet.client.models import fetch_base as fetch_base
from hyperfleet.client.models import served_model as served_model
from hyperfleet.client.models import served_models as served_models
from hyperfleet.client.received import GeneratorClient as GeneratorClient
from hyperfleet.client.received import ReceivedHead as ReceivedHead
from hyperfleet.client.retry import PATIENT as PATIENT
from hyperfleet.client.retry import RetryPolicy as RetryPolicy
from hyperfleet.client.sync import HttpClient as HttpClient
