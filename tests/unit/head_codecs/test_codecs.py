import json
from functools import partial

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.cloud.generator import codecs_of
from hyperfleet.errors import ConfigError, HeadLayoutError, UnknownNameError
from hyperfleet.head_codecs import CODECS, BaseHead, GeneratedHeads, HeadLayout, best_answer, codec
from hyperfleet.head_codecs.frame import RowFiles, pack, unpack
from hyperfleet.messages import HeadReply, ModelLabel, encode_heads
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig

PAPER = HeadLayout(num_classes=1501)
SMALL = HeadLayout(num_classes=7)
LABEL = ModelLabel(model="generator", version="3", task="vqa")


def module_of(form: str, layout: HeadLayout, *, seed: int, scale: float, rank: int) -> HeadGenerator:
    """A hypernetwork whose last layer and static head are noise."""
    torch.manual_seed(seed)
    config = HeadGeneratorConfig(adr=None, projector_hidden=None, form=form, rank=rank)
    module = HeadGenerator(config, layout).requires_grad_(False)
    for parameter in module.emitter.parameters():
        parameter.normal_(std=scale * 192**-0.5)
    module.base.normal_(std=scale)
    return module


def make(
    form: str, layout: HeadLayout = SMALL, *, n: int = 3, seed: int = 0, scale: float = 1.0, rank: int = 2
):
    """Heads of a real hypernetwork whose emitter was filled with noise."""
    module = module_of(form, layout, seed=seed, scale=scale, rank=rank)
    with torch.no_grad():
        numbers = module.generate(torch.randn(n, 192))
        full = module.form.materialise(numbers, module.base)
    base = BaseHead(layout=layout, flat=module.base)
    numbers = full if form == "full" else numbers
    return GeneratedHeads(layout=layout, form=form, numbers=numbers, base=base, full=lambda: full)


def through_the_wire(generated: GeneratedHeads, name: str) -> HeadReply:
    body = encode_heads(generated, codec=name, label=LABEL)
    return HeadReply.from_bytes(
        body, expected=generated.layout, num_heads=len(generated), base=generated.base
    )


WIDE = HeadLayout(num_classes=20)
CARRIED = [
    (form, name)
    for form in ("full", "low_rank", "film")
    for name in codecs_of(form, WIDE, has_base=True)  # all there are, but film for film heads alone
]


@pytest.mark.parametrize(("form", "name"), CARRIED)
@given(seed=st.integers(0, 2**16), exponent=st.integers(-12, 16))
@settings(max_examples=15, deadline=None)
def test_no_codec_errs_more_than_its_bound(form: str, name: str, seed: int, exponent: int) -> None:
    generated = make(form, WIDE, seed=seed, scale=2.0**exponent)
    decoded = through_the_wire(generated, name).heads.dense()
    error = torch.linalg.vector_norm(decoded.double() - generated.full().double(), dim=1)
    # Beyond the range of float16 both are infinite or none is a number.
    assert not (error > CODECS[name].error_bound(generated).double() + 1e-30).any()


def test_every_codec_is_held_to_its_bound() -> None:
    assert {name for _, name in CARRIED} == CODECS.keys()


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8", "delta-fp16", "delta-int8", "rank1", "rank4"])
def test_a_bound_is_not_far_above_the_error(name: str) -> None:
    generated = make("full", HeadLayout(num_classes=200), n=8)
    decoded = through_the_wire(generated, name).heads.dense()
    error = torch.linalg.vector_norm(decoded - generated.full(), dim=1)
    assert (CODECS[name].error_bound(generated) < 5 * error).all()


def test_fp32_is_bit_exact_and_a_view_of_the_reply() -> None:
    generated = make("full")
    body = encode_heads(generated, codec="fp32", label=LABEL)
    heads = HeadReply.from_bytes(body, expected=SMALL, num_heads=3).heads
    assert torch.equal(heads.dense(), generated.full())
    start = np.frombuffer(body, np.uint8).ctypes.data
    assert start <= heads.dense().data_ptr() < start + len(body)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("form", ["full", "low_rank", "film"])
def test_a_head_is_applied_as_it_arrived_like_the_full_one(name: str, form: str) -> None:
    generated = make(form, HeadLayout(num_classes=40), n=5)
    if name not in codecs_of(form, generated.layout, has_base=True):
        pytest.skip("this codec does not carry these heads")
    heads = through_the_wire(generated, name).heads
    hidden = np.random.default_rng(0).normal(size=(5, 96)).astype(np.float32)
    for i, flat in enumerate(heads.dense()):
        layer = torch.nn.Linear(96, 40)
        with torch.no_grad():
            layer.weight.copy_(flat[: 40 * 96].view(40, 96))
            layer.bias.copy_(flat[40 * 96 :])
            expected = layer(torch.from_numpy(hidden[i])).numpy()
        np.testing.assert_allclose(heads.scores(hidden)[i], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("form", "name"), [("full", "fp32"), ("low_rank", "rank2"), ("film", "film")])
