"""Kinds of attribute values: from text to value, None when the text is not valid."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_URL_CHARACTERS: Final = 4096

_ADDRESS: Final = re.compile(r"(?=(?:[^0-9]*[0-9]){3})(?:[a-z]{2,20}:)?\+?[0-9(][0-9 ().-]{1,30}")
_ALPHANUMERIC: Final = re.compile(r"(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9 _+&-]{1,11}")
_SERVICE: Final = re.compile(r"MG[0-9a-fA-F]{32}")
_CHANNEL: Final = re.compile(r"[a-z]{2,20}:[A-Za-z0-9@.+_-]{1,200}")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")


def text(raw: str) -> str | None:
    """Any text."""
    return raw


def method(raw: str) -> str | None:
    """GET or POST; case is forgiven, as Twilio does."""
    name = raw.upper()
    return name if name in ("GET", "POST") else None


def url(raw: str) -> str | None:
    """An http(s) URL or a reference relative to the document, not empty, without spaces or controls."""
    if not raw or len(raw) > MAX_URL_CHARACTERS or _CONTROL.search(raw):
        return None
    scheme, colon, _ = raw.partition(":")
    if colon and scheme.isalnum() and scheme.lower() not in ("http", "https"):
        return None
    return raw


def recipient(raw: str) -> str | None:
    """A phone number as written, a short code, or channel:address. The dial plan is checked when it is sent."""
    return raw if _ADDRESS.fullmatch(raw) or _CHANNEL.fullmatch(raw) else None


def sender(raw: str) -> str | None:
    """A recipient's forms, an alphanumeric sender (up to 11 characters) or a Messaging Service SID."""
    if recipient(raw) or _ALPHANUMERIC.fullmatch(raw) or _SERVICE.fullmatch(raw):
        return raw
    return None


def boolean(raw: str) -> bool | None:
    """true or false."""
    return {"true": True, "false": False}.get(raw.lower())


def one_of(*names: str) -> Callable[[str], str | None]:
    """One of the names, exactly."""
    allowed = frozenset(names)
    return lambda raw: raw if raw in allowed else None


def whole(low: int, high: int) -> Callable[[str], int | None]:
    """A decimal whole number within the bounds, both included."""

    def parse(raw: str) -> int | None:
        if not raw.isascii() or not raw.isdigit() or len(raw) > 9:
            return None
        number = int(raw)
        return number if low <= number <= high else None

    return parse
