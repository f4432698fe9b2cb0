"""A real Serve application on a registered model, over real HTTP and gRPC."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import ray
import torch
from ray import serve

import serve_apps
from hyperfleet import bundle
from hyperfleet.client import AsyncGrpcClient
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.errors import ConfigError, ModelNotRegisteredError, ServiceError
from hyperfleet.messages import FEATURE_BYTES, HeadLayout, HeadReply, HeadRequest
from hyperfleet.nn import ENCODERS, HeadGeneratorConfig
from hyperfleet.tasks import OPEN_ENDED_QA
from hyperfleet.tracking.mlflow_store import prepare_store
from hyperfleet.tracking.mlflow_tracker import open_run
from hyperfleet.tracking.registry import register_bundle
from pipelines.runtime import connect, disconnect
from serve_apps.parameter_generator import GeneratorReplica, prepare
from serve_apps.ports import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LOCAL = "127.0.0.1"
LAYOUT = HeadLayout(num_classes=11)
MAX_FEATURES = 24
FOLLOW_S = 0.5
TOKEN = "integration-test-token"
GENERATE = f"/v1/generate/{OPEN_ENDED_QA}"
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    torch.manual_seed(0)
    config = bundle.BundleConfig(
        task=OPEN_ENDED_QA,
        method="cdc_mmpg",
        seed=0,
        num_classes=LAYOUT.num_classes,
        encoder=ENCODERS["tiny"](vocab_size=40),
        generator=HeadGeneratorConfig(offset_init=1.0),
    )
    empty = folder / "empty.json"
    empty.write_text("{}")
    model = bundle.build_model(config).requires_grad_(False)
    return bundle.save_bundle(folder / "bundle", config, model, tokenizer_file=empty, answers_file=empty)


@pytest.fixture(scope="module")
def tracking_uri(bundle_dir):
    uri = f"sqlite:///{bundle_dir.parent}/mlflow.db"
    run = open_run(prepare_store(uri), tracking_uri=uri)
    register_bundle(bundle_dir, run.run_id, tracking_uri=uri)
    return uri


@pytest.fixture(scope="module")
def grpc_port():
    return free_port(LOCAL, 0)


@pytest.fixture(scope="module")
def url(tracking_uri, grpc_port):
    connect(num_cpus=2)
    args = serve_apps.GeneratorArgs(
        tracking_uri=tracking_uri,
        max_features=MAX_FEATURES,
        follow_alias_s=FOLLOW_S,
        grpc_port=grpc_port,
    )
    yield serve_apps.start(args, port=0)
    serve_apps.stop()
    disconnect()


@pytest.fixture(scope="module")
def direct(bundle_dir):
    return ParameterGenerator.from_bundle(bundle_dir)


def features(num, seed=0):
    return np.random.default_rng(seed).standard_normal((num, 192), dtype=np.float32)


def ask(url, body=None, content_type=OCTETS):
    """Return status, headers and body; errors are answers too."""
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": content_type} if body is not None else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def assert_heads(direct, anchors, body):
    reply = HeadReply.from_bytes(body, expected=LAYOUT, num_heads=len(anchors))
    # A head computed in a batch differs from one computed alone in the last bits.
    torch.testing.assert_close(reply.heads.dense(), direct.generate(anchors).full(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("num", [1, 3, MAX_FEATURES])
def test_heads_over_http_are_the_generators_heads(url, direct, num):
    anchors = features(num)
    status, headers, body = ask(url + GENERATE, HeadRequest(features=anchors).to_bytes())
    assert (status, headers["Content-Type"], headers["X-Model-Version"]) == (
        200,
        "application/x-safetensors; codec=fp32",
        "1",
    )
    assert_heads(direct, anchors, body)
    entries = dict(entry.split(";dur=") for entry in headers["Server-Timing"].split(", "))
    assert list(entries) == ["queue", "generate", "encode"]
    assert all(float(milliseconds) > 0 for milliseconds in entries.values())
    # Sent by Serve; the application adds none.
    assert len(headers.get_all("X-Request-ID")) == 1


def test_prometheus_sees_heads_bytes_batches_and_refusals(url):
    ask(url + GENERATE, HeadRequest(features=features(3)).to_bytes())
    ask(url + GENERATE, b"short")
    (node,) = ray.nodes()
    exporter = f"http://{LOCAL}:{node['MetricsExportPort']}/metrics"
    wanted = {
        "ray_hyperfleet_heads_total",
        "ray_hyperfleet_reply_bytes_total",
        "ray_hyperfleet_batch_heads_bucket_total",
        "ray_hyperfleet_latency_s_sum_total",
        "ray_hyperfleet_refusals_total",
    }
    seen = ""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and not all(name in seen for name in wanted):
        seen = ask(exporter)[2].decode()
        time.sleep(0.5)
    lines = [line for line in seen.splitlines() if line.startswith("ray_hyperfleet_")]
    assert wanted <= {line.partition("{")[0] for line in lines}
    (refusals,) = (line for line in lines if line.startswith("ray_hyperfleet_refusals_total"))
    assert 'reason="FeatureError"' in refusals
    assert 'deployment="ParameterGenerator"' in refusals


def test_concurrent_requests_get_their_own_heads(url, direct):
    anchors = [features(1 + seed % 3, seed) for seed in range(60)]

    async def ask_all():
        async with aiohttp.ClientSession(headers={"Content-Type": OCTETS}) as session:

            async def one(features):
                async with session.post(url + GENERATE, data=features.tobytes()) as reply:
                    return await reply.read()

            return await asyncio.gather(*map(one, anchors))

    for own, body in zip(anchors, asyncio.run(ask_all()), strict=True):
        assert_heads(direct, own, body)


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status", "said"),
    [
        ("/v1/generate/chess", bytes(768), OCTETS, 404, f"served are '{OPEN_ENDED_QA}'"),
        ("/nothing", None, OCTETS, 404, "Not Found"),
        (GENERATE, None, OCTETS, 405, "Method Not Allowed"),
        (
            GENERATE,
            bytes(FEATURE_BYTES * (MAX_FEATURES + 1)),
            OCTETS,
            413,
            f"at most {MAX_FEATURES} features",
        ),
        (GENERATE, b"{}", "application/json", 415, "got 'application/json'"),
        (GENERATE, b"", OCTETS, 422, "got 0 bytes"),
        (GENERATE, bytes(767), OCTETS, 422, "got 767 bytes"),
        (GENERATE, np.full(192, np.nan, np.float32).tobytes(), OCTETS, 422, "got 192 NaN"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(url, path, body, content_type, status, said):
    got, headers, answer = ask(url + path, body, content_type)
    problem = json.loads(answer)
    assert (got, headers["Content-Type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["instance"]) == (status, path)
    assert said in problem["detail"]


def test_a_body_without_a_length_is_limited_too(url):
    async def send(num):
        async def chunks():
            for _ in range(num):
                yield bytes(FEATURE_BYTES)

        headers = {"Content-Type": OCTETS}
        async with aiohttp.request("POST", url + GENERATE, data=chunks(), headers=headers) as reply:
            return reply.status

    assert asyncio.run(send(MAX_FEATURES)) == 200
    assert asyncio.run(send(MAX_FEATURES + 1)) == 413


def test_the_service_describes_itself(url, tracking_uri, bundle_dir):
    assert json.loads(ask(url + "/healthz")[2]) == {"status": "ok"}
    (model,) = json.loads(ask(url + "/v1/models")[2])["models"]
    expected = {"version": "1", "task": OPEN_ENDED_QA, "num_classes": 11, "head_bytes": LAYOUT.num_bytes}
    assert expected.items() <= model.items()
    operation = json.loads(ask(url + "/openapi.json")[2])["paths"]["/v1/generate/{task}"]["post"]
    assert list(operation["requestBody"]["content"]) == [OCTETS]
    assert list(operation["responses"]["200"]["content"]) == ["application/x-safetensors"]
    assert {"404", "413", "415", "422"} < operation["responses"].keys()
    assert ask(url + "/docs")[0] == 200


def test_a_new_champion_takes_over_under_load_and_no_request_is_lost(url, tracking_uri, bundle_dir):
    stop = asyncio.Event()
    versions: list[str] = []
    statuses: set[int] = set()

    async def device(session, seed):
        body = features(1, seed).tobytes()
        while not stop.is_set():
            async with session.post(url + GENERATE, data=body) as reply:
                content = await reply.read()
                statuses.add(reply.status)
                # Header and file name the same version: a head is never labelled with the other one.
                made = HeadReply.from_bytes(content, expected=LAYOUT, num_heads=1).label.version
                assert made == reply.headers["X-Model-Version"]
                versions.append(made)

    async def run():
        async with aiohttp.ClientSession(headers={"Content-Type": OCTETS}) as session:
            devices = [asyncio.create_task(device(session, seed)) for seed in range(8)]
            await asyncio.sleep(1)
            another = open_run(prepare_store(tracking_uri), tracking_uri=tracking_uri)
            await asyncio.to_thread(register_bundle, bundle_dir, another.run_id, tracking_uri=tracking_uri)
            async with asyncio.timeout(60):
                while versions[-1] != "2":
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*devices)

    asyncio.run(run())
    assert statuses == {200}
    change = versions.index("2")
    # Requests that were running at the change may finish after it, none later.
    assert set(versions[:change]) == {"1"}
    assert set(versions[change + 8 :]) == {"2"}


def test_devices_of_the_cluster_get_a_shard_as_one_array(url, direct):
    handle = serve.get_app_handle("generator")
    anchors = features(100)

    async def ask():
        return await handle.options(_by_reference=True).generate_shard.remote(anchors, OPEN_ENDED_QA)

    numbers = asyncio.run(ask())
    assert numbers.shape == (100, LAYOUT.num_params)
    np.testing.assert_allclose(numbers, direct.generate(anchors).full().numpy(), rtol=0, atol=1e-5)


def test_the_replica_answers_over_grpc_as_over_http(url, direct, grpc_port):
    async def ask():
        address = f"http://{LOCAL}:{grpc_port}"
        async with AsyncGrpcClient(url=address, layout=LAYOUT, codec="delta-int8", base=direct.base) as asked:
            return await asyncio.gather(
                *(asked.request(HeadRequest(features=features(2, seed))) for seed in range(20))
            )

    for seed, received in enumerate(asyncio.run(ask())):
        expected = direct.generate(features(2, seed)).full()
        torch.testing.assert_close(received.reply.heads.dense(), expected, rtol=0, atol=0.02)
        assert received.generate_s > 0


def test_a_passed_deadline_is_reported_by_the_application(url):
    request = urllib.request.Request(
        url + GENERATE,
        data=features(1).tobytes(),
        headers={"Content-Type": OCTETS, "X-Deadline-Seconds": "0.000001"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 504
    assert "nothing was computed" in json.loads(refused.value.read())["detail"]


def test_tokens_that_a_replica_cannot_see_do_not_open_the_service(bundle_dir, tracking_uri, monkeypatch):
    monkeypatch.setenv("HYPERFLEET_TOKENS", f"phone {TOKEN}")
    args = prepare(serve_apps.GeneratorArgs(model=str(bundle_dir), tracking_uri=tracking_uri))
    assert args.tokens_required
    assert TOKEN not in args.model_dump_json()
    monkeypatch.delenv("HYPERFLEET_TOKENS")
    with pytest.raises(ServiceError, match="this replica's process has no HYPERFLEET_TOKENS"):
        GeneratorReplica(args)
    monkeypatch.setenv("HYPERFLEET_TOKENS", "")
    with pytest.raises(ConfigError, match="HYPERFLEET_TOKENS"):
        prepare(serve_apps.GeneratorArgs(model=str(bundle_dir), tracking_uri=tracking_uri))


def test_without_tokens_only_this_machine_is_served(url, bundle_dir, tracking_uri):
    args = serve_apps.GeneratorArgs(
        model=str(bundle_dir), tracking_uri=tracking_uri, grpc_port=1, grpc_host="0.0.0.0"
    )
    with pytest.raises(ServiceError, match=r"gRPC listens on 0\.0\.0\.0 where anyone can ask"):
        GeneratorReplica(prepare(args))


def test_a_second_service_and_a_port_in_use_are_refused(url, tmp_path):
    with pytest.raises(ServiceError, match=r"running on this cluster already"):
        serve_apps.start(port=0)
    with pytest.raises(ServiceError, match="cannot listen on"):
        serve_apps.ports.free_port("127.0.0.1", int(url.rsplit(":", 1)[1]))
    with pytest.raises(ModelNotRegisteredError):
        serve_apps.generator(serve_apps.GeneratorArgs(model=str(tmp_path / "none")))


def test_serve_run_ends_with_one_clear_line(tmp_path, bundle_dir):
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
    }
    # As in serve_apps/tuned.env; Serve then listens on every interface.
    fast_path = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}

    def serve_run(told, argument):
        command = [Path(sys.executable).with_name("serve"), "run", "serve_apps:generator", *argument]
        done = subprocess.run(
            command, cwd=tmp_path, env={**environment, **told}, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stderr + done.stdout
        return done.returncode, done.stderr + done.stdout

    runs = [({}, ()), ({}, ("max_batchsize=3",)), (fast_path, (f"model={bundle_dir}",))]
    with ThreadPoolExecutor() as pool:
        no_model, misspelt, no_tokens = pool.map(lambda each: serve_run(*each), runs)
    assert no_model[0] == misspelt[0] == no_tokens[0] == 1
    assert "ModelNotRegisteredError: no generator models:/hyperfleet-generator@champion" in no_model[1]
    assert "train one with `hyperfleet train`" in no_model[1]
    assert (
        "max_batchsize: Extra inputs are not permitted; the arguments of this application are model"
        in misspelt[1]
    )
    assert "ServiceError: HTTP listens on 0.0.0.0 where anyone can ask for heads" in no_tokens[1]
