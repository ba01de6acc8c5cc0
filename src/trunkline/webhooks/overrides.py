"""Connection overrides: what a customer writes behind the `#` of a webhook URL.

`https://example.com/sms#ct=2000&rt=5000&rc=3&rp=5xx,ct`: the fragment is neither sent nor signed. A value
out of its range or not understood leaves the default in force and is named in `problems`.

| key | meaning                                    | range            | default |
|-----|--------------------------------------------|------------------|---------|
| ct  | connect timeout, ms                        | 100..10000       | 5000    |
| rt  | read timeout, ms                           | 100..15000       | 15000   |
| tt  | total time over all tries, ms              | 100..15000       | 15000   |
| rc  | retries                                    | 0..5             | 1       |
| rp  | what is retried: 4xx, 5xx, ct, rt, all     | list with commas | ct      |
| sni | send the host name in the TLS handshake    | y, n             | y       |
| e   | egress edge (accepted, without effect)     | name             |         |
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

RETRY_4XX: Final = "4xx"
RETRY_5XX: Final = "5xx"
RETRY_CONNECT: Final = "ct"
RETRY_READ: Final = "rt"
RETRY_ALL: Final = "all"

INVALID_RETRY_POLICY: Final = 11243
INVALID_EDGE: Final = 11240
INVALID_FORMAT: Final = 11100

_POLICIES: Final = frozenset({RETRY_4XX, RETRY_5XX, RETRY_CONNECT, RETRY_READ, RETRY_ALL})
_EVERY_POLICY: Final = _POLICIES - {RETRY_ALL}
_NUMBERS: Final = {
    "ct": ("connect_ms", 100, 10_000),
    "rt": ("read_ms", 100, 15_000),
    "tt": ("total_ms", 100, 15_000),
    "rc": ("retries", 0, 5),
}
_MAX_FRAGMENT_CHARACTERS: Final = 500
_MAX_EDGE_CHARACTERS: Final = 100
_CACHED_URLS: Final = 4096


class Overrides(msgspec.Struct, frozen=True):
    """Timeouts in milliseconds. `problems` are (code of Twilio's dictionary, sentence)."""

    connect_ms: int = 5000
    read_ms: int = 15_000
    total_ms: int = 15_000
    retries: int = 1
    retry_on: frozenset[str] = frozenset({RETRY_CONNECT})
    sni: bool = True
    edge: str = ""
    problems: tuple[tuple[int, str], ...] = ()


DEFAULTS: Final = Overrides()


@lru_cache(maxsize=_CACHED_URLS)
def split(url: str) -> tuple[str, Overrides]:
    """The URL to request and to sign, and what its fragment asks for."""
    bare, _, fragment = url.partition("#")
    return bare, parse(fragment) if fragment else DEFAULTS


def parse(fragment: str) -> Overrides:
    """The overrides of a fragment (without its `#`). Of a repeated key the last counts. Never raises."""
    values: dict[str, object] = {}
    problems: list[tuple[int, str]] = []
    if len(fragment) > _MAX_FRAGMENT_CHARACTERS:
        problems.append((INVALID_FORMAT, f"connection overrides longer than {_MAX_FRAGMENT_CHARACTERS} characters"))
        fragment = ""
    for pair in filter(None, fragment.split("&")):
        key, _, raw = pair.partition("=")
        problem = _read(key, raw, values)
        if problem is not None:
            problems.append(problem)
    return msgspec.structs.replace(DEFAULTS, problems=tuple(problems), **values)


def _read(key: str, raw: str, values: dict[str, object]) -> tuple[int, str] | None:
    """Put one key's value into `values`, or say what is wrong with it."""
    if key in _NUMBERS:
        field, low, high = _NUMBERS[key]
        if not (raw.isascii() and raw.isdigit() and len(raw) <= 6 and low <= int(raw) <= high):
            return INVALID_FORMAT, f"override {key}={raw[:20]!r} is not a number from {low} to {high}"
        values[field] = int(raw)
    elif key == "rp":
        names = frozenset(raw.lower().split(","))
        if not names <= _POLICIES:
            return INVALID_RETRY_POLICY, f"override rp={raw[:40]!r} is not a list of 4xx, 5xx, ct, rt, all"
        values["retry_on"] = _EVERY_POLICY if RETRY_ALL in names else names
    elif key == "sni":
        if raw not in ("y", "n"):
            return INVALID_FORMAT, f"override sni={raw[:20]!r} is not y or n"
        values["sni"] = raw == "y"
    elif key == "e":
        if not raw or len(raw) > _MAX_EDGE_CHARACTERS:
            return INVALID_EDGE, "override e names no edge"
        values["edge"] = raw
    else:
        return INVALID_FORMAT, f"override {key[:20]!r} is unknown"
    return None
