"""What is played, as samples in memory: prompt files, tones and keys, loaded by a thread of their own.

The tick and the commands never touch a file: they ask for a Sound and look later whether it is ready. Prompt files are
never changed in place (their names come from their content), so a loaded one stays good.
"""

import logging
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import numpy as np

from trunkline.media import protocol
from trunkline.media.engine.state import FRAME, RATE, Samples
from trunkline.rtp import dtmf

logger = logging.getLogger(__name__)

CACHE_BYTES: Final = 256 << 20
"""Sounds kept beyond those that are playing."""
MAX_SOUND_BYTES: Final = 512 << 20
"""Longest sound: 9 hours."""
MAX_CYCLE_MS: Final = 60_000
"""Longest cadence of a tone."""
CHUNK_BYTES: Final = 1 << 20
MAX_WAITING: Final = 10_000
"""Sounds that wait to be loaded."""
KEY_LEVEL_DB: Final = -10.0
"""dBm0 of each tone of a key."""
PAUSES_MS: Final = {"w": 500, "W": 1000}
"""Characters of a digit string that are pauses."""


class Sound:
    """Samples that are there when `ready`; `failed` when they never will be. A frame may be read from any position
    below `cycle`: behind it lie the first samples again."""

    __slots__ = ("cycle", "failed", "make", "name", "ready", "samples")

    def __init__(self, name: str, make: Callable[[], Samples]) -> None:
        self.name = name
        self.make: Callable[[], Samples] | None = make
        self.samples: Samples = np.zeros(FRAME, np.int16)
        self.cycle = 0
        self.ready = False
        self.failed = False

    def load(self) -> None:
        """Make it. Called on the loader's thread; `ready` is set last."""
        make, self.make = self.make, None
        if make is None:
            return
        try:
            samples = make()
            room = np.empty(len(samples) + FRAME, np.int16)
            room[: len(samples)] = samples
            if len(samples):
                room[len(samples) :] = np.resize(samples[:FRAME], FRAME)
            self.samples, self.cycle = room, len(samples)
            self.ready = True
        except (OSError, ValueError, MemoryError) as error:
            logger.warning("sound %s: %s", self.name, error)
            self.failed = True


class Sounds:
    """The cache and the loader. `background=False` loads at once (a process that starts; tests)."""

    def __init__(self, *, background: bool = True, cache_bytes: int = CACHE_BYTES) -> None:
        self.background = background
        self._cache_bytes = cache_bytes
        self._known: OrderedDict[str, Sound] = OrderedDict()
        self._waiting: queue.Queue[Sound | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None

    def file(self, path: str) -> Sound:
        """A prepared prompt."""
        return self._get(path, lambda: read_pcm(path))

    def tone(self, tone: protocol.Tone) -> Sound:
        """One cycle of a cadence."""
        return self._get(f"tone:{tone.level_db}:{tone.parts}", lambda: render_tone(tone))

    def keys(self, digits: protocol.Digits) -> Sound:
        """A digit string as tones."""
        return self._get(f"keys:{digits.on_ms}:{digits.off_ms}:{digits.digits}", lambda: render_keys(digits))

    def _get(self, name: str, make: Callable[[], Samples]) -> Sound:
        sound = self._known.get(name)
        if sound is None or sound.failed:
            sound = self._known[name] = Sound(name, make)
            self._load(sound)
            self._trim()
        self._known.move_to_end(name)
        return sound

    def _load(self, sound: Sound) -> None:
        if not self.background:
            sound.load()
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sounds", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(sound)
        except queue.Full:
            sound.failed = True

    def _trim(self) -> None:
        """Forget the longest unused beyond the cache's size; those that play keep theirs."""
        total = sum(sound.samples.nbytes for sound in self._known.values())
        while total > self._cache_bytes and len(self._known) > 1:
            _, sound = self._known.popitem(last=False)
            total -= sound.samples.nbytes

    def _run(self) -> None:
        while (sound := self._waiting.get()) is not None:
            sound.load()

    def close(self) -> None:
        """End the loader."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None


def read_pcm(path: str) -> Samples:
    """A file of headerless 16-bit little-endian PCM. Raises OSError, ValueError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size & ~1
        if size > MAX_SOUND_BYTES:
            raise ValueError(f"{size} bytes are too long")
        data = np.empty(size, np.uint8)
        view, at = data.data, 0
        while at < size:
            got = os.preadv(fd, [view[at : at + CHUNK_BYTES]], at)
            if not got:
                raise ValueError("cut off while it was read")
            at += got
        return data.view("<i2").astype(np.int16, copy=False)
    finally:
        os.close(fd)


def render_tone(tone: protocol.Tone) -> Samples:
    """One cycle. A single part without an end is one second, which every whole frequency divides. Raises ValueError."""
    if sum(ms for _, ms in tone.parts) > MAX_CYCLE_MS:
        raise ValueError("the cadence is too long")
    parts = [(frequencies, ms) for frequencies, ms in tone.parts if ms > 0]
    if not parts and tone.parts:
        parts = [(tone.parts[0][0], 1000)]
    if len(parts) == 1:
        parts = [(parts[0][0], 1000)]
    pieces = [dtmf.tone(tuple(frequencies), ms, tone.level_db) for frequencies, ms in parts]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def render_keys(item: protocol.Digits) -> Samples:
    """A digit string as tones. Raises ValueError for what is no key."""
    pieces = []
    for digit in item.digits:
        if digit in PAUSES_MS:
            pieces.append(_silence(PAUSES_MS[digit]))
        else:
            pieces += [dtmf.key(digit, item.on_ms, KEY_LEVEL_DB), _silence(item.off_ms)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def _silence(ms: int) -> Samples:
    return np.zeros(ms * RATE // 1000, np.int16)
