"""The types that settings are made of: each carries its bounds, so that a wrong value is refused when it is read."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Section(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The base of every part of the settings: frozen, read by name."""


class Secret(str):
    """A string that does not show itself in `repr` (logs, tracebacks).

    In the file it may be written `env:NAME` or `file:PATH`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')" if self else "Secret('')"


class Secrets(tuple[Secret, ...]):
    """Several secrets, in order; in the file one string or a list of them, in the environment one a line."""

    __slots__ = ()


Port = Annotated[int, Meta(ge=0, le=65535)]
"""0 lets the system choose."""
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
"""A positive number of things."""
CountOrNone = Annotated[int, Meta(ge=0, le=10_000_000)]
"""A number of things, or 0 for none."""
Bytes = Annotated[int, Meta(ge=1024, le=1 << 40)]
"""Bytes, at least 1 KiB."""
Seconds = Annotated[float, Meta(gt=0, le=366 * 86_400)]
"""Seconds, more than none and at most a year."""
SecondsOrNone = Annotated[float, Meta(ge=0, le=366 * 86_400)]
"""Seconds, or 0."""
PerSecond = Annotated[float, Meta(ge=0, le=1_000_000)]
"""A second's worth of something; 0 means no limit of its own."""
Money = Annotated[Decimal, Meta(extra={"money": True})]
"""A decimal amount, best written in quotes."""
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
"""Lower-case letters, digits, `-` and `_`, at most 40: it appears in URLs, metrics and records."""
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
"""ISO 4217, three capital letters."""
Country = Annotated[str, Meta(pattern=r"^([A-Z]{2})?$")]
"""ISO 3166-1 alpha-2 in capital letters, or empty."""
Partitions = Annotated[int, Meta(ge=1, le=64)]
"""Parts of a queue."""
Octet = Annotated[int, Meta(ge=0, le=255)]
"""One octet of a protocol field."""
Prefix = Annotated[str, Meta(pattern=r"^\+?[0-9]{0,15}$")]
"""Leading digits of an E.164 number, with or without `+`; empty matches all."""
ErrorCode = Annotated[int, Meta(ge=10_000, le=99_999)]
"""One of Twilio's error codes."""
Codec = Literal["PCMU", "PCMA", "G722", "opus"]
ProfileName = Literal["development", "integration", "staging", "production"]
