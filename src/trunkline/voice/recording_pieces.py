"""Recordings leave their host in pieces while they run, so that another one can go on with them.

    spool/RE.../RE....spool -> (every PIECE_S) -> live/RE.../OFFSET-ORIGIN-FIRST-COUNT in the object store

A piece is some entries of a spool (trunkline.media.recording_spool) as they are, packed, behind a head that says of
which recording, when its last frame was written and whether it was paused then. Entries carry their sample index
within the part of the host that wrote them, and the head that part's offset, so that pieces may be put together in any
order, come twice or be missing: what no frame covers is silence, and listed as a gap.

`RecordingUploads` only reads what the recorder has written, in threads of its own: neither the tick nor the recorder
waits for it, and an object store that is away costs nothing but what the host would take with it if it were lost now.
`RecordingPieces` is the other side: what is known of a recording, its earlier entries, its whole spool.
"""

import asyncio
import logging
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from trunkline.media import recorded
from trunkline.media.recorded import ENTRY_BYTES, SAMPLE_AT, SAMPLES_PER_MS, SUFFIX
from trunkline.model.sid import is_sid
from trunkline.storage.objects import AsyncObjects, Objects
from trunkline.storage.unavailable import StoreUnavailable

FOLDER: Final = "live"
"""Of the pieces in the object store."""
PIECE_S: Final = 2.5
"""Age at which entries leave; with the recorder's half second, less than 5 s are on one host alone."""
PIECE_ENTRIES: Final = 250
"""Entries of one piece at most: 5 s of audio."""
LOOK_S: Final = 1.0
"""Between two looks at the spools."""
UPLOADS: Final = 4
"""Uploads at once."""
READS: Final = 8
"""Pieces that are read at once."""
PACKING: Final = 1
"""zlib's level: half the bytes of a call's audio, for 2 ms a piece."""
RETRY_FIRST_S: Final = 1.0
RETRY_LONGEST_S: Final = 30.0
"""Waits after a piece that could not be uploaded."""
MAX_PIECES: Final = 100_000
"""Of one recording: 24 hours hold 30,000."""
MAX_PIECE_BYTES: Final = PIECE_ENTRIES * ENTRY_BYTES
STALE_S: Final = 48 * 3600.0
"""Age of pieces that nobody has asked for any more."""
GATHER_TRIES: Final = 25
GATHER_WAIT_S: Final = 2.0
"""How often, and after which wait, earlier pieces are asked for while the object store is away."""
_AUDIO, _PAUSE, _RESUME, _STOP = 0, 2, 3, 4
"""Kinds of entries (trunkline.media.engine.record_ring)."""
_FRAME: Final = 160
_NAME: Final = re.compile(r"(\d{10})-([A-Za-z0-9_.-]{1,40})-(\d{9})-(\d{4})")

log = logging.getLogger(__name__)


class Head(msgspec.Struct, kw_only=True):
    """What a piece says of itself."""

    v: int = 1
    description: dict[str, Any]
    """Fields of trunkline.media.protocol.Record."""
    end_ms: int
    """When its last entry was written, Unix ms."""
    end_sample: int = 0
    """Of the part: where its audio ends."""
    paused: str = ""
    """`skip` or `silence`: paused at its end."""
    stopped: bool = False


class PieceName(msgspec.Struct, frozen=True, order=True):
    """What the name of a piece says."""

    offset_ms: int
    origin: str
    first: int
    count: int
    name: str = ""


def piece_name(sid: str, offset_ms: int, origin: str, first: int, count: int) -> str:
    """The object's name."""
    return f"{FOLDER}/{sid}/{offset_ms:010d}-{origin}-{first:09d}-{count:04d}"


def read_name(name: str) -> PieceName | None:
    """None: it is no piece's."""
    match = _NAME.fullmatch(name.rpartition("/")[2])
    return PieceName(int(match[1]), match[2], int(match[3]), int(match[4]), name) if match else None


def pack(head: Head, entries: bytes) -> bytes:
    """A piece."""
    blob = msgspec.json.encode(head)
    return len(blob).to_bytes(4, "big") + blob + zlib.compress(entries, PACKING)


