"""`trunkline backup` and `trunkline restore`: a consistent copy of the data folder while the server runs.

Theory: SQLite copies a database as one snapshot without stopping its writers. The files are copied in the order in
which work flows (control plane, queue, archive, then the archive's segments and media), so that whatever moves on
during the copy is in it twice, never not at all; readers drop what they see twice. Segments are linked or copied
before the databases too, since a compaction may replace them in between.

A backup is a folder or a tar file with `manifest.json`: every file with its length and SHA-256.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO

import apsw
import msgspec
import typer

from trunkline import __version__
from trunkline.cli.common import DATA_MODE, CommandError, settings_of
from trunkline.settings import Settings

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 256 * 1024 * 1024
MASTER_KEY = "master.key"
FLOW = ("database", "queue", "archive")
"""Databases in the order in which work moves through them, by how their names begin."""
SKIPPED = ("-wal", "-shm", "-journal", "lock", ".sock", ".part", ".tmp", ".journal", "phones.json")
"""Names that end so hold nothing of their own, or what is true only while the server runs (live calls' dialogs)."""
SKIPPED_FOLDERS = ("spill", "prompts", "spool")
"""Scratch of queries, spoken texts that are made anew, recordings that are not finished."""
CHUNK = 1024 * 1024
FORMAT = 1


class Entry(msgspec.Struct, frozen=True):
    """One file of a backup."""

    path: str
    """Relative, with `/`."""
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    format: int = FORMAT
    trunkline: str
    made_ms: int
    master_key: bool
    """Whether the master key file is in it; without it secrets cannot be read."""
    files: list[Entry]


def backup(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(metavar="FOLDER|FILE.tar")],
    with_master_key: Annotated[bool, typer.Option(help="Include master.key: then guard the backup like it.")] = False,
) -> None:
    """Copy the data into an empty folder or a new tar file; the server may go on.

    Example: trunkline backup /srv/backup-monday.tar
    """
    settings = settings_of(context)
    _refuse_postgres(settings)
    source = settings.data_path
    if not (source / "database.db").is_file():
        raise CommandError(f"there is no data in {source}: name its folder with --data")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CommandError(f"{target} is there already: name a new one")
    if target.absolute().is_relative_to(source.absolute()):
        raise CommandError(f"{target} lies in the data folder: name another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        manifest = make(source, draft, with_master_key=with_master_key)
        _publish(draft, target, manifest)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    size = sum(entry.bytes for entry in manifest.files)
    typer.echo(f"{target}: {len(manifest.files)} files, {size} bytes")
    if not manifest.master_key:
        typer.echo("the master key is not in it: keep it elsewhere, a restore needs it", err=True)


def _refuse_postgres(settings: Settings) -> None:
    """A copy without the queue and the database would be none. Raises CommandError."""
    if settings.storage.engine == "postgres":
        raise CommandError(
            "the queue and the database are in PostgreSQL, which this command does not copy: use pg_basebackup for"
            " them, and copy the data folder with the server stopped"
        )


def make(source: Path, draft: Path, *, with_master_key: bool) -> Manifest:
    """Copy `source` into the empty folder `draft` and write its manifest."""
    databases, others = _files(source)
    for path in others:
        _copy_if_there(source / path, draft / path)
    for path in databases:
        _copy_database(source / path, draft / path)
    for path in _files(source)[1]:
        _copy_if_there(source / path, draft / path)
    if with_master_key and (source / MASTER_KEY).is_file():
        _copy_if_there(source / MASTER_KEY, draft / MASTER_KEY)
    entries = [_entry(draft, path) for path in sorted(draft.rglob("*")) if path.is_file()]
    manifest = Manifest(
        trunkline=__version__,
        made_ms=time.time_ns() // 1_000_000,
        master_key=(draft / MASTER_KEY).exists(),
        files=entries,
    )
    (draft / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def _files(source: Path) -> tuple[list[Path], list[Path]]:
    """(databases in the order of FLOW, everything else), relative."""
    databases: list[Path] = []
    others: list[Path] = []
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") or part in SKIPPED_FOLDERS for part in relative.parts)
        if hidden or path.name.endswith(SKIPPED) or path.name == MASTER_KEY or not path.is_file():
            continue
        (databases if path.suffix == ".db" else others).append(relative)
    return sorted(databases, key=_rank), others


def _rank(path: Path) -> tuple[int, str]:
    place = next((at for at, name in enumerate(FLOW) if path.name.startswith(name)), len(FLOW))
    return place, str(path)


def _copy_if_there(source: Path, target: Path) -> None:
    """Copy one file unless it is there; one that vanished in between was replaced by a newer, copied later."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=DATA_MODE)
    draft = target.with_name(target.name + ".part")
    try:
        shutil.copyfile(source, draft)
    except FileNotFoundError:
        return
    draft.chmod(0o600)
    draft.rename(target)


def _copy_database(source: Path, target: Path) -> None:
    """One snapshot of a SQLite file, checked. Raises CommandError."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=DATA_MODE)
    origin = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    copy = apsw.Connection(str(target))
    try:
        with copy.backup("main", origin, "main") as step:
            step.step(-1)
        copy.execute("pragma journal_mode=delete")
        verdict = copy.execute("pragma quick_check(1)").get
        if verdict != "ok":
            raise CommandError(f"{source} is damaged: {verdict}")
    finally:
        copy.close()
        origin.close()
    target.chmod(0o600)


def _entry(folder: Path, path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(path.relative_to(folder).as_posix(), path.stat().st_size, digest)


def _publish(draft: Path, target: Path, manifest: Manifest) -> None:
    """Give the finished copy its name in one step, synced."""
    if target.suffix in (".tar", ".tgz") or target.name.endswith(".tar.gz"):
        packed = draft.with_name(draft.name + ".tar")
        try:
            mode = "w" if target.suffix == ".tar" else "w:gz"
            with tarfile.open(packed, mode) as archive:  # type: ignore[call-overload]
                for name in (MANIFEST, *(entry.path for entry in manifest.files)):
                    archive.add(draft / name, name, recursive=False)
            packed.chmod(0o600)
            _sync(packed)
            packed.rename(target)
        finally:
            packed.unlink(missing_ok=True)
    else:
        for name in (MANIFEST, *(entry.path for entry in manifest.files)):
            _sync(draft / name)
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
    _sync(target.absolute().parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def restore(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FOLDER|FILE.tar")],
) -> None:
    """Put a backup into the data folder, which must be empty or absent; every checksum is checked first.

    Example: trunkline --data /srv/trunkline restore /srv/backup-monday.tar
    """
    settings = settings_of(context)
    _refuse_postgres(settings)
    target = settings.data_path
    _refuse_dirty(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with opened(source) as read:
            manifest = _manifest(source, read)
            for entry in manifest.files:
                _extract(source, read, entry, draft)
        _refuse_dirty(target)
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
        _sync(target.absolute().parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    typer.echo(f"{target}: {len(manifest.files)} files restored")
    if not manifest.master_key and not settings.security.master_key:
        typer.echo(f"put {MASTER_KEY} into {target} before the start: it was not in the backup", err=True)


def _refuse_dirty(target: Path) -> None:
    """Only an empty data folder is restored into, so that no server can be using it. Raises CommandError."""
    if not target.exists():
        return
    if not target.is_dir():
        raise CommandError(f"{target} is no folder")
    if any(target.iterdir()):
        database = target / "database.db"
        if database.is_file() and in_use(database):
            raise CommandError(f"a server is using {target}: stop it, and move its data away")
        raise CommandError(f"{target} is not empty: move it away first, or name another folder with --data")


def in_use(database: Path) -> bool:
    """Whether another process has the SQLite file open (in WAL mode each holds a shared lock while it does)."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.execute("pragma locking_mode=exclusive")
        connection.execute("begin exclusive")
        connection.execute("rollback")
    except (apsw.BusyError, apsw.LockedError):
        return True
    finally:
        connection.close()
    return False


Read = Callable[[str], BinaryIO | None]


@contextmanager
def opened(source: Path) -> Iterator[Read]:
    """Read files of a backup by their names. Raises CommandError."""
    if source.is_dir():
        yield lambda name: (source / name).open("rb") if (source / name).is_file() else None
        return
    try:
        with tarfile.open(source) as archive:
            members = {member.name: member for member in archive if member.isfile()}

            def read(name: str) -> BinaryIO | None:
                return archive.extractfile(members[name]) if name in members else None  # type: ignore[return-value]

            yield read
    except tarfile.TarError as error:
        raise CommandError(f"{source} is no backup: {error}") from None


def _manifest(source: Path, read: Read) -> Manifest:
    file = read(MANIFEST)
    if file is None:
        raise CommandError(f"{source} is no backup: it has no {MANIFEST}")
    with file:
        try:
            manifest = msgspec.json.decode(file.read(MAX_MANIFEST_BYTES), type=Manifest)
        except msgspec.MsgspecError as error:
            raise CommandError(f"{source}: its {MANIFEST} cannot be read: {error}") from None
    if manifest.format > FORMAT:
        raise CommandError(f"{source} was made by Trunkline {manifest.trunkline}: restore it with that version")
    for entry in manifest.files:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in entry.path:
            raise CommandError(f"{source}: its {MANIFEST} names {entry.path!r}, outside the data folder")
    return manifest


def _extract(source: Path, read: Read, entry: Entry, folder: Path) -> None:
    """Copy one file and check it. Raises CommandError."""
    file = read(entry.path)
    if file is None:
        raise CommandError(f"{source}: {entry.path} is missing")
    target = folder / entry.path
    target.parent.mkdir(parents=True, exist_ok=True, mode=DATA_MODE)
    digest = hashlib.sha256()
    with file, target.open("xb") as out:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    target.chmod(0o600)
    if digest.hexdigest() != entry.sha256:
        raise CommandError(f"{source}: {entry.path} is damaged (its SHA-256 differs): nothing was restored")
