"""The stores, opened: by the server, and by the command line beside it. The settings say which engine keeps them."""

import fcntl
import importlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.model.clock import Clock, SystemClock
from trunkline.model.sid import new_key
from trunkline.postflight.archive import ArchiveLimits, SegmentedArchive
from trunkline.settings import Settings
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.engines.journal.memory import JournalStore, peek
from trunkline.storage.engines.sqlite.archive import SqliteRecent
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.engines.sqlite.pivots import SqliteBench
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.engines.sqlite.writer import compact_file
from trunkline.storage.object_blobs import ObjectBlobs
from trunkline.storage.objects import AsyncObjects, Location, Objects
from trunkline.storage.secrets import Secrets, has_own_keys, load_secrets, rotate_key_file
from trunkline.storage.sharded import ShardedQueue
from trunkline.storage.survives import CannotSurvive, Survives
from trunkline.storage.unavailable import StoreUnavailable

if TYPE_CHECKING:
    from trunkline.storage.engines.postgres.database import PostgresDatabase
    from trunkline.storage.engines.postgres.pivots import PostgresBench
    from trunkline.storage.engines.postgres.queue import PostgresQueue
    from trunkline.storage.engines.postgres.recent import PostgresRecent
    from trunkline.storage.engines.valkey.memory import ValkeyStore

QUEUE_FILE = "queue.db"
DATABASE_FILE = "database.db"
ARCHIVE_FILE = "archive.db"
SEGMENT_FOLDER = "segments"
SEGMENT_CACHE = "segment-cache"
BLOB_DRAFTS = "blob-drafts"
MEDIA_FOLDER = "media"
RECORDING_FOLDER = "recordings"
LOCK_FILE = "server.lock"
MEMORY_FILE = "memory.journal"
FOLLOWED_MS = 24 * 3_600_000
"""So far behind may a region be that is promoted, and still find all segments that its manifest names."""


def data_folder(settings: Settings) -> Path:
    """The data folder, made if need be, readable by its owner alone."""
    folder = settings.data_path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def open_secrets(settings: Settings) -> Secrets:
    """The master key, from the settings or the data folder."""
    return load_secrets(data_folder(settings), settings.security.master_key)


def open_database(
    settings: Settings, clock: Clock | None = None, secrets: Secrets | None = None
) -> "SqliteDatabase | PostgresDatabase":
    """The control plane's records (also for the command line, beside a running server). Raises CannotSurvive,
    StoreUnavailable."""
    clock, secrets = clock or SystemClock(), secrets or open_secrets(settings)
    if settings.storage.engine == "sqlite":
        return SqliteDatabase(data_folder(settings) / DATABASE_FILE, clock, secrets)
    make = _postgres("database", "PostgresDatabase")
    database: PostgresDatabase = make(settings.storage.database, clock, secrets, **_promises(settings))
    return database


def open_queue(settings: Settings, *, own: bool = False) -> "SqliteQueue | PostgresQueue":
    """What is in flight: to be read by the command line beside a running server, or `own`ed by the server. Raises
    CannotSurvive, StoreUnavailable."""
    if settings.storage.engine == "sqlite":
        return SqliteQueue(data_folder(settings) / QUEUE_FILE, own=own, speaks=settings.storage.speaks)
    if settings.storage.partitions > 1:
        raise CannotSurvive("storage.partitions: a queue of several needs a cluster; without one say partitions = 1")
    make = _postgres("queue", "PostgresQueue")
    queue: PostgresQueue = make(
        settings.storage.queue[0], own=own, speaks=settings.storage.speaks, **_promises(settings)
    )
    return queue


def open_sharded_queue(settings: Settings, node: str = "") -> ShardedQueue:
    """The queue of a cluster, as `node` sees it: readable, and owning nothing yet (`ShardedQueue.own`). Raises
    CannotSurvive, StoreUnavailable."""
    own = settings.storage
    make = _postgres("partitions", "PostgresPartitions")
    return ShardedQueue(make(own.queue, own.partitions, node=node, speaks=own.speaks, **_promises(settings)), node)


