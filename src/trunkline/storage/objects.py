"""The object store: whole files under names, seen by every node. S3, a shared folder, or memory (tests), by `obstore`.

An object is there whole or not at all: S3 shows an upload when it is complete, in a folder it is written beside its
place, renamed and (here) synced. Nothing here keeps an index: what belongs together is listed in the database.

All calls block; `obstore` gives the GIL back meanwhile. After a failure the store is left alone for REST_S, so that
a store that is away does not hold up every read for its whole timeout.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from trunkline.storage.unavailable import StoreUnavailable

T = TypeVar("T")

CONNECT_S = 3
TIMEOUT_S = 60
"""Longest single request; big objects go in several."""
RETRIES = 2
RETRY_S = 15
"""No request is begun again after so many seconds."""
PART_BYTES = 8 << 20
"""Bytes of one request for a part of a big object."""
REST_S = 2.0
"""After a failure the store is not asked for so long."""
THREADS = 8
"""Requests at once from the event loop."""
DEFAULT_REGION = "us-east-1"
PROBE = "probe"
"""Folder of what `probe` writes."""

log = logging.getLogger(__name__)


class ObjectsUnavailable(StoreUnavailable):
    """The object store cannot be reached or refuses; the text is one line for the operator."""


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """Where objects are; it may hold keys: never shown, never on a command line."""

    url: str
    region: str = ""
    access_key: str = ""
    secret_key: str = ""
    endpoint: str = ""
    prefix: str = ""

    def __repr__(self) -> str:
        return f"Location({self.url!r})"


class Stored(msgspec.Struct, frozen=True):
    """An object, as it is listed."""

    name: str
    size: int
    modified_s: float
    """Unix seconds."""


def _obstore() -> Any:
    """Imported late: it is there only where it was asked for. Raises StoreUnavailable."""
    try:
        import obstore
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise StoreUnavailable('objects.url needs its driver: pip install "trunkline[cluster]"') from None
    return obstore


_memories: dict[str, Any] = {}


def _open(location: Location, base: str) -> tuple[Any, Path | None]:
    """The store of a location, and its folder if it is one."""
    obstore = _obstore()
    parts = urlsplit(location.url)
    if parts.scheme == "file":
        folder = Path(parts.path)
        if not folder.is_dir():  # never made here: where nothing is mounted would be an empty store
            raise OSError(f"the folder {folder} is not there")
        root = folder / base
        root.mkdir(parents=True, exist_ok=True)
        return obstore.store.LocalStore(root), root
    if parts.scheme == "memory":
        return _memories.setdefault(location.url + base, obstore.store.MemoryStore()), None
    if parts.scheme != "s3":
        raise StoreUnavailable("objects.url is not s3://, file:// or memory://")
    config: dict[str, Any] = {"region": location.region or DEFAULT_REGION}
    if location.access_key:
        config |= {"access_key_id": location.access_key, "secret_access_key": location.secret_key}
    if location.endpoint:
        config |= {"endpoint": location.endpoint.rstrip("/"), "virtual_hosted_style_request": False}
    return obstore.store.S3Store(
        parts.netloc,
        prefix="/".join(part for part in (parts.path.strip("/"), base) if part) or None,
        **config,
        client_options={
            "connect_timeout": f"{CONNECT_S}s",
            "timeout": f"{TIMEOUT_S}s",
            "allow_http": location.endpoint.startswith("http://"),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
    ), None


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}"


class Objects:
    """The objects of one location. Raises ObjectsUnavailable; may be called from several threads."""

    def __init__(self, location: Location) -> None:
        """Asks nothing of the store yet. Raises StoreUnavailable without its driver."""
        self._location = location
        self._api = _obstore()
        self._lock = threading.Lock()
        self._store: Any = None
        self._root: Path | None = None
        self.failed = ""
        """Why the last request failed; empty while all is well."""
        self._rest_until = 0.0

    def __repr__(self) -> str:
        return f"Objects({self._location.url!r})"

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        """The store, for one request. FileNotFoundError passes."""
        if time.monotonic() < self._rest_until:
            raise ObjectsUnavailable(self.failed)
        try:
            if self._store is None:
                with self._lock:
                    self._store, self._root = _open(self._location, self._location.prefix.strip("/"))
            if self._root is not None and not self._root.is_dir():
                raise OSError(f"the folder {self._root} is not there")
            yield self._store
        except FileNotFoundError:
            self._well()
            raise
        except (self._api.exceptions.BaseError, OSError, ValueError) as error:
            if isinstance(error, self._api.exceptions.AlreadyExistsError):
                raise
            if not self.failed:
                log.error("the object store cannot be used: %s", _line(error))
            self.failed = f"the object store cannot be used: {_line(error)}"
            self._rest_until = time.monotonic() + REST_S
            raise ObjectsUnavailable(self.failed) from error
        else:
            self._well()

    def _well(self) -> None:
        if self.failed:
            log.warning("the object store can be used again")
        self.failed = ""

    def write(self, name: str, content: bytes | Path, *, new: bool = False) -> bool:
        """Keep an object, durable on return; with `new` only if there is none of that name. Returns whether it was
        written."""
        with self._asking() as store:
            try:
                if new:
                    data = content if isinstance(content, bytes) else content.read_bytes()
                    self._api.put(store, name, data, mode="create", use_multipart=False)
                else:
                    self._api.put(store, name, content, chunk_size=PART_BYTES, max_concurrency=2)
            except self._api.exceptions.AlreadyExistsError:
                return False
            except FileNotFoundError:
                if isinstance(content, Path) and not content.exists():
                    raise
                place = self._location.url.partition("://")[2]
                raise OSError(f"{place} is not there: make it, or check objects.url and objects.endpoint") from None
            if self._root is not None:
                _sync(self._root / name, self._root)
        return True

    def read(self, name: str) -> bytes | None:
        """A whole object; None: there is none."""
        try:
            with self._asking() as store:
                return bytes(self._api.get(store, name).bytes())
        except FileNotFoundError:
            return None

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, which must be there. Raises FileNotFoundError."""
        with self._asking() as store:
            return bytes(self._api.get_range(store, name, start=start, length=length))

    def size(self, name: str) -> int | None:
        """Its bytes; None: there is none."""
        try:
            with self._asking() as store:
                return int(self._api.head(store, name)["size"])
        except FileNotFoundError:
            return None

    def fetch(self, name: str, target: Path) -> None:
        """Copy an object into a file, part by part. Raises FileNotFoundError, OSError of the file."""
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(name)
        with target.open("wb") as file:
            for start in range(0, size, PART_BYTES):
                file.write(self.read_part(name, start, min(PART_BYTES, size - start)))

    def remove(self, name: str) -> None:
        """It is not there afterwards."""
        try:
            with self._asking() as store:
                self._api.delete(store, name)
        except FileNotFoundError:
            return

    def names(self, prefix: str) -> Iterator[Stored]:
        """What lies below a folder, in no promised order."""
        pages: Any = None
        while True:
            with self._asking() as store:
                pages = pages if pages is not None else iter(self._api.list(store, prefix.strip("/")))
                page = next(pages, None)
            if page is None:
                return
            for one in page:
                yield Stored(one["path"], int(one["size"]), one["last_modified"].timestamp())

    def probe(self, token: str) -> str:
        """Write, read, and remove an object under a name made of `token`; says what was tried, in one line. Raises
        ObjectsUnavailable also where a conditional write does not hold."""
        name = f"{PROBE}/{token}"
        first = self.write(name, token.encode(), new=True)
        again = self.write(name, b"other", new=True)
        found = self.read(name)
        self.remove(name)
        if not first or again or found != token.encode():
            raise ObjectsUnavailable("the object store does not keep conditional writes (If-None-Match)")
        where = self._location.endpoint or self._location.url.partition("://")[0]
        return f"{self._location.url} ({where}): written, read, refused to overwrite, removed"


def _sync(path: Path, root: Path) -> None:
    """Make a file of a shared folder durable, with the folders above it."""
    for one in (path, *path.parents):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if one == root:
            return


class AsyncObjects:
    """The same from the event loop, in threads of its own: a store that hangs holds up nobody else's threads."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._threads = ThreadPoolExecutor(THREADS, "objects")

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking call."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def close(self) -> None:
        """End the threads once their requests have ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)
