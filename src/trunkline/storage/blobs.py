"""Large immutable bytes (media files) under their SID, in folders.

A blob is there whole or not at all: it is written beside its place, synced, renamed, and its folder synced, before
`put` returns. Folders are made of the first digits of the SID's key, which is its creation time: one folder of the
second level holds 4.6 hours of blobs. All file work runs in threads.
"""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from pathlib import Path
from typing import BinaryIO, Protocol

from trunkline.model.sid import is_sid, new_key
from trunkline.storage.survives import Survives

CHUNK_BYTES = 256 * 1024
"""Bytes read at once by `stream`."""
MAX_BLOB_BYTES = 512 * 1024 * 1024
"""Largest blob; callers set smaller limits of their own."""
MAX_TOTAL_BYTES = 1 << 40
"""All blobs together; callers set smaller limits of their own."""
STALE_DRAFT_S = 24 * 3600
"""Age at which a draft that a crash left behind is removed."""
_DRAFTS = "drafts"
_NO_END = 1 << 62


class BlobTooLarge(Exception):
    """More bytes came than a blob may have; nothing was kept."""


class BlobsFull(Exception):
    """All blobs together have as many bytes as they may have; nothing was kept."""


class BlobStore(Protocol):
    """Names are SIDs; anything else raises ValueError."""

    survives: Survives

    def put(self, sid: str, content: bytes | AsyncIterable[bytes]) -> Awaitable[int]:
        """Keep a blob, replacing one of the same name; returns its size in bytes. Raises BlobTooLarge, BlobsFull."""

    def get(self, sid: str) -> Awaitable[bytes | None]:
        """The whole blob, or None."""

    def stream(self, sid: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The blob, or `length` bytes of it from `start` on, in chunks; none at all when it is not there."""

    def size(self, sid: str) -> Awaitable[int | None]:
        """Its size in bytes, or None."""

    def delete(self, sid: str) -> Awaitable[bool]:
        """Remove it; False when it was not there."""


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    """Bytes of a file; 0: it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class FolderBlobs:
    """A `BlobStore` in a folder of a local disk. `max_bytes` bounds one blob, `max_total_bytes` all of them."""

    survives = Survives.POWER

    def __init__(self, path: Path, max_bytes: int = MAX_BLOB_BYTES, max_total_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self.stored_bytes = 0
        """Of all blobs and drafts; right from the first `measure` on."""
        self._drafts = path / _DRAFTS
        self._drafts.mkdir(parents=True, exist_ok=True)

    def _file(self, sid: str) -> Path:
        if not is_sid(sid):
            raise ValueError("a blob's name must be a SID")
        return self._path / sid[2:6] / sid[6:8] / sid

    async def put(self, sid: str, content: bytes | AsyncIterable[bytes]) -> int:
        """See `BlobStore.put`."""
        target = self._file(sid)
        draft = self._drafts / new_key()
        file = await asyncio.to_thread(open, draft, "xb")
        size = 0
        try:
            try:
                if isinstance(content, bytes):
                    size = await self._append(file, content, size)
                else:
                    async for chunk in content:
                        size = await self._append(file, chunk, size)
            except BaseException:
                await asyncio.to_thread(file.close)
                raise
            self.stored_bytes -= await asyncio.to_thread(self._keep, file, draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            self.stored_bytes -= size
            raise
        return size

    async def _append(self, file: BinaryIO, chunk: bytes, size: int) -> int:
        added = len(chunk)
        if size + added > self._max_bytes:
            raise BlobTooLarge(f"a blob may have {self._max_bytes} bytes")
        if self.stored_bytes + added > self._max_total_bytes:
            raise BlobsFull(f"all blobs together may have {self._max_total_bytes} bytes")
        self.stored_bytes += added
        try:
            await asyncio.to_thread(file.write, chunk)
        except BaseException:
            self.stored_bytes -= added
            raise
        return size + added

    def _keep(self, file: BinaryIO, draft: Path, target: Path) -> int:
        """Sync the draft and move it to its place; every new folder's entry is synced in its parent. Returns the bytes
        of what it replaced."""
        with file:
            file.flush()
            os.fsync(file.fileno())
        for folder in (target.parent.parent, target.parent):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                _sync_folder(folder.parent)
        replaced = _size(target)
        os.replace(draft, target)
        _sync_folder(target.parent)
        return replaced

    async def get(self, sid: str) -> bytes | None:
        """See `BlobStore.get`."""
        try:
            return await asyncio.to_thread(self._file(sid).read_bytes)
        except FileNotFoundError:
            return None

    async def stream(self, sid: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `BlobStore.stream`. A blob that is deleted meanwhile is read to its end."""
        path = self._file(sid)
        try:
            file = await asyncio.to_thread(open, path, "rb")
        except FileNotFoundError:
            return
        left = _NO_END if length is None else length
        try:
            file.seek(start)
            while left > 0 and (chunk := await asyncio.to_thread(file.read, min(left, CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk
        finally:
            file.close()

    async def size(self, sid: str) -> int | None:
        """See `BlobStore.size`."""
        try:
            return (await asyncio.to_thread(self._file(sid).stat)).st_size
        except FileNotFoundError:
            return None

    async def delete(self, sid: str) -> bool:
        """See `BlobStore.delete`."""
        removed = await asyncio.to_thread(self._remove, self._file(sid))
        if removed is None:
            return False
        self.stored_bytes -= removed
        return True

    def _remove(self, path: Path) -> int | None:
        """Bytes that were removed; None: nothing was there."""
        size = _size(path)
        try:
            path.unlink()
        except FileNotFoundError:
            return None
        _sync_folder(path.parent)
        return size

    async def measure(self) -> int:
        """Count the bytes that lie in the folder, before anything is put or deleted."""
        self.stored_bytes = await asyncio.to_thread(_bytes_in, self._path)
        return self.stored_bytes

    async def sweep(self, now_s: float) -> int:
        """Remove drafts that a crash left behind; returns how many."""
        sizes = await asyncio.to_thread(self._sweep, now_s)
        self.stored_bytes -= sum(sizes)
        return len(sizes)

    def _sweep(self, now_s: float) -> list[int]:
        """Bytes of each removed draft."""
        sizes = []
        for draft in self._drafts.iterdir():
            found = draft.stat()
            if found.st_mtime < now_s - STALE_DRAFT_S:
                draft.unlink(missing_ok=True)
                sizes.append(found.st_size)
        return sizes


def _bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder and those in it."""
    total, left = 0, [os.fspath(folder)]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
