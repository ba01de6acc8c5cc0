"""What is kept of a try to reach a webhook, so that a customer can see why it failed. Secrets are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

MAX_SAMPLE_BYTES: Final = 16 * 1024  # of a response's body
HIDDEN: Final = "***"
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "set-cookie", "proxy-authorization"})


class Hop(msgspec.Struct):
    """A redirect that was followed: the URL that answered, with which status."""

    url: str
    status: int


class Attempt(msgspec.Struct, omit_defaults=True):
    """One try: the last request of it (after redirects and log-in) and its answer. Plain data, ready for JSON.

    `status` 0: no answer; `error_code` 0: it succeeded. `failure` is a kind of trunkline.webhooks.failures. Times in
    milliseconds, from the start of the try; `started_ms` in Unix time.
    """

    url: str
    method: str
    started_ms: int
    request_headers: dict[str, str] = {}
    params: Sequence[tuple[str, str]] = ()
    redirects: list[Hop] = []
    status: int = 0
    response_headers: dict[str, str] = {}
    response_body: str = ""
    from_cache: bool = False
    error_code: int = 0
    error: str = ""
    failure: str = ""
    connect_ms: float = 0.0
    first_byte_ms: float = 0.0
    total_ms: float = 0.0


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers for a record: repeated ones joined, secrets hidden."""
    shown: dict[str, str] = {}
    for name, value in headers:
        text = HIDDEN if name.lower() in _SECRET_HEADERS else value
        shown[name] = f"{shown[name]}, {text}" if name in shown else text
    return shown


def sample(body: bytes) -> str:
    """The beginning of a body, as text."""
    return body[:MAX_SAMPLE_BYTES].decode("utf-8", "replace")
