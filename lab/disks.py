"""File systems of the hosts' own: images on loop devices, which can be full, and can lose what was never synced."""

import os
import shutil
from pathlib import Path

from lab.made import Made
from lab.system import run

IMAGE_BYTES = 1 << 30
"""Sparse: takes what is written."""
SPARE_BYTES = 64 * 1024
"""Left free on a full disk: less than any engine needs for its next segment."""
BALLAST = "ballast"
"""Name of the file that fills a disk."""


class Disk:
    """A mounted ext4 image. `folder` is the mount point."""

    def __init__(self, image: Path, folder: Path, made: Made) -> None:
        self.image = image
        self.folder = folder
        self._made = made

    def make(self) -> None:
        """Make and mount it. Raises Failed."""
        self.image.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
        self._made.note("mount", self.folder)
        run("mount", "-o", "loop", self.image, self.folder)

    def copy(self) -> Path:
        """What lies on the image now: what was synced, and nothing of the kernel's cache. Raises Failed."""
        survived = self.image.with_suffix(".survived")
        run("cp", "--sparse=always", self.image, survived)
        return survived

    def swap(self, survived: Path) -> None:
        """Go on with a copy; nothing may run on it. Raises Failed."""
        run("umount", self.folder)
        survived.replace(self.image)
        run("mount", "-o", "loop", self.image, self.folder)

    def fill(self) -> None:
        """Leave next to no room. Raises Failed."""
        free = shutil.disk_usage(self.folder).free - SPARE_BYTES
        if free > 0:
            run("fallocate", "-l", free, self.folder / BALLAST)

    def drain(self) -> None:
        """Give the room back."""
        (self.folder / BALLAST).unlink(missing_ok=True)
        os.sync()
