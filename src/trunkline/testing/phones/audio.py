"""Audio that phones say and listen for: texts spoken by the server's own engine, files, tones; made once and kept."""

import asyncio
import itertools
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from trunkline.media.worker_client import WorkerFailed, Workers
from trunkline.media.worker_wire import AUDIO, SPEECH, Setup
from trunkline.testing.phones.heard import Samples
from trunkline.testing.phones.things import Audio, File, Silence, Spoken
from trunkline.testing.phones.tones import sine

MAX_KEPT: Final = 500
"""Spoken texts and files kept in memory, the longest unused leave first."""
WORKER_MEMORY: Final = 1024 * 1024 * 1024
"""Bytes of address space of each worker."""


class NoAudio(Exception):
    """The text cannot be spoken, or the file not be read."""


class Studio(Protocol):
    """Makes samples of what is to be said or heard."""

    async def samples(self, what: Audio) -> Samples:
        """Raises NoAudio."""


class SpeechStudio:
    """The studio that phones have: speech and files by the media workers of the server (see trunkline.media)."""

    def __init__(self, engine: str = "auto") -> None:
        """`engine`: settings.speech.engine, the server's own, so that texts sound the same."""
        self._speech = Workers(Setup(role=SPEECH, memory_bytes=WORKER_MEMORY, engine=engine))
        self._files = Workers(Setup(role=AUDIO, memory_bytes=WORKER_MEMORY))
        self._kept: OrderedDict[tuple[str, ...], Samples] = OrderedDict()
        self._folder = tempfile.TemporaryDirectory(prefix="trunkline-phones-")
        self._names = itertools.count()
        """Of files in it: two calls may want the same at once, and each removes its own."""

    async def samples(self, what: Audio) -> Samples:
        """See `Studio`."""
        if isinstance(what, Silence):
            return sine((), what.ms)
        if not isinstance(what, Spoken | File):
            return sine(what.frequencies, what.ms, what.level_db)
        key = self._key(what)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = await self._make(what)
        self._kept.move_to_end(key)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found

    def _key(self, what: Spoken | File) -> tuple[str, ...]:
        if isinstance(what, Spoken):
            return what.text, what.voice, what.language
        try:
            found = Path(what.path).stat()
        except (OSError, ValueError) as error:
            raise NoAudio(f"{what.path}: {error}") from None
        return "file", what.path, str(found.st_mtime_ns), str(found.st_size)

    async def _make(self, what: Spoken | File) -> Samples:
        target = Path(self._folder.name) / str(next(self._names))
        try:
            if isinstance(what, Spoken):
                await self._speech.call(
                    "speak", text=what.text, target=str(target), voice=what.voice, language=what.language
                )
            else:
                await self._files.call("decode", source=what.path, target=str(target))
            octets = await asyncio.to_thread(target.read_bytes)
            await asyncio.to_thread(target.unlink)
        except (WorkerFailed, OSError) as error:
            raise NoAudio(str(error)) from error
        return np.frombuffer(octets[: len(octets) & ~1], np.int16)

    async def close(self) -> None:
        """End the workers."""
        await asyncio.gather(self._speech.close(), self._files.close())
        self._folder.cleanup()
