"""The segment files as the archive's worker processes see them: in a folder, or in an object store behind a folder.

Theory of the cache. A segment never changes, so a copy is as good as the object. What is read is fetched whole, once,
into the folder, under a name that ends in `.parquet` only when it is complete. When the folder holds more than
`cache_bytes`, the files that were not used for longest go, but none that somebody holds: `held` keeps a shared lock
(flock) on each file for as long as its paths are in use, and who removes one must have it alone. Whoever opens a file
without holding it may find it gone, and looks again (FileNotFoundError, as after a compaction).

An object that is no longer in the manifest stays for a while (`trunkline.postflight.archive.DROP_GRACE_MS`), for
readers of an older manifest.
"""

import fcntl
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trunkline.postflight.names import SUFFIX, UNFINISHED
from trunkline.storage.manifest import Segment
from trunkline.storage.objects import Location, Objects, ObjectsUnavailable

FOLDER = "segments"
"""Of the segments in the object store."""
TOUCH_S = 60.0
"""How exactly a file's last use is known."""
YOUNG_S = 600.0
"""Files of this age are not swept from the cache: they may be about to be recorded."""


class CacheTooSmall(ValueError):
    """What is asked for needs more segments at once than the cache may hold."""


class Files:
    """Segments in a folder, and nowhere else."""

    shared = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where a segment can be opened now. Raises FileNotFoundError (perhaps only when it is opened)."""
        return self.folder / name

    @contextmanager
    def held(self, segments: Sequence[Segment]) -> Iterator[list[Path]]:
        """The paths of segments, which stay there meanwhile."""
        yield [self.path(segment.path) for segment in segments]

    def publish(self, name: str) -> None:
        """A file of the folder is complete: make it be there for everybody."""

    def remove(self, names: Sequence[str]) -> None:
        """Files that no manifest names and nobody can be reading."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def orphans(self, named: Collection[str], older_s: float) -> int:
        """Remove objects that no manifest names, if they are that old; how many."""
        return 0


class SharedFiles(Files):
    """Segments in an object store, with a bounded cache in a folder. Raises ObjectsUnavailable."""

    shared = True

    def __init__(self, folder: Path, objects: Objects, cache_bytes: int) -> None:
        super().__init__(folder)
        self._objects = objects
        self._cache_bytes = cache_bytes

    def path(self, name: str) -> Path:
        path = self.folder / name
        try:
            found = path.stat()
        except FileNotFoundError:
            self._fetch(name, path)
            return path
        now = time.time()
        if found.st_mtime < now - TOUCH_S:
            try:
                os.utime(path, (now, now))
            except FileNotFoundError:
                self._fetch(name, path)
        return path

    def _fetch(self, name: str, path: Path) -> None:
        draft = self.folder / f"{name}.{os.getpid()}-{time.monotonic_ns()}{UNFINISHED}"
        try:
            self._objects.fetch(f"{FOLDER}/{name}", draft)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)
        self._trim(keep=name)

    @contextmanager
    def held(self, segments: Sequence[Segment]) -> Iterator[list[Path]]:
        """Raises CacheTooSmall."""
        total = sum(segment.size for segment in segments)
        if total > self._cache_bytes:
            raise CacheTooSmall(
                f"this reads {total} bytes of segments, and objects.cache_bytes is {self._cache_bytes}:"
                " raise it, or ask for fewer accounts or a shorter time"
            )
        with ExitStack() as stack:
            yield [self._hold(segment.path, stack) for segment in segments]

    def _hold(self, name: str, stack: ExitStack) -> Path:
        """Lock a file against removal; it may go while we wait for that, so look again."""
        while True:
            path = self.path(name)
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            fcntl.flock(handle, fcntl.LOCK_SH)
            if os.fstat(handle).st_nlink:
                stack.callback(os.close, handle)
                return path
            os.close(handle)

    def _trim(self, keep: str) -> None:
        """Remove what was not used for longest, until the rest fits."""
        files = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(SUFFIX):
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    continue
                files.append((found.st_mtime, found.st_size, entry.name))
        total = sum(size for _, size, _ in files)
        for _, size, name in sorted(files):
            if total <= self._cache_bytes:
                return
            if name != keep and self._evict(name):
                total -= size

    def _evict(self, name: str) -> bool:
        try:
            handle = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            (self.folder / name).unlink(missing_ok=True)
            return True
        finally:
            os.close(handle)

    def publish(self, name: str) -> None:
        """Upload it; what cannot be uploaded is removed here, too."""
        path = self.folder / name
        try:
            size = path.stat().st_size
            self._objects.write(f"{FOLDER}/{name}", path)
            if self._objects.size(f"{FOLDER}/{name}") != size:
                raise ObjectsUnavailable(f"the object store has another size for {name} than was written")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._trim(keep=name)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._objects.remove(f"{FOLDER}/{name}")
            self._evict(name)

    def orphans(self, named: Collection[str], older_s: float) -> int:
        before_s, removed = time.time() - older_s, 0
        for one in self._objects.names(FOLDER):
            if one.modified_s < before_s and one.name.rpartition("/")[2] not in named:
                self._objects.remove(one.name)
                removed += 1
        return removed


def open_files(folder: Path, location: Location | None, cache_bytes: int) -> Files:
    """The files of an archive. Raises StoreUnavailable without the driver."""
    return Files(folder) if location is None else SharedFiles(folder, Objects(location), cache_bytes)


def files_of(where: Files | Path) -> Files:
    """The files, or those of a plain folder."""
    return where if isinstance(where, Files) else Files(where)
