import asyncio
import socket

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hyperfleet.errors import ConfigError, ServiceError
from hyperfleet.messages import FEATURE_BYTES, HeadLayout
from hyperfleet.wire import generator_pb2 as wire
from hyperfleet.wire.generator_pb2_grpc import ParameterGeneratorStub
from serve_apps.access import BearerTokens
from serve_apps.grpc_api import SERVICE, GrpcOptions, start_grpc
from serve_apps.head_service import HeadService
from tests.worlds.grpc_service import (
    TOKEN,
    alone,
    refused,
    self_signed,
    serving,
    wanted,
)

LAYOUT = HeadLayout(num_classes=11)
Code = grpc.StatusCode


def test_garbage_leaves_the_server_answering(table, caplog):
    rng = np.random.default_rng(0)

    def garbage(num_bytes):
        return rng.integers(0, 256, num_bytes, dtype=np.uint8).tobytes()

    async def run():
        async with serving(table) as port:
            for content in (
                garbage(4000),
                b"GET / HTTP/1.1\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + garbage(99),
            ):
                with socket.create_connection(("127.0.0.1", port)) as wire_end:
                    wire_end.sendall(content)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                for name in ("GenerateHeads", "ListModels", "GetBase"):
                    raw = channel.unary_unary(f"/{SERVICE}/{name}")
                    for _ in range(20):
                        error = await refused(raw(b"\x0a\xff" + garbage(rng.integers(2000))))
                        assert error.code() is Code.INVALID_ARGUMENT, error
                        assert f"not a hyperfleet.v1.{name}Request" in error.details()
                generator = ParameterGeneratorStub(channel)
                for num in (FEATURE_BYTES, FEATURE_BYTES - 1, 3):
                    answer = await asyncio.gather(
                        generator.GenerateHeads(wanted(features=garbage(num))), return_exceptions=True
                    )
                    assert getattr(answer[0], "code", lambda: None)() in (None, Code.INVALID_ARGUMENT)
                assert (
                    await refused(channel.unary_unary(f"/{SERVICE}/Play")(b""))
                ).code() is Code.UNIMPLEMENTED
                assert (await generator.GenerateHeads(wanted())).model == "qa"

    asyncio.run(run())
    assert not caplog.records


def test_health_and_reflection_answer_strangers(table, monkeypatch):
    monkeypatch.setenv("TOKENS", f"phone {TOKEN}")

    async def run():
        service = HeadService(
            table, alone, max_features=1, max_waiting_heads=1, tokens=BearerTokens.from_env("TOKENS")
        )
        running = await start_grpc(service, GrpcOptions())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE):
                status = (await health.Check(health_pb2.HealthCheckRequest(service=name))).status
                assert status == health_pb2.HealthCheckResponse.SERVING
            ask = reflection_pb2.ServerReflectionRequest
            asked = [ask(list_services=""), ask(file_containing_symbol=SERVICE)]
            answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(asked))
            listed, described = [answer async for answer in answers]
            assert SERVICE in [each.name for each in listed.list_services_response.service]
            assert described.file_descriptor_response.file_descriptor_proto == [wire.DESCRIPTOR.serialized_pb]
            watching = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
            await asyncio.gather(running.stop(0.2), watching.read())
            error = await refused(health.Check(health_pb2.HealthCheckRequest()))
            assert error.code() is Code.UNAVAILABLE

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"))


def test_heads_travel_over_tls(table, certificate):
    options = GrpcOptions(host="localhost", tls_certificate=certificate[0], tls_key=certificate[1])

    async def run():
        async with serving(table, options=options) as port:
            credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                assert (await ParameterGeneratorStub(channel).GenerateHeads(wanted())).heads
            async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
                error = await refused(ParameterGeneratorStub(channel).GenerateHeads(wanted(), timeout=20))
                assert error.code() is Code.UNAVAILABLE

    asyncio.run(asyncio.wait_for(run(), 60))


def test_options_that_cannot_work_are_refused_at_once(certificate, tmp_path):
    cert, key = certificate
    (tmp_path / "torn.pem").write_text(cert.read_text()[:300])
    for fields, said in (
        ({"tls_certificate": cert}, "give both or none"),
        ({"tls_key": key}, "give both or none"),
        ({"tls_certificate": tmp_path / "none.pem", "tls_key": key}, "No such file"),
        ({"tls_certificate": key, "tls_key": cert}, "cannot be used"),
        ({"tls_certificate": tmp_path / "torn.pem", "tls_key": key}, "cannot be used"),
        ({"port": 65536}, "0 to 65535"),
    ):
        with pytest.raises(ConfigError, match=said):
            GrpcOptions(**fields)


def test_replicas_share_a_port_that_is_named_and_no_other_server_does(table):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def run():
        async with serving(table, options=GrpcOptions(port=port)) as one:
            async with serving(table, options=GrpcOptions(port=port)) as two:
                assert one == two == port
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert (await ParameterGeneratorStub(channel).GenerateHeads(wanted())).heads
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
            with pytest.raises(ServiceError, match=f"cannot listen for gRPC on 127.0.0.1:{port}"):
                async with serving(table, options=GrpcOptions(port=port)):
                    pass

    asyncio.run(run())


def test_a_call_without_a_message_is_answered_at_once(table):
    async def run():
        async with serving(table) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_unary("/hyperfleet.v1.ParameterGenerator/GenerateHeads")
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call(iter(()), timeout=20)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "without a message" in refusal.value.details()

    asyncio.run(run())
