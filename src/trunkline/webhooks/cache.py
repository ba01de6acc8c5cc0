"""GET responses with a validator (ETag, Last-Modified), asked about again with a conditional request."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from trunkline.webhooks.connection import Response

MAX_ENTRIES: Final = 1024
MAX_BYTES: Final = 16 * 1024 * 1024  # of all bodies

Key = tuple[str, str]
"""Scope (the account: nothing is shared between accounts) and URL."""


class Entry(NamedTuple):
    """A stored response and its validators."""

    etag: str
    last_modified: str
    response: Response

    def conditions(self) -> list[tuple[str, str]]:
        """The headers that ask whether it is still current."""
        headers = [("If-None-Match", self.etag)] if self.etag else []
        return headers + ([("If-Modified-Since", self.last_modified)] if self.last_modified else [])


class Cache:
    """Bounded; the longest unused goes first."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def get(self, key: Key) -> Entry | None:
        """The entry of a key."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, response: Response) -> None:
        """Keep a response if it may be kept, else forget what was there."""
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= len(old.response.body)
        etag, last_modified = _printable(response.header("etag")), _printable(response.header("last-modified"))
        if response.status != 200 or not (etag or last_modified) or not _may_keep(response):
            return
        self._entries[key] = Entry(etag, last_modified, response)
        self._bytes += len(response.body)
        while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= len(dropped.response.body)


def _may_keep(response: Response) -> bool:
    return (
        "no-store" not in response.header("cache-control").lower()
        and not response.header("set-cookie")
        and response.header("vary").strip() != "*"
    )


def _printable(text: str) -> str:
    """A validator is sent back: one that could not be sent is none."""
    return text if text.isascii() and text.isprintable() and len(text) <= 512 else ""
