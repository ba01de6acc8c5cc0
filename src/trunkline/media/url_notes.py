"""What is known of the URLs that audio came from: which file it became, and when to ask again (RFC 9111)."""

import hashlib
import os
import time
from collections import OrderedDict
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import msgspec

MAX_NOTES: Final = 10_000
"""URLs remembered."""
MAX_FRESH_S: Final = 24 * 3600.0
"""Longest time for which a file is played without asking, whatever its server says."""
MAX_HEADER: Final = 1000
"""Longest ETag or Last-Modified kept, characters."""


class UrlNote(msgspec.Struct, frozen=True):
    """`name` is the prompt's; `fresh_until` Unix seconds."""

    name: str
    etag: str = ""
    last_modified: str = ""
    fresh_until: float = 0.0

    def fresh(self, now: float) -> bool:
        return now < self.fresh_until


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. Its body is in the file that was asked for, or here. `headers` have lower-case names.

    With an `error_code` (Twilio's: 11200, 11205...) there was none; `error` says why.
    """

    status: int = 0
    content_type: str = ""
    """Lower-case, without parameters."""
    headers: dict[str, str] = {}
    body: bytes = b""
    error_code: int = 0
    error: str = ""

    def note(self, name: str, now: float, old: UrlNote) -> UrlNote:
        """What to remember. A 304 may leave out what has not changed."""
        etag = self.headers.get("etag", old.etag if self.status != 200 else "")
        last_modified = self.headers.get("last-modified", old.last_modified if self.status != 200 else "")
        if len(etag) > MAX_HEADER or len(last_modified) > MAX_HEADER:
            etag = last_modified = ""
        return UrlNote(name, etag, last_modified, now + self._fresh_s(now))

    def _fresh_s(self, now: float) -> float:
        """Seconds for which the answer holds without asking (RFC 9111 4.2.1)."""
        directives = [part.strip().lower() for part in self.headers.get("cache-control", "").split(",")]
        if any(directive.startswith(("no-cache", "no-store")) for directive in directives):
            return 0.0
        age = _number(self.headers.get("age", "0"))
        for wanted in ("s-maxage=", "max-age="):
            for directive in directives:
                if directive.startswith(wanted):
                    return min(MAX_FRESH_S, max(0.0, _number(directive.removeprefix(wanted).strip('"')) - age))
        with suppress(KeyError, ValueError, TypeError, OverflowError):
            return min(MAX_FRESH_S, max(0.0, parsedate_to_datetime(self.headers["expires"]).timestamp() - now))
        return 0.0


def _number(text: str) -> float:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0.0


def noted(scope: str, url: str) -> str:
    """The name of a URL's note."""
    return hashlib.sha256(f"{scope}\0{url}".encode("utf-8", "replace")).hexdigest()[:40]


class UrlNotes:
    """A file a note, so that a restart need not fetch everything anew; the URLs themselves are not kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes: OrderedDict[str, UrlNote] = OrderedDict()

    def open(self) -> None:
        """Read the folder. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime):
            try:
                note = msgspec.json.decode(path.read_bytes(), type=UrlNote)
            except (msgspec.DecodeError, OSError):
                path.unlink(missing_ok=True)
                continue
            self._notes[path.name] = msgspec.structs.replace(note, fresh_until=min(note.fresh_until, now + MAX_FRESH_S))
        self._bound()

    def get(self, key: str) -> UrlNote | None:
        return self._notes.get(key)

    def put(self, key: str, note: UrlNote) -> None:
        """Remember; that it cannot be written costs a fetch after the next start."""
        self._notes[key] = note
        self._notes.move_to_end(key)
        with suppress(OSError):
            draft = self._folder / f"{key}.draft"
            draft.write_bytes(msgspec.json.encode(note))
            os.replace(draft, self._folder / key)
        self._bound()

    def _bound(self) -> None:
        while len(self._notes) > MAX_NOTES:
            key, _ = self._notes.popitem(last=False)
            with suppress(OSError):
                (self._folder / key).unlink(missing_ok=True)
