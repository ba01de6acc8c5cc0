"""W3C Trace Context: the `traceparent` header (version 00), https://www.w3.org/TR/trace-context/."""

import random
import re
from typing import Final, NamedTuple

HEADER: Final = "traceparent"
MAX_CHARS: Final = 512
"""Of a header that is looked at; version 00 has 55."""
SAMPLED: Final = 1
_MASK_64: Final = (1 << 64) - 1
_MIX: Final = 0x9E3779B97F4A7C15
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ZERO_TRACE: Final = "0" * 32
_ZERO_SPAN: Final = "0" * 16


class Parent(NamedTuple):
    """What a `traceparent` says."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether whoever sent it keeps the trace."""
        return bool(self.flags & SAMPLED)


def parse(text: str) -> Parent | None:
    """None for what is malformed: then there is no parent (section 4.3). Later versions are read as this one."""
    found = _FORM.fullmatch(text.strip()) if len(text) <= MAX_CHARS else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _ZERO_TRACE or span_id == _ZERO_SPAN:
        return None
    return Parent(trace_id, span_id, int(flags, 16))


def build(trace_id: str, span_id: str, *, sampled: bool = True) -> str:
    """The header's value."""
    return f"00-{trace_id}-{span_id}-{SAMPLED if sampled else 0:02x}"


def new_trace() -> str:
    """The id of a new trace."""
    return f"{random.getrandbits(128) or 1:032x}"


def new_span() -> str:
    """The id of a new span."""
    return f"{random.getrandbits(64) or 1:016x}"


def attempt_span(owed_id: int, tries: int) -> str:
    """The id of the span of one attempt at a callback: whoever sends the header and whoever records the span find the
    same without telling each other."""
    return f"{((owed_id * 1024 + tries) * _MIX) & _MASK_64 or 1:016x}"


def of_attempt(given: str, owed_id: int, tries: int) -> str:
    """The header of one attempt at a callback of work with the `traceparent` `given`; empty where that is none."""
    parent = parse(given) if given else None
    if parent is None:
        return ""
    return build(parent.trace_id, attempt_span(owed_id, tries)) if parent.sampled else given
