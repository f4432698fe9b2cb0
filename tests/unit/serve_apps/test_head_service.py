import asyncio

import numpy as np
import torch

from hyperfleet.head_codecs import CODECS
from hyperfleet.messages import HeadLayout, HeadReply
from serve_apps.batching import Batcher, Chunk, generate_batch
from serve_apps.head_service import HeadService
from tests.worlds.small_bundles import MAX_FEATURES

LAYOUT = HeadLayout(num_classes=11)


def features(num=1, seed=0):
    return np.random.default_rng(seed).standard_normal((num, 192), dtype=np.float32)


def test_a_batch_of_several_models_and_codecs_gives_each_its_own(table):
    asked = [
        ("qa", "fp32", 2),
        ("small", "int8", 1),
        ("qa", "fp16", 3),
        ("search", "fp32", 2),
        ("qa", "fp32", 1),
    ]
    chunks = [
        Chunk(served=table.named(name), features=features(num, seed=i), codec=codec, deadline_s=None)
        for i, (name, codec, num) in enumerate(asked)
    ]
    done = generate_batch(chunks)
    for chunk, made in zip(chunks, done, strict=True):
        generator = chunk.served.generator
        reply = HeadReply.from_bytes(
            made.files.of(made.start, made.start + len(chunk.features)),
            expected=generator.layout,
            num_heads=len(chunk.features),
            base=generator.base,
        )
        assert (reply.codec, reply.label.model) == (chunk.codec, chunk.served.info.name)
        generated = generator.generate(chunk.features)
        error = torch.linalg.vector_norm(reply.heads.dense() - generated.full(), dim=1)
        assert (error <= CODECS[chunk.codec].error_bound(generated) + 1e-5).all()
    assert [made.batch_heads for made in done] == [6, 1, 6, 2, 6]


def test_requests_that_meet_in_a_batch_get_their_own_heads(table):
    asked = [("fp32", 1), ("fp16", 2), ("fp32", 3), ("fp16", 1), ("fp32", 2)]
    generator = table.named("qa").generator

    async def run():
        batches = []

        def generate(chunks):
            batches.append(len(chunks))
            return generate_batch(chunks)

        batcher = Batcher(generate, max_heads=32, pause_s=0.01)
        service = HeadService(table, batcher, max_features=MAX_FEATURES, max_waiting_heads=64)
        replies = await asyncio.gather(
            *(
                service.generate(
                    table.named("qa"),
                    features(num, seed=i).tobytes(),
                    codec=codec,
                    client="a",
                    deadline_s=None,
                )
                for i, (codec, num) in enumerate(asked)
            )
        )
        return batches, replies

    batches, replies = asyncio.run(run())
    assert batches == [5]
    for i, ((codec, num), reply) in enumerate(zip(asked, replies, strict=True)):
        heads = HeadReply.from_bytes(reply.body, expected=LAYOUT, num_heads=num, base=generator.base)
        expected = generator.generate(features(num, seed=i)).full()
        torch.testing.assert_close(
            heads.heads.dense(), expected, rtol=1e-3 if codec == "fp16" else 0, atol=1e-5
        )


def test_a_codec_that_fails_fails_its_own_requests(table, monkeypatch):
    def broken(self, generated):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(CODECS["int8"]), "encode", broken)
    chunks = [
        Chunk(served=table.named("qa"), features=features(), codec=codec, deadline_s=None)
        for codec in ("fp32", "int8", "fp16")
    ]
    first, failed, last = generate_batch(chunks)
    assert str(failed.error) == "out of memory"
    assert first.files is not None
    assert last.files is not None
