"""Which shape of the queue's file a process uses, and how others learn of it.

A server keeps a file in `<queue file>.speakers/`, locked for as long as it lives, that says what it speaks; nothing is
written to the database for it, and a process that is killed is known to be gone at once. It looks every LOOK_S at what
the file's pivots have come to. In between a statement of a former shape fails when it is prepared, before anything of
it was done: then its user looks, and makes it anew (`looked_again`).
"""

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from trunkline.storage.engines.sqlite import queue_sql as sql
from trunkline.storage.engines.sqlite.writer import connect
from trunkline.storage.pivots import NEWEST, lane_split
from trunkline.storage.pivots.model import Shape, Speaker, State
from trunkline.storage.survives import CannotSurvive

LOOK_S = 1.0
"""How often a server looks at the pivots."""
SPEAKER_MODE = 0o600

log = logging.getLogger(__name__)


def folder_of(path: Path) -> Path:
    """Where the users of a queue's file say what they speak."""
    return path.with_name(f"{path.name}.speakers")


def read_state(connection: apsw.Connection | apsw.Cursor, name: str) -> State:
    """Where the file stands with a pivot."""
    rows = connection.execute(sql.PIVOT, (name,)).fetchall()
    return msgspec.convert(dict(zip(sql.PIVOT_COLUMNS.split(", "), rows[0], strict=True)), State) if rows else State()


class Shapes:
    """`speaks`: the newest pivot that this process may use. `changed` is called, on whichever thread finds out, with
    the statements from now on."""

    def __init__(self, path: Path, speaks: int, changed: Callable[[sql.FlightSql], None]) -> None:
        self._path = path
        self._knows = min(speaks, NEWEST) >= lane_split.PIVOT.number
        self._number = min(speaks, NEWEST)
        self._changed = changed
        self._using: tuple[Shape, bool] | None = None
        self._lock = threading.Lock()
        self._file: int | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self, connection: apsw.Connection | apsw.Cursor) -> bool:
        """Look at the pivots; whether there is another shape to use now. Raises CannotSurvive where this process knows
        no shape that the file has."""
        state = read_state(connection, lane_split.NAME)
        if not self._knows and state.shape == "new" and state.phase == "plain":
            raise CannotSurvive(f"{self._path.name} has the new shape of {lane_split.NAME}, which is not spoken here")
        using: tuple[Shape, bool] = (state.shape if self._knows else "old", state.phase != "plain")
        with self._lock:
            if using == self._using:
                return False
            self._using = using
            self._changed(sql.SHAPES[using])
            self._say()
        return True

    def looked_again(self, connection: apsw.Connection | apsw.Cursor, seen: sql.FlightSql, now: sql.FlightSql) -> bool:
        """After a statement of `seen` failed: whether there are others by `now`, or have come since."""
        return seen is not now or self.look(connection)

    def announce(self) -> None:
        """Tell the others, and look from now on until `close`."""
        folder = folder_of(self._path)
        folder.mkdir(exist_ok=True, mode=0o700)
        name = folder / f"{os.getpid()}-{time.time_ns():x}"
        with self._lock:
            self._file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SPEAKER_MODE)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._say()
        self._thread = threading.Thread(target=self._run, name="shapes", daemon=True)
        self._thread.start()

    def _say(self) -> None:
        if self._file is None or self._using is None:
            return
        speaker = Speaker(
            who=f"process {os.getpid()} on {socket.gethostname()}",
            number=self._number,
            shapes={lane_split.NAME: self._using[0]},
        )
        said = msgspec.json.encode(speaker)
        os.pwrite(self._file, said.ljust(512), 0)

    def _run(self) -> None:
        connection = connect(self._path, read_only=True, cache_kib=64)
        try:
            while not self._end.wait(LOOK_S):
                try:
                    self.look(connection)
                except (apsw.Error, OSError, CannotSurvive) as error:
                    log.warning("the queue's shape cannot be read: %s", error)
        finally:
            connection.close()

    def close(self) -> None:
        """Be no speaker any more."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            for name in folder_of(self._path).glob(f"{os.getpid()}-*"):
                if os.stat(name).st_ino == os.fstat(self._file).st_ino:
                    name.unlink()
            os.close(self._file)
            self._file = None


def speakers(path: Path) -> list[Speaker]:
    """The processes that live and have said what they speak; what dead ones left is removed."""
    found = []
    for name in sorted(folder_of(path).glob("[0-9]*-*")):
        with _opened(name) as descriptor:
            if descriptor is None:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                found.append(_read(descriptor, name))
            else:
                name.unlink(missing_ok=True)
    return found


def _read(descriptor: int, name: Path) -> Speaker:
    try:
        return msgspec.json.decode(os.pread(descriptor, 512, 0), type=Speaker)
    except msgspec.DecodeError:
        return Speaker(who=f"process {name.name.partition('-')[0]}, which is starting", number=-1)


@contextmanager
def _opened(name: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
