"""Which shape of the queue's tables a process uses, and how other processes learn of it.

Each process that keeps a queue has a row in its database's table `speaker`, written every HEARTBEAT_S, with the newest
pivot that it knows and the shape that it uses of each partition. Sessions say that number too, in their
`application_name`: one without a number is of a release before pivots.

With the heartbeat, and on each new connection, a process looks at the partitions' pivots. In between a statement of a
former shape fails, and nothing of it is done: then its user looks, drops the plans that the session keeps, and makes it
anew.
"""

import logging
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import psycopg

from trunkline.storage.engines.postgres.readers import Readers
from trunkline.storage.engines.postgres.session import Connection
from trunkline.storage.pivots import NEWEST, lane_split
from trunkline.storage.pivots.model import Shape
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

HEARTBEAT_S = 2.0
"""How often a process says that it lives and looks at the pivots."""
FORGET = "1 hour"
"""Rows of processes that have not been seen for so long are removed."""

SPEAKER_TABLE = """
create table if not exists speaker(
    name text primary key, who text not null, number bigint not null, shapes text not null,
    seen timestamptz not null) with (fillfactor = 50)
"""
_BEAT = """
insert into speaker(name, who, number, shapes, seen) values (%s, %s, %s, %s, now())
on conflict (name) do update set shapes = excluded.shapes, seen = now()
"""
_FORGET = f"delete from speaker where seen < now() - interval '{FORGET}'"
_LEAVE = "delete from speaker where name = %s"

log = logging.getLogger(__name__)


def pivot_state(schema: str) -> str:
    """Reads (schema, shape, phase) of the lane's pivot."""
    place = f"{schema}." if schema else ""
    return f"select '{schema}', shape, phase from {place}pivot where name = '{lane_split.NAME}'"


def has_old_shape(connection: Connection) -> bool:
    """Whether the tables in `search_path` have (also) the old shape of the lane."""
    rows = connection.execute(pivot_state("").encode()).fetchall()
    return not rows or rows[0][1:] != ("new", "plain")


class Follower(Protocol):
    """Is told of a shape, on whichever thread finds out."""

    def use_shape(self, shape: Shape) -> None:
        """Make statements for it from now on."""


class Shapes:
    """Of the partitions (`schemas`) of one database. `speaks`: the newest pivot that this process may use."""

    def __init__(self, readers: Readers, schemas: Sequence[str], speaks: int = NEWEST, node: str = "") -> None:
        self._readers = readers
        readers.stale = readers.connected = self.look
        self._number = min(speaks, NEWEST)
        self._statement = " union all ".join(pivot_state(schema) for schema in schemas).encode()
        self._shapes: dict[str, Shape] = dict.fromkeys(schemas, "old")
        self._followers: dict[str, weakref.WeakSet[Any]] = {schema: weakref.WeakSet() for schema in schemas}
        self._lock = threading.Lock()
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._who = f"{node and f'node {node}, '}process {os.getpid()} on {socket.gethostname()}"
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, schema: str, follower: Follower) -> None:
        """Have it told of a partition's shape, now and when it changes."""
        with self._lock:
            self._followers[schema].add(follower)
            follower.use_shape(self._shapes[schema])

    def look(self, connection: Connection) -> None:
        """Look at the pivots. Raises CannotSurvive where this process knows no shape that is there."""
        if not self._shapes:
            return
        try:
            rows = connection.execute(self._statement).fetchall()
        except psycopg.errors.UndefinedTable:
            return  # made by a release before pivots: no server of ours has begun yet
        found: dict[str, tuple[Shape, str]] = {schema: (shape, phase) for schema, shape, phase in rows}
        with self._lock:
            for schema in self._shapes:
                shape, phase = found.get(schema, ("old", "plain"))
                if self._number < lane_split.PIVOT.number:
                    if (shape, phase) == ("new", "plain"):
                        raise CannotSurvive(
                            f"{schema or 'the queue'} has the new shape of {lane_split.NAME}, which is not spoken here"
                        )
                    shape = "old"
                if shape != self._shapes[schema]:
                    self._shapes[schema] = shape
                    for follower in list(self._followers[schema]):
                        follower.use_shape(shape)

    def beat(self, connection: Connection) -> None:
        """Look, and say so."""
        self.look(connection)
        shapes = {schema: {lane_split.NAME: shape} for schema, shape in self._shapes.items()}
        with connection.transaction():
            connection.execute("set local synchronous_commit = off")  # it is said again
            said = (self._name, self._who, self._number, msgspec.json.encode(shapes).decode())
            connection.execute(_BEAT.encode(), said)
            connection.execute(_FORGET.encode())

    def announce(self) -> None:
        """Say what is spoken here, now if a server answers, and then every HEARTBEAT_S. Raises CannotSurvive."""
        self._beat_now()
        self._thread = threading.Thread(target=self._run, name="shapes", daemon=True)
        self._thread.start()

    def _beat_now(self) -> None:
        try:
            self._readers.read_now(self.beat)
        except (StoreUnavailable, psycopg.Error, OSError) as error:
            log.info("the queue's shapes were not looked at: %s", error)

    def _run(self) -> None:
        while not self._end.wait(HEARTBEAT_S):
            try:
                self._beat_now()
            except CannotSurvive as error:
                log.warning("%s", error)
            except RuntimeError:
                return  # the readers are closed

    def close(self) -> None:
        """Be no speaker any more."""
        self._end.set()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None

        def leave(connection: Connection) -> None:
            connection.execute(_LEAVE.encode(), (self._name,))

        try:
            self._readers.read_now(leave)
        except (StoreUnavailable, psycopg.Error, OSError, RuntimeError):
            return  # its row grows old