def test_devices_apply_heads_as_training_does(form: str, name: str) -> None:
    module = module_of(form, WIDE, seed=3, scale=1.0, rank=2)
    features, hidden = torch.randn(4, 192), torch.randn(4, 96)
    flat = module.base
    static = partial(torch.nn.functional.linear, weight=flat[: 20 * 96].view(20, 96), bias=flat[20 * 96 :])
    numbers = module.generate(features)
    trained = module.form.outputs(numbers, hidden[:, None], static)[:, 0]
    full = module.form.materialise(numbers, flat)
    generated = GeneratedHeads(
        layout=WIDE,
        form=form,
        numbers=full if form == "full" else numbers,
        base=BaseHead(layout=WIDE, flat=flat),
        full=lambda: full,
    )
    received = through_the_wire(generated, name).heads.scores(hidden.numpy())
    # Factors travel in float16.
    atol = 0.05 if form == "low_rank" else 1e-4
    np.testing.assert_allclose(received, trained.numpy(), rtol=1e-4, atol=atol)


def test_the_best_answer_is_the_static_one_where_a_score_is_not_finite() -> None:
    heads = through_the_wire(make("full", WIDE, n=2), "fp32").heads
    hidden = np.random.default_rng(0).normal(size=(4, 96)).astype(np.float32)
    hidden[2] = np.inf
    which, static_answer = np.array([0, 0, 0, 1]), np.array([5, 6, 77, 8])
    answer, score = best_answer(heads, hidden, static_answer, which)
    expected = [heads.scores(hidden[[row, row]])[head] for row, head in ((0, 0), (1, 0), (3, 1))]
    assert answer[2] == 77
    assert np.isnan(score).tolist() == [False, False, True, False]
    assert answer[[0, 1, 3]].tolist() == [each.argmax() for each in expected]
    np.testing.assert_allclose(score[[0, 1, 3]], [each.max() for each in expected], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [
        ("fp32", 582_388),  # 568.7 KiB: the papers' head
        ("fp16", 291_194),
        ("bf16", 291_194),
        ("delta-fp16", 291_194),
        ("int8", 156_104),
        ("delta-int8", 156_104),
        ("rank1", 6_196),
        ("rank4", 15_778),
        ("rank8", 28_554),
        ("film", 768),
    ],
)
def test_bytes_of_the_papers_head_are_as_computed(name: str, num_bytes: int) -> None:
    assert codec(name).num_bytes(PAPER) == num_bytes
    generated = make("film" if name == "film" else "full", PAPER, n=2)
    body = encode_heads(generated, codec=name, label=LABEL)
    header = 8 + int.from_bytes(body[:8], "little")
    assert len(body) == header + 2 * num_bytes
    assert header < 640


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_factors_are_the_nearest_matrix_of_their_rank(rank: int) -> None:
    generated = make("full", HeadLayout(num_classes=120), n=4)
    sent = codec(f"rank{rank}").encode(generated)
    offsets = generated.offsets()[:, : 120 * 96].view(4, 120, 96)
    u, s, v = torch.linalg.svd(offsets, full_matrices=False)
    best = u[:, :, :rank] * s[:, None, :rank] @ v[:, :rank]
    torch.testing.assert_close(sent["up"].float() @ sent["down"].float(), best, rtol=0, atol=4e-3)


def test_factors_that_were_generated_travel_as_they_are() -> None:
    generated = make("low_rank", rank=2)
    sent = codec("rank4").encode(generated)
    torch.testing.assert_close(
        sent["up"][:, :, :2].flatten(1), generated.numbers[:, :14].half(), rtol=0, atol=0
    )
    assert not sent["up"][:, :, 2:].any()
    cut = codec("rank1").encode(generated)
    assert cut["up"].shape == (3, 7, 1)


def test_rows_of_zeros_and_of_tiny_numbers_survive_8_bits() -> None:
    generated = make("full")
    generated.full()[0, :96] = 0
    generated.full()[1, :96] = 1e-42
    heads = through_the_wire(generated, "int8").heads
    assert not heads.dense()[0, :96].any()
    assert heads.dense().isfinite().all()


def test_a_head_without_a_static_one_cannot_be_sent_as_a_difference() -> None:
    generated = make("full")
    bare = GeneratedHeads(
        layout=SMALL, form="full", numbers=generated.numbers, base=None, full=generated.full
    )
    assert codecs_of("full", SMALL, has_base=False) == ("fp32", "fp16", "bf16", "int8")
    with pytest.raises(HeadLayoutError, match="without a static one"):
        encode_heads(bare, codec="delta-int8", label=LABEL)
    with pytest.raises(HeadLayoutError, match="pass the device's own as `base`"):
        HeadReply.from_bytes(encode_heads(generated, codec="rank1", label=LABEL), expected=SMALL, num_heads=3)


