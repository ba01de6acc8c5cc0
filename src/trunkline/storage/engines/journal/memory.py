"""A `MemoryStore` in this process whose writes outlive it.

Every change is appended to a journal by one unsynced `write`: what has been put is in the system's page cache before
`put` returns, so that it survives the loss of the process (not of power or host). A start reads the journal; a torn or
damaged tail is cut off. The journal is rewritten when most of it is stale.

Record: length and CRC-32 of the rest (4 bytes each, little endian), then a MessagePack array of key, value (None:
removed) and the Unix milliseconds at which it expires (0: never).
"""

import logging
import os
import struct
import zlib
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from trunkline.model.clock import Clock
from trunkline.storage.memory import MAX_VALUE_BYTES, ValueTooLarge
from trunkline.storage.survives import Survives
from trunkline.storage.written import Written

MAX_ENTRIES = 200_000
MAX_TOTAL_BYTES = 512 * 1024 * 1024
"""Of all values together; the ones written longest ago leave first."""
REWRITE_BYTES = 8 * 1024 * 1024
"""A journal smaller than this is left as it is."""
REWRITE_RATIO = 4
"""A journal this many times as large as what lives in it is rewritten."""

T = TypeVar("T")

_HEAD = struct.Struct("<II")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, bytes | None, int]).decode

log = logging.getLogger(__name__)


