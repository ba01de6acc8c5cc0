"""New messages are refused before the disk is full: receipts, callbacks and received messages still find room."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from trunkline.messaging.outbound import Outbound

LOOK_S = 1.0
"""How often the free space is looked at."""
DISK = "disk: "
"""How the reason begins for which nothing new is taken."""
AGAIN = 1.05
"""New work is taken on again once there is so many times the least free space, so that it does not flap."""

log = logging.getLogger(__name__)


def free_bytes(folder: Path) -> int:
    """Bytes that the file system of a folder has left for this process's user. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class DiskWatch:
    """Sets `outbound.refuse` while `folder` has less than `min_free_bytes` left."""

    def __init__(
        self, folder: Path, min_free_bytes: int, outbound: Outbound, free: Callable[[Path], int] = free_bytes
    ) -> None:
        self._folder = folder
        self._least = min_free_bytes
        self._outbound = outbound
        self._free = free
        self.told: Callable[[str], None] = lambda why: None
        """Told of every change: why nothing new is taken, empty when it is taken again."""

    def look(self) -> None:
        """Decide anew; a folder that cannot be asked changes nothing."""
        try:
            free = self._free(self._folder)
        except OSError:
            log.exception("the free space of %s is not known", self._folder)
            return
        refused = self._outbound.refuse.startswith(DISK)
        if self._outbound.refuse and not refused:
            return  # for another reason, which somebody else sees to
        if free < (self._least * AGAIN if refused else self._least):
            self._outbound.refuse = f"{DISK}{free} bytes free, data.min_free_bytes is {self._least}"
            if not refused:
                log.error("new messages and calls are refused (%s)", self._outbound.refuse)
                self.told(self._outbound.refuse)
        elif refused:
            self._outbound.refuse = ""
            log.warning("new messages and calls are taken again: %d bytes free", free)
            self.told("")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)
