import asyncio
import contextlib
import time

import grpc
import numpy as np
import pytest
import torch
import xxhash

from hyperfleet.head_codecs import CODECS
from hyperfleet.messages import FEATURE_BYTES, HeadReply
from hyperfleet.wire import generator_pb2 as wire
from hyperfleet.wire.generator_pb2_grpc import ParameterGeneratorStub
from serve_apps.access import BearerTokens, RateLimit
from serve_apps.batching import Chunk, GeneratedChunk, generate_batch
from serve_apps.served_models import CodecInfo, ModelInfo
from tests.worlds.grpc_service import (
    TOKEN,
    features,
    refused,
    serving,
    wanted,
)
from tests.worlds.small_bundles import MAX_FEATURES

Code = grpc.StatusCode


@contextlib.asynccontextmanager
async def stub(table, **settings):
    async with serving(table, **settings) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ParameterGeneratorStub(channel)


def offered(table):
    return [(served.info.name, codec) for served in table for codec in served.generator.codecs]


def test_heads_are_those_generated_and_the_reply_describes_them(table):
    async def run():
        async with stub(table) as generator:
            for name, codec in offered(table):
                served = table.named(name)
                call = generator.GenerateHeads(
                    wanted(3, task=served.info.task, model=name, codec=codec),
                    metadata=(("x-request-id", "a-1"),),
                )
                reply = await call
                generated = served.generator.generate(features(3))
                heads = HeadReply.from_bytes(
                    reply.heads, expected=generated.layout, num_heads=3, base=served.generator.base
                )
                error = torch.linalg.vector_norm(heads.heads.dense() - generated.full(), dim=1)
                assert (error <= CODECS[codec].error_bound(generated) + 1e-6).all(), (name, codec)
                assert (reply.model, reply.model_version) == (name, served.info.version)
                assert (reply.task, reply.codec) == (served.info.task, codec)
                assert reply.base_id == served.info.base_id
                assert reply.checksum == xxhash.xxh3_64_hexdigest(reply.heads)
                assert min(reply.generate_s, reply.encode_s) > 0
                assert reply.queue_s >= 0
                assert ("x-request-id", "a-1") in list(await call.trailing_metadata())

    assert {codec for _, codec in offered(table)} >= {"fp32", "fp16", "int8", "delta-int8", "rank2"}
    asyncio.run(run())


def test_without_names_it_is_the_first_model_in_fp32(table):
    async def run():
        async with stub(table) as generator:
            call = generator.GenerateHeads(wanted())
            reply = await call
            assert (reply.model, reply.codec) == ("qa", "fp32")
            assert len(dict(await call.trailing_metadata())["x-request-id"]) == 32
            assert (await generator.GenerateHeads(wanted(task="retrieval"))).model == "search"

    asyncio.run(run())


def test_models_are_listed_and_their_static_heads_served(table):
    async def run():
        async with stub(table) as generator:
            listed = (await generator.ListModels(wire.ListModelsRequest())).models
            base = await generator.GetBase(wire.GetBaseRequest(model="qa"))
            error = await refused(generator.GetBase(wire.GetBaseRequest(model="chess")))
            return listed, base, error

    listed, base, error = asyncio.run(run())
    assert [each.name for each in listed] == ["qa", "small", "search"]
    for sent, info in zip(listed, table.infos(), strict=True):
        assert {name: getattr(sent, name) for name in ModelInfo.model_fields if name != "codecs"} == (
            info.model_dump(exclude={"codecs"})
        )
        assert [(each.name, each.head_bytes, each.needs_base) for each in sent.codecs] == [
            (each.name, each.head_bytes, each.needs_base) for each in info.codecs
        ]
    assert list(ModelInfo.model_fields) == [field.name for field in wire.ModelInfo.DESCRIPTOR.fields]
    assert list(CodecInfo.model_fields) == [field.name for field in wire.CodecInfo.DESCRIPTOR.fields]
    served = table.named("qa")
    assert base.base == served.base_file()
    assert (base.base_id, base.model_version) == (served.info.base_id, served.info.version)
    assert base.checksum == xxhash.xxh3_64_hexdigest(base.base)
    assert (error.code(), "no model 'chess'" in error.details()) == (Code.NOT_FOUND, True)