class JournalStore:
    """See the module. One event loop uses it; the data folder's lock keeps other processes away from the file."""

    survives = Survives.PROCESS
    problem = ""
    """Why what was asked of it is not kept now, for /readyz."""

    def __init__(self, path: Path, clock: Clock, max_total_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._path = path
        self._clock = clock
        self._max_total = max_total_bytes
        self._entries: dict[str, tuple[bytes, int]] = {}
        self._live_bytes = 0
        self._journal_bytes = 0
        self._file = self._open()

    # -- MemoryStore -----------------------------------------------------------------------------------------

    def get(self, key: str) -> Awaitable[bytes | None]:
        """See `MemoryStore.get`."""
        return _done(self._live(key))

    def put(self, key: str, value: bytes, ttl_ms: int = 0) -> Awaitable[None]:
        """See `MemoryStore.put`. The journal has it on return. Raises ValueTooLarge."""
        self.post(key, value, ttl_ms)
        return _done(None)

    def post(self, key: str, value: bytes | None, ttl_ms: int = 0) -> None:
        """See `MemoryStore.post`. The journal has it on return. Raises ValueTooLarge."""
        self.post_all(((key, value),), ttl_ms)

    def post_all(self, changes: Sequence[tuple[str, bytes | None]], ttl_ms: int = 0) -> None:
        """See `MemoryStore.post_all`. The journal has all on return, by one write. Raises ValueTooLarge."""
        expires_ms = self._clock.now_ms() + ttl_ms if ttl_ms else 0
        entries, records = self._entries, []
        for key, value in changes:
            if value is not None:
                if len(value) > MAX_VALUE_BYTES:
                    raise ValueTooLarge(f"{key}: {len(value)} bytes, at most {MAX_VALUE_BYTES} can be kept")
                records.append(_record(key, value, expires_ms))
            elif key in entries:
                records.append(_record(key, None, 0))
        if not records:
            return
        self._append(b"".join(records))
        for key, value in changes:
            if value is None:
                self._drop(key)
            else:
                self._set(key, value, expires_ms)
        self._make_room()

    def compare_and_set(self, key: str, old: bytes | None, new: bytes, ttl_ms: int = 0) -> Awaitable[bool]:
        """See `MemoryStore.compare_and_set`."""
        if self._live(key) != old:
            return _done(False)
        self.post(key, new, ttl_ms)
        return _done(True)

    def delete(self, key: str) -> Awaitable[None]:
        """See `MemoryStore.delete`."""
        self.post(key, None)
        return _done(None)

    def settled(self, timeout_s: float) -> Awaitable[bool]:
        """See `MemoryStore.settled`: `post` has written it."""
        return _done(True)

    def scan(self, prefix: str) -> Awaitable[list[tuple[str, bytes]]]:
        """See `MemoryStore.scan`."""
        now = self._clock.now_ms()
        return _done(
            [
                (key, value)
                for key, (value, expires_ms) in self._entries.items()
                if key.startswith(prefix) and (not expires_ms or expires_ms > now)
            ]
        )

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    # -- entries ---------------------------------------------------------------------------------------------

    def _live(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires_ms = entry
        if expires_ms and expires_ms <= self._clock.now_ms():
            self._drop(key)
            return None
        return value

    def _set(self, key: str, value: bytes, expires_ms: int) -> None:
        self._drop(key)
        self._entries[key] = (value, expires_ms)
        self._live_bytes += len(key) + len(value) + _HEAD.size

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._live_bytes -= len(key) + len(entry[0]) + _HEAD.size

    def _make_room(self) -> None:
        """The entries written longest ago leave when there are too many, or too much."""
        while len(self._entries) > MAX_ENTRIES or self._live_bytes > self._max_total:
            key = next(iter(self._entries))
            log.warning("the memory store is full: %s is dropped", key)
            self._append(_record(key, None, 0))
            self._drop(key)

    # -- journal ---------------------------------------------------------------------------------------------

    def _open(self) -> int:
        """Read the journal, cut off what is damaged, and open it for appending."""
        data = self._path.read_bytes() if self._path.exists() else b""
        good = self._replay(data)
        if good < len(data):
            log.warning("%s: %d damaged bytes at its end are cut off", self._path, len(data) - good)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(file, good)
        self._journal_bytes = good
        return file

    def _replay(self, data: bytes) -> int:
        """Apply every whole record; how many bytes they take."""
        good = 0
        now = self._clock.now_ms()
        for end, key, value, expires_ms in _records(data):
            good = end
            if value is None or (expires_ms and expires_ms <= now):
                self._drop(key)
            else:
                self._set(key, value, expires_ms)
        return good

    def _append(self, records: bytes) -> None:
        if self._journal_bytes > max(REWRITE_BYTES, REWRITE_RATIO * self._live_bytes):
            self._rewrite()
        written = os.write(self._file, records)
        self._journal_bytes += written
        if written < len(records):  # a full disk: take the torn records back, so that later ones can be read
            os.ftruncate(self._file, self._journal_bytes - written)
            self._journal_bytes -= written
            raise OSError(f"{self._path}: {written} of {len(records)} bytes could be written; is the disk full?")

    def _rewrite(self) -> None:
        """Write what lives into a new file and put it in the journal's place."""
        draft = self._path.with_suffix(".new")
        records = [_record(key, value, expires_ms) for key, (value, expires_ms) in self._entries.items()]
        draft.write_bytes(b"".join(records))
        draft.chmod(0o600)
        file = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        draft.replace(self._path)
        os.close(self._file)
        self._file = file
        self._journal_bytes = sum(map(len, records))


def peek(path: Path, prefix: str, now_ms: int) -> list[tuple[str, bytes]]:
    """What `scan` would find in a journal that another process may be writing; nothing is changed."""
    found: dict[str, bytes] = {}
    for _, key, value, expires_ms in _records(path.read_bytes() if path.exists() else b""):
        if key.startswith(prefix):
            found.pop(key, None)
            if value is not None and not (expires_ms and expires_ms <= now_ms):
                found[key] = value
    return list(found.items())


def _records(data: bytes) -> Iterator[tuple[int, str, bytes | None, int]]:
    """Every whole record: where it ends, key, value and expiry."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + length]
        if len(body) < length or zlib.crc32(body) != checksum:
            return
        try:
            key, value, expires_ms = _decode(body)
        except msgspec.MsgspecError:
            return
        at += _HEAD.size + length
        yield at, key, value, expires_ms


def _record(key: str, value: bytes | None, expires_ms: int) -> bytes:
    body = _encode((key, value, expires_ms))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _done(result: T) -> Awaitable[T]:
    written: Written[T] = Written()
    written.settle(result, None)
    return written
