"""Rules for showing and reading options on the command line."""

import dataclasses
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

SHOWN_TYPES: dict[Any, str] = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
REGISTRY = ConstructorRegistry()


def default(text: str) -> Any:
    """Describe the default of an option that is None unless given, e.g. "one per CPU"."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")


@REGISTRY.primitive_rule
def _named_type(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if info.type not in SHOWN_TYPES:
        return None
    kind: Any = info.type
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=SHOWN_TYPES[kind],
        instance_from_str=lambda args: kind(args[0]),
        is_instance=lambda value: isinstance(value, (int, float) if kind is float else kind),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _optional(
    info: PrimitiveTypeInfo,
) -> PrimitiveConstructorSpec[Any] | UnsupportedTypeAnnotationError | None:
    """Read `X | None` as X: an option that is None unless given is left out, never spelt."""
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    if get_origin(info.type) not in (Union, UnionType) or len(kinds) != 1:
        return None
    found = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if isinstance(found, UnsupportedTypeAnnotationError):
        return found
    return dataclasses.replace(
        found,
        is_instance=lambda value: value is None or found.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else found.str_from_instance(value),
    )
