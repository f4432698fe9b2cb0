"""Which codec a device asks for, and whether it can use what comes in it."""

from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import BaseHead, HeadLayout
from hyperfleet.head_codecs import codec as head_codec


def check_codec(codec: str, base: BaseHead | None, layout: HeadLayout | None = None) -> None:
    """Make sure that a device of this `layout`, if it is known yet, can use heads in `codec`.

    Raises:
        UnknownNameError: there is no such codec.
        ConfigError: it needs a static head and there is none, or one of another shape.
    """
    if head_codec(codec).needs_base and base is None:
        raise ConfigError(
            f"codec {codec!r} sends what is added to the static head; give the device's own as `base`, which "
            "`fetch_base` gets from the service, or ask for fp32, fp16, bf16 or int8"
        )
    if base is not None and layout is not None and base.layout != layout:
        raise ConfigError(
            f"`base` is a static head of {base.layout.num_classes} classes x {base.layout.hidden} hidden "
            f"units, the device's head has {layout.num_classes} x {layout.hidden}; take both from one model"
        )