def open_benches(settings: Settings) -> "list[SqliteBench | PostgresBench]":
    """Each partition of the queue, for its schema's pivots, beside running servers. Raises CannotPivot, CannotStart,
    StoreUnavailable."""
    own = settings.storage
    if own.engine == "sqlite":
        folder = settings.data_path
        if not (folder / QUEUE_FILE).exists():
            raise CannotStart(f"there is no queue in {folder}: name its folder with --data")
        return [SqliteBench(folder / QUEUE_FILE, folder / LOCK_FILE)]
    make, servers = _postgres("pivots", "PostgresBench"), _postgres("session", "Servers")
    names = ["queue"] if len(own.queue) == 1 else [f"queue[{place}]" for place in range(len(own.queue))]
    databases = [servers(dsn, name) for dsn, name in zip(own.queue, names, strict=True)]
    return [make(databases[one % len(databases)], one, own.partitions) for one in range(own.partitions)]


def check_storage(settings: Settings) -> list[tuple[str, str]]:
    """What PostgreSQL says of itself where the settings name it: (`ok`, `warn` or `bad`, a line) for each database, and
    for what is to be put right. Raises StoreUnavailable without the driver."""
    own, promised = settings.storage, _promises(settings)
    survey = _postgres("survey", "survey")
    return [
        tuple(one) for one in survey(own.queue, own.database, own.partitions, promised["survives"], promised["zones"])
    ]


def _promises(settings: Settings) -> dict[str, Any]:
    """What the engines on PostgreSQL are asked to keep."""
    own = settings.storage
    return {
        "survives": Survives[own.survives.upper()],
        "zones": dict(entry.split("=", 1) for entry in own.zones),
        "wait_s": own.wait_s,
    }


