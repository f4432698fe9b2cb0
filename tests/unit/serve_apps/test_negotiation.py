import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.errors import NotAcceptableError
from serve_apps.http_api import negotiate

OFFERED = ("fp32", "fp16", "int8", "rank4")


@given(st.text(max_size=200))
def test_no_header_breaks_it(accept: str) -> None:
    try:
        assert negotiate(accept, OFFERED) in OFFERED
    except NotAcceptableError:
        return


@given(st.permutations([("fp16", 0.9), ("int8", 0.5), ("rank4", 0.1)]))
def test_the_preferred_codec_wins_at_any_position(wishes) -> None:
    header = ", ".join(f"application/x-safetensors; codec={name}; q={q}" for name, q in wishes)
    assert negotiate(header, OFFERED) == "fp16"
    assert negotiate(header, ("fp32", "rank4", "int8")) == "int8"


@pytest.mark.parametrize(
    ("accept", "codec"),
    [
        ("application/x-safetensors, application/x-safetensors; codec=rank4; q=0.1", "fp32"),
        ("*/*, application/x-safetensors; codec=int8; q=0.1", "fp32"),
        ("*/*; q=0.1, application/x-safetensors; codec=int8", "int8"),
    ],
)
def test_the_q_value_counts_more_than_the_precision_of_the_type(accept, codec) -> None:
    assert negotiate(accept, OFFERED) == codec


def test_an_excluded_codec_is_not_used() -> None:
    with pytest.raises(NotAcceptableError, match="names nothing that is offered"):
        negotiate("application/x-safetensors; codec=fp16; q=0", OFFERED)
    with pytest.raises(NotAcceptableError):
        negotiate("application/x-safetensors; codec=fp32; q=0, */*", OFFERED)
    with pytest.raises(NotAcceptableError):
        negotiate("application/json", OFFERED)
