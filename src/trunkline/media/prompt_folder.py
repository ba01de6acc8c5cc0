"""The folder of prepared prompts: what is there, how long each is, and which go when there are too many."""

import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from trunkline.media.wav import SAMPLE_BYTES, SAMPLES_PER_MS

SUFFIX: Final = ".pcm"
GRACE_S: Final = 300.0
"""Seconds after it was given out for which a file is not removed: a leg may be about to open it."""
TOUCH_S: Final = 60.0
"""Seconds between two notes of a file's use in its time stamp (the order of use outlives a restart)."""


class Entry(msgspec.Struct):
    """One prompt. Times are of the monotonic clock."""

    size: int
    ms: int
    used_at: float
    touched_at: float
    warning: str = ""
    holds: int = 0


class PromptFolder:
    """See the module. `max_bytes` bounds all files together. Nothing here waits but for the file system."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # least recently used first
        self.total = 0
        """Bytes of all files."""

    def open(self) -> None:
        """Read the folder, drop what a crash left behind and what is too much. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found: list[tuple[float, str, int]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(".draft"):
                    os.unlink(entry.path)
                elif entry.name.endswith(SUFFIX) and entry.is_file():
                    stat = entry.stat()
                    if stat.st_size:
                        found.append((stat.st_mtime, entry.name.removesuffix(SUFFIX), stat.st_size))
                    else:  # files are not synced: a power cut may leave the name alone
                        os.unlink(entry.path)
        long_ago = time.monotonic() - GRACE_S
        for _, name, size in sorted(found):
            self._entries[name] = Entry(size, size // SAMPLE_BYTES // SAMPLES_PER_MS, long_ago, long_ago)
            self.total += size
        self._make_room(0)

    def path(self, name: str) -> Path:
        """Where a prompt is, or would be."""
        return self._folder / (name if name.endswith(".draft") else f"{name}{SUFFIX}")

    def use(self, name: str) -> Entry | None:
        """A prompt that is there, counted as used now."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        now = time.monotonic()
        if now - entry.touched_at > TOUCH_S:
            try:
                os.utime(self.path(name))
            except OSError:  # somebody removed it
                self._forget(name)
                return None
            entry.touched_at = now
        entry.used_at = now
        self._entries.move_to_end(name)
        return entry

    def add(self, name: str, size: int, warning: str = "") -> Entry | None:
        """Take in a file that was written at `path(name)`. None, and it is gone, when there is no room for it."""
        self._forget(name)
        if not self._make_room(size):
            self.path(name).unlink(missing_ok=True)
            return None
        now = time.monotonic()
        entry = Entry(size, size // SAMPLE_BYTES // SAMPLES_PER_MS, now, now, warning)
        self._entries[name] = entry
        self.total += size
        return entry

    def hold(self, name: str) -> None:
        """Do not remove it until as many `let_go`."""
        if (entry := self._entries.get(name)) is not None:
            entry.holds += 1

    def let_go(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is not None and entry.holds:
            entry.holds -= 1

    def _forget(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self.total -= entry.size

    def _make_room(self, size: int) -> bool:
        """Remove the least recently used until `size` bytes more fit. False: they cannot."""
        if self.total + size <= self._max_bytes:
            return True
        before = time.monotonic() - GRACE_S
        for name in list(self._entries):
            entry = self._entries[name]
            if entry.used_at > before:
                break  # all later ones were used later
            if not entry.holds:
                with suppress(FileNotFoundError):
                    os.unlink(self.path(name))
                self._forget(name)
                if self.total + size <= self._max_bytes:
                    return True
        return self.total + size <= self._max_bytes
