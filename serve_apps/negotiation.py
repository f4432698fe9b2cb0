"""Which codec a client gets, from its Accept header."""

from functools import lru_cache

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from hyperfleet.errors import NotAcceptableError
from hyperfleet.head_codecs import DEFAULT_CODEC

SAFETENSORS = "application/x-safetensors"
_ANY = frozenset({"*/*", "application/*", SAFETENSORS})


# A fleet sends the same few headers; what strangers send must not fill the memory.
@lru_cache(maxsize=256)
def negotiate(accept: str, offered: tuple[str, ...]) -> str:
    """Return the codec of `offered` that the client likes best; without a wish the default.

    "application/x-safetensors; codec=fp16" asks for one, several with q-values are tried in their order, and
    a type without the parameter, */* or no header at all is the default.

    Raises:
        NotAcceptableError: none of them is offered, or the header is no list of media types.
    """
    if not accept.strip():
        return DEFAULT_CODEC
    wishes = []
    for value, quality in parse_accept_header(accept, MIMEAccept):
        media_type, options = parse_options_header(value)
        if media_type.lower() in _ANY:
            wishes.append((options.get("codec", DEFAULT_CODEC).lower(), quality, "codec" in options))
    refused = {wanted for wanted, quality, named in wishes if named and quality <= 0}
    # By how much each is liked: werkzeug puts the more specific first, which a codec always is.
    for wanted, quality, _ in sorted(wishes, key=lambda wish: wish[1], reverse=True):
        if quality > 0 and wanted in offered and wanted not in refused:
            return wanted
    raise NotAcceptableError(
        f"Accept {accept[:200]!r} names nothing that is offered; this model's heads come as "
        f"{SAFETENSORS} with codec={'|'.join(offered)}, e.g. '{SAFETENSORS}; codec=fp16'"
    )
