"""What may stand at a place of the settings that takes one of a few words."""

import re
import types
import typing
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec


def allowed(kind: Any, place: str) -> tuple[str, ...]:
    """The words that may stand at a place below a type, like `trunks[0].codecs[1]`; empty: not known."""
    for step in re.findall(r"\w+", place):
        kind = _bare(kind)
        if step.isdigit():
            kind = next(iter(typing.get_args(kind)), None)
            continue
        structs = [one for one in _options(kind) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        fields = [field for one in structs for field in msgspec.structs.fields(one)]
        kind = next((field.type for field in fields if field.encode_name == step), None)
    return tuple(word for one in _options(kind) for word in _words(one))


def _bare(kind: Any) -> Any:
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    return kind


def _options(kind: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else itself, and what a list of it holds."""
    kind = _bare(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return tuple(one for part in typing.get_args(kind) for one in _options(part))
    return (kind,)


def _words(kind: Any) -> tuple[str, ...]:
    if typing.get_origin(kind) is Literal:
        return tuple(str(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return tuple(word for one in _options(typing.get_args(kind)[0]) for word in _words(one))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(str(one.value) for one in kind)
    return ()