NAN = np.full(192, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"task": "chess"}, Code.NOT_FOUND, "served are 'open-ended-qa', 'retrieval'"),
        ({"task": ""}, Code.NOT_FOUND, "no generator for task ''"),
        ({"task": "chess" * 700}, Code.NOT_FOUND, "no generator for task 'chess"),
        ({"task": "\u00fc" * 1500}, Code.NOT_FOUND, "no generator for task"),
        ({"model": "small", "task": "retrieval"}, Code.NOT_FOUND, "is for task 'open-ended-qa'"),
        ({"codec": "film"}, Code.FAILED_PRECONDITION, "fp32, fp16, bf16"),
        ({"codec": "int3"}, Code.FAILED_PRECONDITION, "not in codec 'int3'"),
        ({"features": b""}, Code.INVALID_ARGUMENT, "got 0 bytes"),
        ({"features": bytes(767)}, Code.INVALID_ARGUMENT, "got 767 bytes"),
        ({"features": NAN}, Code.INVALID_ARGUMENT, "got 192 NaN"),
        (
            {"features": bytes(FEATURE_BYTES * (MAX_FEATURES + 1))},
            Code.RESOURCE_EXHAUSTED,
            f"at most {MAX_FEATURES} features",
        ),
        ({"features": bytes(FEATURE_BYTES * 100)}, Code.RESOURCE_EXHAUSTED, "larger than max"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(table, caplog, fields, code, said):
    async def run():
        async with stub(table) as generator:
            error = await refused(generator.GenerateHeads(wanted(**fields)))
            await generator.GenerateHeads(wanted())
            return error

    error = asyncio.run(run())
    assert (error.code(), said in error.details()) == (code, True), error
    assert "retry-after-s" not in dict(error.trailing_metadata())
    assert not caplog.records


def test_strangers_are_refused_and_tokens_never_repeated(table, monkeypatch, caplog):
    monkeypatch.setenv("TOKENS", f"phone {TOKEN}")
    calls = [
        ("GenerateHeads", wanted()),
        ("ListModels", wire.ListModelsRequest()),
        ("GetBase", wire.GetBaseRequest(model="qa")),
    ]

    async def run():
        errors = []
        async with stub(table, tokens=BearerTokens.from_env("TOKENS")) as generator:
            for metadata in (None, (("authorization", f"Bearer {TOKEN}x"),), (("authorization", TOKEN),)):
                errors += [
                    await refused(getattr(generator, name)(ask, metadata=metadata)) for name, ask in calls
                ]
            for name, ask in calls:
                await getattr(generator, name)(ask, metadata=(("authorization", f"Bearer {TOKEN}"),))
        return errors

    for error in asyncio.run(run()):
        assert error.code() is Code.UNAUTHENTICATED
        assert "Bearer <token>" in error.details()
        assert TOKEN not in str(error)
    assert TOKEN not in caplog.text


def test_a_client_is_held_to_its_rate_and_gets_a_retry_after(table):
    async def run():
        async with stub(table, rate=RateLimit(2)) as generator:
            asked = [generator.GenerateHeads(wanted()) for _ in range(8)]
            done = await asyncio.gather(*asked, return_exceptions=True)
            never = await refused(generator.GenerateHeads(wanted(3)))
            return [each for each in done if isinstance(each, Exception)], never

    errors, never = asyncio.run(run())
    assert 1 <= len(errors) <= 6
    for error in errors:
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert 0 < float(dict(error.trailing_metadata())["retry-after-s"]) <= 2
        assert "x-request-id" in dict(error.trailing_metadata())
    assert (never.code(), "never" in never.details()) == (Code.INVALID_ARGUMENT, True)


class Gate:
    """Holds chunks back until it is opened, and counts cancelled and generated ones."""

    def __init__(self):
        self.opened, self.arrived = asyncio.Event(), asyncio.Event()
        self.num_cancelled = self.num_generated = 0

    async def batched(self, chunk: Chunk) -> GeneratedChunk:
        self.arrived.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        made = generate_batch([chunk])[0]
        self.num_generated += made.files is not None
        return made


def test_a_full_queue_refuses_and_a_caller_that_leaves_makes_room(table):
    async def run():
        gate = Gate()
        async with stub(table, batched=gate.batched, max_waiting_heads=2) as generator:
            first = generator.GenerateHeads(wanted(2))
            sent = asyncio.ensure_future(first)
            await gate.arrived.wait()
            error = await refused(generator.GenerateHeads(wanted(1)))
            assert (error.code(), "2 heads are waiting" in error.details()) == (Code.RESOURCE_EXHAUSTED, True)
            assert float(dict(error.trailing_metadata())["retry-after-s"]) > 0
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sent
            while not gate.num_cancelled:
                await asyncio.sleep(0.001)
            gate.opened.set()
            assert (await generator.GenerateHeads(wanted(2))).heads
            assert (gate.num_cancelled, gate.num_generated) == (1, 1)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_nothing_is_generated_after_the_callers_deadline(table):
    deadlines = []

    class Late(Gate):
        async def batched(self, chunk: Chunk) -> GeneratedChunk:
            deadlines.append((chunk.deadline_s, time.monotonic()))
            # As in Serve, the batch goes on without the caller.
            return await asyncio.shield(asyncio.ensure_future(super().batched(chunk)))

    async def run():
        gate = Late()
        async with stub(table, batched=gate.batched) as generator:
            error = await refused(generator.GenerateHeads(wanted(), timeout=0.5))
            assert error.code() is Code.DEADLINE_EXCEEDED
            # The deadline of the server includes the time on the way.
            while time.monotonic() <= deadlines[0][0]:
                await asyncio.sleep(0.001)
            gate.opened.set()
            await generator.GenerateHeads(wanted(), timeout=50)
            await generator.GenerateHeads(wanted())
            # The first one came too late, whether its batch began before or after the two others.
            assert gate.num_generated == 2

    asyncio.run(asyncio.wait_for(run(), 60))
    (first, first_now), (second, second_now), (third, _) = deadlines
    assert first - first_now <= 0.52
    assert 40 < second - second_now <= 51
    assert third is None


def test_a_deadline_that_the_service_notices_has_its_status(table):
    async def too_late(chunk: Chunk) -> GeneratedChunk:
        return GeneratedChunk(files=None)

    async def run():
        async with stub(table, batched=too_late) as generator:
            return await refused(generator.GenerateHeads(wanted()))

    error = asyncio.run(run())
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert "nothing was computed" in error.details()


def test_a_defect_is_internal_without_internals_and_logged_once(table, caplog):
    async def broken(chunk: Chunk) -> GeneratedChunk:
        raise RuntimeError("secret path /etc/x")

    async def run():
        async with stub(table, batched=broken) as generator:
            return await refused(generator.GenerateHeads(wanted(), metadata=(("x-request-id", "b-2"),)))

    error = asyncio.run(run())
    assert error.code() is Code.INTERNAL
    assert error.details() == "the generator failed; see the log of its replica"
    assert dict(error.trailing_metadata())["x-request-id"] == "b-2"
    assert [record.getMessage() for record in caplog.records] == ["request b-2 over gRPC failed"]
    assert "secret path" in caplog.text