def test_an_offset_to_another_static_head_is_refused() -> None:
    generated = make("full", seed=0)
    other = make("full", seed=1).base
    body = encode_heads(generated, codec="delta-int8", label=LABEL)
    with pytest.raises(HeadLayoutError, match=f"static head '{generated.base.id}', this one's is"):
        HeadReply.from_bytes(body, expected=SMALL, num_heads=3, base=other)


def test_a_static_head_is_named_by_its_values() -> None:
    flat = torch.randn(SMALL.num_params)
    assert BaseHead(layout=SMALL, flat=flat).id == BaseHead(layout=SMALL, flat=flat.clone()).id
    assert BaseHead(layout=SMALL, flat=flat).id != BaseHead(layout=SMALL, flat=flat + 1).id
    with pytest.raises(HeadLayoutError, match="679 parameters, got shape"):
        BaseHead(layout=SMALL, flat=flat[1:])


def test_unknown_codecs_and_ranks_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown head codec 'fp8'; expected one of: bf16"):
        codec("fp8")
    with pytest.raises(ConfigError, match="at most rank 7, got codec 'rank8'"):
        codec("rank8").encode(make("full"))
    assert "rank8" not in codecs_of("full", SMALL, has_base=True)
    with pytest.raises(HeadLayoutError, match="this model generates full heads"):
        codec("film").encode(make("full"))


def test_replies_of_another_shape_or_number_are_refused() -> None:
    body = encode_heads(make("full"), codec="int8", label=LABEL)
    with pytest.raises(HeadLayoutError, match="a model other than the device's"):
        HeadReply.from_bytes(body, expected=PAPER, num_heads=3)
    with pytest.raises(HeadLayoutError, match="requested 2 heads, got 3"):
        HeadReply.from_bytes(body, expected=SMALL, num_heads=2)
    newer = pack({"head": torch.zeros(1, 7)}, {"codec": "int2"})
    with pytest.raises(HeadLayoutError, match="in codec 'int2', this version knows fp32"):
        HeadReply.from_bytes(newer, expected=SMALL, num_heads=1)


TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.arange(4, dtype=torch.float16),
    "c": torch.tensor([[-128, 127]], dtype=torch.int8),
    "d": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}


def test_the_library_reads_what_we_pack_and_we_read_what_it_writes(tmp_path) -> None:
    # The library sorts tensors by size of type; its file stands for any other writer's.
    (tmp_path / "ours").write_bytes(pack(TENSORS, {"codec": "x"}))
    with safetensors.safe_open(tmp_path / "ours", framework="pt") as file:
        assert file.metadata() == {"codec": "x"}
    theirs = safetensors.torch.save(TENSORS, metadata={"codec": "x"})
    for body in (pack(TENSORS, {"codec": "x"}), theirs):
        read, metadata = unpack(body)
        assert metadata == {"codec": "x"}
        assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    loaded = safetensors.torch.load(pack(TENSORS, {"codec": "x"}))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())


def test_the_library_reads_some_rows_of_what_was_encoded_together() -> None:
    tensors = {"up": torch.randn(4, 3, 2), "bias": torch.randn(4, 3).bfloat16()}
    loaded = safetensors.torch.load(RowFiles(tensors, {"codec": "x"}).of(1, 3))
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        name: tensor[1:3].tolist() for name, tensor in tensors.items()
    }


@pytest.mark.heavy
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_reply_is_a_clear_error_and_nothing_else(data: st.DataObject) -> None:
    body = bytearray(encode_heads(make("full", n=1), codec="int8", label=LABEL))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, 500))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    for damaged in (bytes(body), cut):
        try:
            HeadReply.from_bytes(damaged, expected=SMALL, num_heads=1)
        except HeadLayoutError:
            continue
        # What is accepted has the right shape: the damage was to numbers, which a checksum is for.
        assert len(damaged) == len(body)


def _hostile(shape: list[object]) -> bytes:
    spec = {"head": {"dtype": "F32", "shape": shape, "data_offsets": [0, 2716]}}
    header = json.dumps(spec).encode()
    return len(header).to_bytes(8, "little") + header + bytes(2716)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "announces a header of 0 bytes"),
        (_hostile([-1, -679]), "sizes are integers above 0"),
        (_hostile([1e999, 1]), "sizes are integers above 0"),
        (_hostile([True, 679]), "sizes are integers above 0"),
        (b"\xff" * 64, "announces a header of 18446744073709551615 bytes"),
        ((2).to_bytes(8, "little") + b"[]", "its header is damaged"),
        ((2).to_bytes(8, "little") + b"{]", "its header is damaged"),
        ((2).to_bytes(8, "little") + b"{}junk", "4 bytes after its last tensor"),
    ],
)
def test_what_is_no_safetensors_file_is_named(body: bytes, message: str) -> None:
    with pytest.raises(HeadLayoutError, match=message):
        unpack(body)


def test_a_type_that_heads_do_not_travel_in_is_named() -> None:
    body = safetensors.numpy.save({"head": np.zeros((1, 4), np.float64)})
    with pytest.raises(HeadLayoutError, match="of type 'F64'; heads are sent as F32"):
        unpack(body)