def _postgres(module: str, name: str) -> Any:
    """A part of the engine, imported late: its driver is there only where it was asked for. Raises StoreUnavailable."""
    try:
        return getattr(importlib.import_module(f"trunkline.storage.engines.postgres.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise StoreUnavailable(
            'storage.engine = "postgres" needs its driver: pip install "trunkline[cluster]"'
        ) from None


def open_memory(settings: Settings, clock: Clock) -> "JournalStore | ValkeyStore":
    """State that may be rebuilt, for the server. Raises CannotSurvive, StoreUnavailable."""
    own = settings.memory
    if own.engine == "journal":
        return JournalStore(data_folder(settings) / MEMORY_FILE, clock)
    check_memory(settings)
    make = _valkey("ValkeyStore")
    store: ValkeyStore = make(_memory_target(settings), clock, *_memory_promises(settings), own.wait_ms)
    return store


def check_memory(settings: Settings) -> str:
    """What Valkey says of itself, in one line, if it keeps what is asked. Raises CannotSurvive, StoreUnavailable."""
    line: str = _valkey("look")(_memory_target(settings), *_memory_promises(settings))
    return line


def _memory_target(settings: Settings) -> Any:
    own = settings.memory
    return _valkey("Target").read(own.url, own.sentinels, own.service, own.sentinel_password, own.tls_ca)


def _memory_promises(settings: Settings) -> tuple[Survives, dict[str, str]]:
    own = settings.memory
    return Survives[own.survives.upper()], dict(entry.split("=", 1) for entry in own.zones)


def _valkey(name: str) -> Any:
    """A part of the engine, imported late as PostgreSQL's are. Raises StoreUnavailable."""
    try:
        return getattr(importlib.import_module("trunkline.storage.engines.valkey.memory"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise StoreUnavailable('memory.engine = "valkey" needs its driver: pip install "trunkline[cluster]"') from None


def peek_memory(settings: Settings, prefix: str, clock: Clock | None = None) -> list[tuple[str, bytes]]:
    """What the `MemoryStore` has under a prefix, to be read by the command line beside a running server. Raises
    StoreUnavailable."""
    if settings.memory.engine == "valkey":
        found: list[tuple[str, bytes]] = _valkey("peek")(_memory_target(settings), prefix)
        return found
    return peek(settings.data_path / MEMORY_FILE, prefix, (clock or SystemClock()).now_ms())


def open_archive(settings: Settings, clock: Clock | None = None) -> SegmentedArchive:
    """The landed documents (also for the command line, beside a running server). With `objects.url` those of all nodes.
    Raises CannotSurvive, StoreUnavailable."""
    folder = data_folder(settings)
    own = settings.archive
    limits = ArchiveLimits(
        recent_rows=own.rollup_rows,
        recent_age_ms=int(own.rollup_age_s * 1000),
        segment_rows=own.segment_rows,
        analysis_timeout_s=own.query_timeout_s,
        query_rows=own.query_rows,
        memory_bytes=own.worker_memory_bytes,
        cache_bytes=settings.objects.cache_bytes,
        kept_ms=FOLLOWED_MS if settings.regions else 0,
    )
    location, clock = objects_location(settings), clock or SystemClock()
    if location is None:
        return SegmentedArchive(SqliteRecent(folder / ARCHIVE_FILE), folder / SEGMENT_FOLDER, clock, limits)
    recent: PostgresRecent = _postgres("recent", "PostgresRecent")(settings.storage.database, **_promises(settings))
    survives = Survives[settings.objects.survives.upper()]
    return SegmentedArchive(recent, folder / SEGMENT_CACHE, clock, limits, objects=location, survives=survives)


def objects_location(settings: Settings) -> Location | None:
    """Where the object store is; None: there is none, and files are in local folders."""
    own = settings.objects
    if not own.url:
        return None
    return Location(
        url=own.url, region=own.region, access_key=str(own.access_key), secret_key=str(own.secret_key),
        endpoint=own.endpoint, prefix=own.prefix,
    )  # fmt: skip  # plain strings: they go to the archive's workers


def open_objects(settings: Settings) -> AsyncObjects | None:
    """The object store; None: there is none. Raises StoreUnavailable without its driver."""
    location = objects_location(settings)
    return None if location is None else AsyncObjects(Objects(location))


def open_blobs(settings: Settings, name: str, max_bytes: int, max_total_bytes: int) -> FolderBlobs | ObjectBlobs:
    """Media or recordings (`name`), for all nodes where there is an object store. Raises StoreUnavailable."""
    folder, objects = data_folder(settings), open_objects(settings)
    if objects is None:
        return FolderBlobs(folder / name, max_bytes, max_total_bytes)
    survives = Survives[settings.objects.survives.upper()]
    return ObjectBlobs(objects, name, folder / BLOB_DRAFTS / name, max_bytes, max_total_bytes, survives)


def check_objects(settings: Settings) -> str:
    """What became of an object that was written, read and removed; empty: there is no object store. Raises
    StoreUnavailable."""
    location = objects_location(settings)
    return "" if location is None else Objects(location).probe(new_key())


def compact_stores(settings: Settings) -> bool:
    """Remove the bytes of what was deleted from the queue's and the database's files; False: ask again. Blocks."""
    if settings.storage.engine == "postgres":
        rewrite, tables = _postgres("queue", "rewrite_tables"), _postgres("queue_sql", "WITH_CONTENT")
        clean = [
            *(rewrite(dsn, "queue", tables) for dsn in settings.storage.queue),
            rewrite(settings.storage.database, "database", _postgres("database_schema", "TABLE_NAMES")),
        ]
        return all(clean)
    folder = data_folder(settings)
    files = [folder / name for name in (QUEUE_FILE, DATABASE_FILE)]
    clean = [compact_file(file) for file in files if file.exists()]
    return all(clean)


class CannotStart(Exception):
    """The node cannot run like this; the text is one line for the operator."""


async def rotate_master_key(settings: Settings) -> int:
    """Put a new key into the key file, if the keys lie there, and seal every record with the first key. Returns how
    many. Raises CannotStart while a server runs: it would not know the new key."""
    folder = data_folder(settings)
    lock = take_folder(folder)
    try:
        if not has_own_keys(settings.security.master_key):
            rotate_key_file(folder)
        database = open_database(settings)
        try:
            return await database.reseal()
        finally:
            await database.close()
    finally:
        os.close(lock)


def take_folder(folder: Path) -> int:
    """Take the data folder for this process, until the returned descriptor is closed. Raises CannotStart."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise CannotStart(f"another server runs on {folder}: stop it, or name another folder with --data") from None
    return descriptor


def port_is_free(host: str, port: int) -> None:
    """Seen before carriers are connected, not after. Raises CannotStart."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotStart(f"cannot listen on {host} port {port}: {reason}; see server.host and server.port") from None