def unpack(data: bytes) -> tuple[Head, bytes]:
    """Head and entries. Raises ValueError for what is no piece."""
    length = int.from_bytes(data[:4], "big")
    try:
        head = msgspec.json.decode(data[4 : 4 + length], type=Head)
        unpacking = zlib.decompressobj()
        entries = unpacking.decompress(data[4 + length :], MAX_PIECE_BYTES + 1)
    except (msgspec.DecodeError, zlib.error) as error:
        raise ValueError(f"no piece of a recording: {error}") from error
    if len(entries) > MAX_PIECE_BYTES or len(entries) % ENTRY_BYTES or not unpacking.eof:
        raise ValueError("a piece of a recording is damaged")
    return head, entries


def _samples_and_kinds(entries: bytes) -> Iterator[tuple[int, int, int]]:
    for at in range(0, len(entries), ENTRY_BYTES):
        sample, _, _, kind, _ = struct.unpack_from("<QIIII", entries, at + SAMPLE_AT)
        yield at, sample, kind


def _moved(entries: bytes, samples: int) -> bytes:
    """The entries, so many samples later."""
    if not samples:
        return entries
    data = bytearray(entries)
    for at, sample, _ in _samples_and_kinds(entries):
        struct.pack_into("<Q", data, at + SAMPLE_AT, sample + samples)
    return bytes(data)


# -- out of this host -------------------------------------------------------------------------------------------


