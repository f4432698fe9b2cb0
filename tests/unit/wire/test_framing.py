import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from hyperfleet.wire.framing import read_heads, write_heads
from hyperfleet.wire.generator_pb2 import GenerateHeadsResponse

NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
SECONDS = st.floats(allow_nan=False)
# Around the sizes at which the length needs another byte.
HEADS = (
    st.binary(max_size=300) | st.integers(0, 70_000).map(bytes) | st.sampled_from([16383, 16384]).map(bytes)
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("model", "model_version", "task", "codec", "base_id", "checksum"), NAMES),
        **dict.fromkeys(("queue_s", "generate_s", "encode_s"), SECONDS),
    },
)


@given(heads=HEADS, fields=FIELDS)
@example(heads=bytes(127), fields={})
@example(heads=bytes(128), fields={})
@example(heads=bytes(3 << 20), fields={"codec": "fp32"})
def test_the_written_bytes_are_those_of_protobuf(heads, fields):
    rest = GenerateHeadsResponse(**fields)
    whole = GenerateHeadsResponse(heads=heads, **fields)
    written = write_heads(heads, rest)
    assert written == whole.SerializeToString(deterministic=True)
    read, others = read_heads(written)
    assert (read, others.SerializeToString()) == (heads, rest.SerializeToString() if heads else written)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"\x0a" + tail))
@example(b"\x0a")
@example(b"\x0a\x80")
@example(b"\x0a\x05abc")
@example(b"\x0a" + b"\xff" * 20)
@example(b"\x12\x01m\x0a\x02ab")
@example(b"\x0a\x02ab\x0a\x02cd")
def test_any_bytes_are_read_as_by_protobuf(message):
    try:
        whole = GenerateHeadsResponse.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_heads(message)
        return
    heads, fields = read_heads(message)
    # A second, empty `heads`, which nobody writes, would win with protobuf.
    assert heads == whole.heads or not whole.heads
    whole.ClearField("heads")
    fields.ClearField("heads")
    assert fields.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
