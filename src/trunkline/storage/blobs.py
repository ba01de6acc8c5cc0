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
STALE_DRAFT_S = 24 * 3600
"""Age at which a draft that a crash left behind is removed."""
_DRAFTS = "drafts"


class BlobTooLarge(Exception):
    """More bytes came than a blob may have; nothing was kept."""


class BlobStore(Protocol):
    """Names are SIDs; anything else raises ValueError."""

    survives: Survives

    def put(self, sid: str, content: bytes | AsyncIterable[bytes]) -> Awaitable[int]:
        """Keep a blob, replacing one of the same name; returns its size in bytes. Raises BlobTooLarge."""

    def get(self, sid: str) -> Awaitable[bytes | None]:
        """The whole blob, or None."""

    def stream(self, sid: str) -> AsyncIterator[bytes]:
        """The blob in chunks; none at all when it is not there."""

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


class FolderBlobs:
    """A `BlobStore` in a folder of a local disk."""

    survives = Survives.POWER

    def __init__(self, path: Path, max_bytes: int = MAX_BLOB_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
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
            await asyncio.to_thread(self._keep, file, draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return size

    async def _append(self, file: BinaryIO, chunk: bytes, size: int) -> int:
        size += len(chunk)
        if size > self._max_bytes:
            raise BlobTooLarge(f"a blob may have {self._max_bytes} bytes")
        await asyncio.to_thread(file.write, chunk)
        return size

    def _keep(self, file: BinaryIO, draft: Path, target: Path) -> None:
        """Sync the draft and move it to its place; every new folder's entry is synced in its parent."""
        with file:
            file.flush()
            os.fsync(file.fileno())
        for folder in (target.parent.parent, target.parent):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                _sync_folder(folder.parent)
        os.replace(draft, target)
        _sync_folder(target.parent)

    async def get(self, sid: str) -> bytes | None:
        """See `BlobStore.get`."""
        try:
            return await asyncio.to_thread(self._file(sid).read_bytes)
        except FileNotFoundError:
            return None

    async def stream(self, sid: str) -> AsyncIterator[bytes]:
        """See `BlobStore.stream`. A blob that is deleted meanwhile is read to its end."""
        path = self._file(sid)
        try:
            file = await asyncio.to_thread(open, path, "rb")
        except FileNotFoundError:
            return
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
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
        return await asyncio.to_thread(self._remove, self._file(sid))

    def _remove(self, path: Path) -> bool:
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        _sync_folder(path.parent)
        return True

    async def sweep(self, now_s: float) -> int:
        """Remove drafts that a crash left behind; returns how many."""
        return await asyncio.to_thread(self._sweep, now_s)

    def _sweep(self, now_s: float) -> int:
        removed = 0
        for draft in self._drafts.iterdir():
            if draft.stat().st_mtime < now_s - STALE_DRAFT_S:
                draft.unlink(missing_ok=True)
                removed += 1
        return removed
