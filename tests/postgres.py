"""A real PostgreSQL server for tests: Debian's, on a Unix socket, in a folder of its own, as its own user."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
START_S = 120.0
USER = "postgres"

needs_postgres = pytest.mark.skipif(
    not PROGRAMS and not os.environ.get("CI"), reason="PostgreSQL is not installed (scripts/test-setup.sh)"
)


def _as_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []


class PostgresServer:
    """`settings` go on the command line of the server; durable unless they say otherwise."""

    def __init__(self, settings: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="trunkline-pg-"))
        self.settings = dict(settings or {})
        self.data = self.folder / "data"
        self._bin = PROGRAMS[-1].parent
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self._templates: dict[Callable[[Any], None], str] = {}
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER, USER)

    def create(self) -> "PostgresServer":
        self._run("initdb", "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        return self

    def follow(self, primary: "PostgresServer", name: str) -> "PostgresServer":
        """Become a standby of a running server."""
        source = f"host={primary.folder} user={USER} application_name={name}"
        self._run("pg_basebackup", "-D", str(self.data), "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = '{source}'\n")
        return self

    def _run(self, program: str, *arguments: str) -> None:
        command = [*_as_user(), str(self._bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, cwd="/", timeout=120)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]

    def start(self) -> "PostgresServer":
        own = {
            "listen_addresses": "", "unix_socket_directories": str(self.folder), "max_connections": "60",
            "shared_buffers": "32MB", "max_wal_senders": "6", "wal_level": "replica",
        }  # fmt: skip
        options = [f"-c{name}={value}" for name, value in {**own, **self.settings}.items()]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user(), str(self._bin / "postgres"), "-D", str(self.data), *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        until = time.monotonic() + START_S
        while self.sql("select 1") is None:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.05)
        return self

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-2000:]

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]] | None:
        """The rows of a statement; None: the server does not answer."""
        try:
            with psycopg.connect(self.dsn(database), autocommit=True, connect_timeout=2) as connection:
                cursor = connection.execute(statement.encode())
                return list(cursor.fetchall()) if cursor.description else []
        except psycopg.OperationalError:
            return None

    def dsn(self, database: str) -> str:
        return f"host={self.folder} user={USER} dbname={database}"

    def database(self, prepare: Callable[[Any], None] | None = None) -> str:
        """The DSN of a fresh database, with the schema that `prepare` makes (once: the others are copies)."""
        template = "template1"
        if prepare is not None:
            template = self._templates.get(prepare, "")
            if not template:
                template = self._templates[prepare] = self._create("template1")
                with psycopg.connect(self.dsn(template), autocommit=True) as connection:
                    prepare(connection)
        return self.dsn(self._create(template))

    def _create(self, template: str) -> str:
        self._made += 1
        name = f"test_{os.getpid()}_{self._made}"
        assert self.sql(f"create database {name} template {template}") == []
        return name

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast shutdown; SIGQUIT: at once, as a crash."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(START_S)

    def close(self) -> None:
        self.end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of a session."""
    server = PostgresServer().create().start()
    yield server
    server.close()
