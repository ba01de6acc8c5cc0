"""Connections to PostgreSQL: which server is the one that takes writes, and what each connection of ours is set to.

A DSN may name several hosts (`host=a,b,c`). Each is tried by itself with a deadline of its own, so that a host that
swallows packets costs CONNECT_S and no more, and the next try begins behind the host that failed last: a primary that
has lost its peers goes on taking connections, but never a synchronous commit.

A server that stands still while its kernel confirms what is sent (stopped, its disk hangs) ends no connection and no
statement: whoever waits for it has a limit of his own, and cuts the connection then (`cut`, `within`).
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryDumper

from trunkline.storage.pivots import NEWEST
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

CONNECT_S = 2
"""Longest wait for one host, seconds (libpq takes whole ones, at least 2)."""
SILENCE_MS = 3000
"""Sent bytes that the peer's TCP has not confirmed for so long end the connection."""
KEEPALIVE_S = 2
KEEPALIVES = 3
"""An idle connection whose peer has vanished ends after about KEEPALIVE_S * (KEEPALIVES + 1) seconds, on both sides:
the server's half holds our lock."""
IDLE_IN_TRANSACTION_S = 10
OLDEST_SERVER = 130_000
"""PostgreSQL 13, as `server_version_num`."""

Connection = psycopg.Connection[tuple[Any, ...]]
GONE = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
"""This server takes no (more) writes: read-only (it was demoted), shutting down, crashed, starting up, timed out."""
STALE = frozenset({"42703", "42883", "0A000"})
"""No such column, no such function, a plan that the session keeps does not fit: the tables have changed their shape."""


class BadDsn(CannotSurvive):
    """The DSN cannot be read; the text shows nothing of it."""


class Servers:
    """The servers of one DSN, tried one by one."""

    def __init__(self, dsn: str, name: str) -> None:
        """`name` is what `pg_stat_activity` shows. Raises BadDsn."""
        try:
            self._options: dict[str, Any] = dict(conninfo_to_dict(dsn))
        except psycopg.Error:
            raise BadDsn(f"storage.{name}: not a PostgreSQL connection string (postgresql://... or host=...)") from None
        hosts = str(self._options.pop("host", "") or "").split(",")
        ports = str(self._options.pop("port", "") or "").split(",")
        if len(ports) not in (1, len(hosts)):
            raise BadDsn(f"storage.{name}: {len(hosts)} hosts but {len(ports)} ports")
        self._hosts = [(host, ports[index % len(ports)]) for index, host in enumerate(hosts)]
        self._first = 0
        self.name = name
        self.speaks = NEWEST
        """The newest pivot that its sessions know; each says so in its name."""

    def __repr__(self) -> str:
        return f"{self.name} at {', '.join(host or 'the local socket' for host, _ in self._hosts)}"

    def connect(
        self,
        application: str,
        *,
        writes: bool = True,
        statement_ms: int = 0,
        schema: str = "",
        kind: type[Connection] = Connection,
    ) -> Connection:
        """A connection, in autocommit. `writes`: only to a server that is not in recovery. `schema`: the only one that
        names are looked for in (a trusted name; empty: the server's choice). Raises StoreUnavailable."""
        error: Exception | None = None
        for _ in self._hosts:
            host, port = self._hosts[self._first]
            try:
                connection = kind.connect(
                    self._conninfo(host, port, application, writes, statement_ms, schema), autocommit=True
                )
            except psycopg.Error as one:
                error = one
                self._first = (self._first + 1) % len(self._hosts)
            else:
                connection.adapters.register_dumper(int, Int8BinaryDumper)
                return connection
        raise StoreUnavailable(f"{self!r}: {reason(error)}") from None

    def rotate(self) -> None:
        """This host did not keep what it promised: begin with the next one."""
        self._first = (self._first + 1) % len(self._hosts)

    def _conninfo(self, host: str, port: str, application: str, writes: bool, statement_ms: int, schema: str) -> str:
        settings = {
            "synchronous_commit": "on",
            "statement_timeout": statement_ms,
            "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S * 1000,
            "tcp_keepalives_idle": KEEPALIVE_S,
            "tcp_keepalives_interval": KEEPALIVE_S,
            "tcp_keepalives_count": KEEPALIVES,
            "client_encoding": "UTF8",
            **({"search_path": schema} if schema else {}),
        }
        own = str(self._options.get("options") or "")
        return make_conninfo(
            **{
                **self._options,
                "host": host or None,
                "port": port or None,
                "application_name": f"{application} s{self.speaks}",
                "connect_timeout": CONNECT_S,
                "target_session_attrs": "read-write" if writes else "any",
                "tcp_user_timeout": SILENCE_MS,
                "keepalives_idle": KEEPALIVE_S,
                "keepalives_interval": KEEPALIVE_S,
                "keepalives_count": KEEPALIVES,
                "options": " ".join([own, *(f"-c {name}={value}" for name, value in settings.items())]).strip(),
            }
        )


def cut(connection: Connection) -> None:
    """End a connection under a thread that waits on it: the wait fails at once."""
    try:
        own = os.dup(connection.fileno())
    except (psycopg.Error, OSError):
        return
    with socket.socket(fileno=own) as line:
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@contextmanager
def within(connection: Connection, seconds: float) -> Iterator[None]:
    """Cut a connection on which the work in hand takes longer."""
    guard = threading.Timer(seconds, cut, (connection,))
    guard.daemon = True
    guard.start()
    try:
        yield
    finally:
        guard.cancel()


def reason(error: BaseException | None) -> str:
    """One line about a failure, without what was sent."""
    lines = str(error or "no server answered").strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def is_lost(error: psycopg.Error, connection: Connection | None) -> bool:
    """Whether the connection is of no more use: broken, or its server takes no writes."""
    if error.sqlstate in GONE or (error.sqlstate or "").startswith("08"):
        return True
    return connection is None or connection.closed or connection.broken


Notice = Callable[[Any], None]