class _Part:
    """One spool that is being uploaded; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sid = path.parent.name
        self.description: dict[str, Any] = {}
        self.start = 0
        """Where its entries begin; 0: not known yet."""
        self.sent = -1
        """Entries uploaded; -1: to be asked for."""
        self.since = 0.0
        """When entries that are not uploaded were first seen (monotonic); 0: there are none."""
        self.end_sample = 0
        self.paused = ""
        self.stopped = False
        self.wait_s = 0.0
        self.not_before = 0.0
        self.job: Future[None] | None = None

    @property
    def offset_ms(self) -> int:
        return int(self.description.get("offset_ms") or 0)

    @property
    def is_over(self) -> bool:
        """Whether the file is another part's by now: this host goes on with a recording that it had before."""
        try:
            return bool(self.start) and recorded.read_head(self.path)[0] != self.description
        except (OSError, ValueError):
            return False  # it has just begun, or ended

    def entries(self) -> int:
        """Whole entries in the file. Raises OSError, ValueError."""
        if not self.start:
            self.description, self.start = recorded.read_head(self.path)
        return max(0, (self.path.stat().st_size - self.start) // ENTRY_BYTES)

    def is_in(self, file: BinaryIO) -> bool:
        """Whether a file that was opened under its name is its own: by now it may be another part's."""
        try:
            return recorded.head_of(file)[0] == self.description
        except ValueError:
            return False

    def entries_in(self, file: BinaryIO) -> int:
        """Whole entries in its open file."""
        return max(0, (os.fstat(file.fileno()).st_size - self.start) // ENTRY_BYTES)

    def follow(self, entries: bytes) -> None:
        """Keep up with what the entries say."""
        for at, sample, kind in _samples_and_kinds(entries):
            if kind == _PAUSE:
                self.paused = "silence" if b'"silence"' in entries[at + 24 : at + 88] else "skip"
            elif kind == _RESUME:
                self.paused = ""
            elif kind == _STOP:
                self.stopped = True
            elif kind == _AUDIO:
                self.end_sample = max(self.end_sample, sample + _FRAME)


class RecordingUploads:
    """Uploads what runs in a folder of spools; `origin` is this node's name. `start`, and `stop` at the end."""

    def __init__(self, objects: Objects, spools: Path, origin: str, *, piece_s: float = PIECE_S) -> None:
        self._objects = objects
        self._spools = spools
        self._origin = re.sub(r"[^A-Za-z0-9_.]", "_", origin)[:40] or "node"
        self._piece_s = piece_s
        self._parts: dict[Path, _Part] = {}
        self._threads = ThreadPoolExecutor(UPLOADS, "recording-upload")
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.uploaded = 0
        """Pieces, ever."""
        self.failed = ""
        """Why the last upload failed; empty: it did not."""

    def start(self) -> None:
        """Look at the spools in a thread."""
        self._thread = threading.Thread(target=self._run, name="recording-uploads", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; blocks until the uploads under way have ended."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                self.look()
            except OSError as error:
                log.error("the spools of recordings cannot be read: %s", error)

    @property
    def behind_s(self) -> float:
        """Age of the oldest entries that are on this host alone."""
        now = time.monotonic()
        return max((now - part.since for part in list(self._parts.values()) if part.since), default=0.0)

    def look(self, *, all_of_it: bool = False) -> list["Future[None]"]:
        """Begin what is due (or everything that is there); what was begun."""
        now, begun = time.monotonic(), []
        found = set(self._spools.glob(f"*/*{SUFFIX}"))
        for path in [path for path in self._parts if path not in found]:
            del self._parts[path]
        for path in found:
            if not is_sid(path.parent.name):
                continue
            part = self._parts.get(path)
            if part is None or part.is_over:
                part = self._parts[path] = _Part(path)
            if self._is_due(part, now, all_of_it):
                part.job = self._threads.submit(self._upload, part)
                begun.append(part.job)
        return begun

    def _is_due(self, part: _Part, now: float, all_of_it: bool) -> bool:
        if part.job is not None and not part.job.done():
            return False
        try:
            fresh = part.entries() - max(part.sent, 0)
        except (OSError, ValueError):
            return False  # it has just begun, or ended
        if fresh <= 0:
            part.since, part.sent = 0.0, min(part.sent, part.sent + fresh)
            return False
        part.since = part.since or now
        old = now - part.since >= self._piece_s or fresh >= PIECE_ENTRIES
        return (old or all_of_it) and now >= part.not_before

    def _upload(self, part: _Part) -> None:
        """Upload all that is there now, in pieces."""
        try:
            with part.path.open("rb") as file:
                if not part.is_in(file):
                    return  # `look` begins anew with that one
                if part.sent < 0:
                    self._take_up(part, file)
                while (count := min(part.entries_in(file) - part.sent, PIECE_ENTRIES)) > 0:
                    self._upload_piece(part, file, count)
            part.wait_s = part.since = 0.0
            self.failed = ""
        except FileNotFoundError:
            return  # it is finished
        except (StoreUnavailable, OSError, ValueError) as error:
            part.wait_s = min(max(2 * part.wait_s, RETRY_FIRST_S), RETRY_LONGEST_S)
            part.not_before = time.monotonic() + part.wait_s
            if not self.failed:
                log.error("what runs of recordings stays on this host: %s", error)
            self.failed = str(error)

    def _upload_piece(self, part: _Part, file: BinaryIO, count: int) -> None:
        file.seek(part.start + part.sent * ENTRY_BYTES)
        entries = file.read(count * ENTRY_BYTES)
        end_ms = os.fstat(file.fileno()).st_mtime_ns // 1_000_000
        part.follow(entries)
        head = Head(
            description=part.description, end_ms=end_ms, end_sample=part.end_sample, paused=part.paused,
            stopped=part.stopped,
        )  # fmt: skip
        name = piece_name(part.sid, part.offset_ms, self._origin, part.sent, count)
        self._objects.write(name, pack(head, entries))
        part.sent += count
        self.uploaded += 1

    def _take_up(self, part: _Part, file: BinaryIO) -> None:
        """What a process before this one has uploaded of it."""
        sent = 0
        for stored in self._objects.names(f"{FOLDER}/{part.sid}"):
            known = read_name(stored.name)
            if known and (known.origin, known.offset_ms) == (self._origin, part.offset_ms):
                sent = max(sent, known.first + known.count)
        sent = min(sent, part.entries_in(file))
        file.seek(part.start)
        for first in range(0, sent, PIECE_ENTRIES):
            part.follow(file.read(min(PIECE_ENTRIES, sent - first) * ENTRY_BYTES))
        part.sent = sent


# -- to another host --------------------------------------------------------------------------------------------


class Known(msgspec.Struct, kw_only=True):
    """What the object store knows of a recording."""

    description: dict[str, Any]
    offset_ms: int
    """Where in the recording its audio ends."""
    end_ms: int
    """When that was, Unix ms."""
    paused: str
    stopped: bool


class RecordingPieces:
    """The pieces of recordings in the object store. Raises StoreUnavailable."""

    def __init__(self, objects: AsyncObjects) -> None:
        self._objects = objects
        self._store = objects.objects

    async def known(self, sid: str) -> Known | None:
        """How far a recording has come; None: nothing of it has left its host. Two requests."""
        return await self._objects.run(self._known, sid)

    def _known(self, sid: str) -> Known | None:
        for name in reversed(self._names(sid)):
            data = self._store.read(name.name)
            try:
                head, _ = unpack(data or b"")
            except ValueError as error:
                log.error("%s: %s", name.name, error)
                continue
            return Known(
                description=head.description, offset_ms=name.offset_ms + head.end_sample // SAMPLES_PER_MS,
                end_ms=head.end_ms, paused=head.paused, stopped=head.stopped,
            )  # fmt: skip
        return None

    def _names(self, sid: str) -> list[PieceName]:
        if not is_sid(sid):
            raise ValueError("a recording's name must be a SID")
        found = (read_name(stored.name) for stored in self._store.names(f"{FOLDER}/{sid}"))
        return sorted(name for name in found if name is not None)[:MAX_PIECES]

    async def gather_earlier(self, sid: str, folder: Path) -> bool:
        """Put what is known of a recording beside the spool of its next part; at the end the recorder waits for it,
        while the mark is there that `expect_earlier` has left. False: the object store did not answer in time."""
        target = folder / f"{sid}{recorded.EARLIER}"
        try:
            for left in range(GATHER_TRIES, 0, -1):
                try:
                    await self._objects.run(self._write_entries, sid, target, b"")
                    return True
                except StoreUnavailable as error:
                    if left == 1:
                        log.error("the beginning of %s is missing: %s", sid, error)
                    await asyncio.sleep(GATHER_WAIT_S)
            return False
        finally:
            await asyncio.to_thread((folder / f"{sid}{recorded.PENDING}").unlink, True)

    def expect_earlier(self, sid: str, folder: Path) -> None:
        """Have the recorder wait for `gather_earlier`. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sid}{recorded.PENDING}").touch()

    async def rebuild(self, sid: str, folder: Path) -> Path | None:
        """Make the spool of a recording anew, of its pieces, in `folder`; None: there are none."""
        return await self._objects.run(self._rebuild, sid, folder)

    def _rebuild(self, sid: str, folder: Path) -> Path | None:
        known = self._known(sid)
        if known is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{sid}{SUFFIX}"
        description = {**known.description, "folder": str(folder), "recording": sid, "offset_ms": 0}
        self._write_entries(sid, path, recorded.spool_head(description))
        return path

    def _write_entries(self, sid: str, target: Path, head: bytes) -> None:
        """All entries, at their place in the whole recording; the file is there whole or not at all."""
        draft = target.with_name(f"{target.name}.draft")
        try:
            with draft.open("wb") as file, ThreadPoolExecutor(READS) as threads:
                file.write(head)
                for batch in _batches(self._names(sid)):
                    for entries in threads.map(self._entries, batch):
                        file.write(entries)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def _entries(self, name: PieceName) -> bytes:
        """A piece's entries, at their place; none of a damaged one."""
        try:
            _, entries = unpack(self._store.read(name.name) or b"")
        except ValueError as error:
            log.error("%s: %s", name.name, error)
            return b""
        return _moved(entries, name.offset_ms * SAMPLES_PER_MS)

    async def forget(self, sid: str) -> int:
        """Remove a recording's pieces: it is kept, or nobody wants it; how many."""
        return await self._objects.run(self._remove, [name.name for name in await self._objects.run(self._names, sid)])

    def _remove(self, names: Collection[str]) -> int:
        for name in names:
            self._store.remove(name)
        return len(names)

    async def sweep(self, now_s: float, running: Callable[[Iterable[str]], Awaitable[Collection[str]]]) -> int:
        """Remove pieces of recordings that have had no new one for STALE_S and that `running(sids)` (awaited) does not
        name; how many recordings."""
        latest = await self._objects.run(self._latest)
        stale = [sid for sid, at in latest.items() if at < now_s - STALE_S]
        wanted = set(await running(stale)) if stale else set()
        gone = [sid for sid in stale if sid not in wanted]
        for sid in gone:
            await self.forget(sid)
        return len(gone)

    def _latest(self) -> dict[str, float]:
        latest: dict[str, float] = {}
        for stored in self._store.names(FOLDER):
            sid = stored.name.split("/")[1]
            if is_sid(sid):
                latest[sid] = max(latest.get(sid, 0.0), stored.modified_s)
        return latest


def _batches(names: list[PieceName]) -> Iterator[list[PieceName]]:
    """So many that few are in memory at once."""
    for start in range(0, len(names), 4 * READS):
        yield names[start : start + 4 * READS]
