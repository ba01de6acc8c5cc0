"""Media and recordings in the object store: the interface of `FolderBlobs`, seen by every node.

What comes in pieces is first gathered in a local draft, so that its size is known before anything is uploaded and an
upload can be repeated. `stored_bytes` is what was counted last (at the start, and every MEASURE_S) and what this node
has done since; other nodes' work is seen with the next count, so the total may be exceeded by what they store between.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from trunkline.model.sid import is_sid, new_key
from trunkline.storage.blobs import (
    CHUNK_BYTES,
    MAX_BLOB_BYTES,
    MAX_TOTAL_BYTES,
    STALE_DRAFT_S,
    BlobsFull,
    BlobTooLarge,
)
from trunkline.storage.objects import AsyncObjects, ObjectsUnavailable
from trunkline.storage.survives import Survives

MEASURE_S = 3600.0
"""Between two counts of all that is stored (a listing)."""
READ_BYTES = 4 * CHUNK_BYTES
"""Bytes of one request of `stream`."""

log = logging.getLogger(__name__)


class _Taken:
    """Bytes that one put has counted."""

    size = 0


class ObjectBlobs:
    """A `BlobStore` in a folder of the object store. `max_bytes` bounds one blob, `max_total_bytes` all of the
    cluster; `drafts` is a local folder. Raises ObjectsUnavailable, where the store cannot be reached."""

    def __init__(
        self,
        objects: AsyncObjects,
        folder: str,
        drafts: Path,
        max_bytes: int = MAX_BLOB_BYTES,
        max_total_bytes: int = MAX_TOTAL_BYTES,
        survives: Survives = Survives.HOST,
    ) -> None:
        self.survives = survives
        self._objects = objects
        self._folder = folder
        self._drafts = drafts
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self.stored_bytes = 0
        """Of all blobs, as far as this node knows."""
        self._measured_at = float("-inf")
        drafts.mkdir(parents=True, exist_ok=True)

    def _name(self, sid: str) -> str:
        if not is_sid(sid):
            raise ValueError("a blob's name must be a SID")
        return f"{self._folder}/{sid[2:6]}/{sid[6:8]}/{sid}"

    async def put(self, sid: str, content: bytes | AsyncIterable[bytes]) -> int:
        """See `BlobStore.put`."""
        name = self._name(sid)
        draft = self._drafts / new_key()
        taken = _Taken()
        try:
            if isinstance(content, bytes):
                self._take(taken, len(content))
                await self._upload(name, content)
            else:
                await self._gather(draft, content, taken)
                await self._upload(name, draft)
        except BaseException:
            self.stored_bytes -= taken.size
            raise
        finally:
            await asyncio.to_thread(draft.unlink, True)
        return taken.size

    async def _gather(self, draft: Path, content: AsyncIterable[bytes], taken: "_Taken") -> None:
        file: BinaryIO = await asyncio.to_thread(open, draft, "xb")
        try:
            async for chunk in content:
                self._take(taken, len(chunk))
                await asyncio.to_thread(file.write, chunk)
        finally:
            await asyncio.to_thread(file.close)

    def _take(self, taken: "_Taken", added: int) -> None:
        """Count bytes before they are kept, so that puts at once cannot pass the bound together."""
        if taken.size + added > self._max_bytes:
            raise BlobTooLarge(f"a blob may have {self._max_bytes} bytes")
        if self.stored_bytes + added > self._max_total_bytes:
            raise BlobsFull(f"all blobs together may have {self._max_total_bytes} bytes")
        taken.size += added
        self.stored_bytes += added

    async def _upload(self, name: str, content: bytes | Path) -> None:
        objects = self._objects
        replaced = await objects.run(objects.objects.size, name) or 0
        await objects.run(objects.objects.write, name, content)
        self.stored_bytes -= replaced

    async def get(self, sid: str) -> bytes | None:
        """See `BlobStore.get`."""
        return await self._objects.run(self._objects.objects.read, self._name(sid))

    async def stream(self, sid: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `BlobStore.stream`. A blob that is deleted meanwhile ends early."""
        name = self._name(sid)
        size = await self._objects.run(self._objects.objects.size, name)
        if size is None:
            return
        end = size if length is None else min(size, start + length)
        for at in range(start, end, READ_BYTES):
            try:
                yield await self._objects.run(self._objects.objects.read_part, name, at, min(READ_BYTES, end - at))
            except FileNotFoundError:
                return

    async def size(self, sid: str) -> int | None:
        """See `BlobStore.size`."""
        return await self._objects.run(self._objects.objects.size, self._name(sid))

    async def delete(self, sid: str) -> bool:
        """See `BlobStore.delete`."""
        name = self._name(sid)
        size = await self._objects.run(self._objects.objects.size, name)
        if size is None:
            return False
        await self._objects.run(self._objects.objects.remove, name)
        self.stored_bytes = max(0, self.stored_bytes - size)
        return True

    async def measure(self) -> int:
        """Count what is stored; while the store cannot be reached, what was known stays (and is logged there)."""
        self._measured_at = time.monotonic()
        with suppress(ObjectsUnavailable):
            self.stored_bytes = await self._objects.run(self._count)
        return self.stored_bytes

    def _count(self) -> int:
        return sum(one.size for one in self._objects.objects.names(self._folder))

    async def sweep(self, now_s: float) -> int:
        """Remove drafts that a crash left behind, and count anew from time to time; returns how many drafts."""
        removed = await asyncio.to_thread(self._sweep, now_s)
        if time.monotonic() - self._measured_at >= MEASURE_S:
            await self.measure()
        return removed

    def _sweep(self, now_s: float) -> int:
        removed = 0
        for draft in self._drafts.iterdir():
            if draft.stat().st_mtime < now_s - STALE_DRAFT_S:
                draft.unlink(missing_ok=True)
                removed += 1
        return removed
