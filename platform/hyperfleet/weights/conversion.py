"""Weights under the names of a device model, and the error for weights of another model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hyperfleet.errors import CheckpointError

_NUM_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ConvertedWeights:
    """Tensors of a checkpoint for a device model, and a record of all others.

    `tensors` are to be loaded, in the shapes and types of the device model. `adapted` names those among
    them that were made to fit, `reinitialised` the parameters of the device model that stay at their
    initial values, `discarded` the checkpoint's tensors without a place; each with the reason.
    """

    tensors: Mapping[str, Tensor]
    adapted: Mapping[str, str] = field(default_factory=dict)
    reinitialised: Mapping[str, str] = field(default_factory=dict)
    discarded: Mapping[str, str] = field(default_factory=dict)


def refuse_mismatch(
    what: str,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    unexpected: Collection[str],
    remedy: str,
) -> None:
    """Check that `found` has the names and shapes of `expected`, and that nothing is left over.

    Raises:
        CheckpointError: it does not fit; the message counts the deviations and names the first of each kind.
    """
    missing = sorted(expected.keys() - found.keys())
    reshaped = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]
    if missing or reshaped or unexpected:
        deviations = (
            ("missing", missing),
            ("unexpected", sorted(unexpected)),
            ("of another shape", reshaped),
        )
        counts = "; ".join(f"{len(names)} {kind}{_first(names)}" for kind, names in deviations)
        raise CheckpointError(f"{what} does not fit this device model: {counts}; {remedy}")


def _first(names: list[str]) -> str:
    if not names:
        return ""
    dots = ", ..." if len(names) > _NUM_NAMED else ""
    return f" ({', '.join(names[:_NUM_NAMED])}{dots})"
