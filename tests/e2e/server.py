"""A real `trunkline serve` process for tests, in a data folder of its own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trunkline.bootstrap import open_database
from trunkline.model.clock import SystemClock
from trunkline.settings import load
from trunkline.storage.database import Database

T = TypeVar("T")
START_S = 120.0
"""Longest wait for a start on a busy machine."""
STOP_S = 90.0
POLL_S = 0.02
SAID = re.compile(rb"listening on \S+ port (\d+)")
LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""

Table = dict[str, Any]


class Server:
    """The process, its settings file and its data. `prefix` stands before the command (nsenter, say)."""

    def __init__(self, folder: Path, settings: Mapping[str, Table | list[Table]], prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self._config = folder / "trunkline.toml"
        self._prefix = list(prefix)
        self._tables = dict(settings)
        own = {"host": "127.0.0.1", "port": 0, **self._tables.get("server", {})}
        self._tables["server"] = own
        data = {"path": str(folder / "data"), "min_free_bytes": 1024, **self._tables.get("data", {})}
        self._tables["data"] = data
        self.data = Path(str(data["path"]))
        self.port = int(own["port"])
        self.python = sys.executable
        """The interpreter whose version is started."""
        self._process: subprocess.Popen[bytes] | None = None
        self._write()

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def base_url(self) -> str:
        """Plain HTTP on the loopback interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def addresses(self) -> list[str]:
        """The base URL of each node."""
        return [self.base_url]

    @property
    def config(self) -> Path:
        """Its settings; of one node, where there are several."""
        return self._config

    @property
    def folders(self) -> list[Path]:
        """The data folder of each node."""
        return [self.data]

    @property
    def smpp_port(self) -> int:
        """Where SMPP clients bind, as the settings say."""
        return int(self._tables["smpp_server"]["port"])

    def seed(self, work: Callable[[Database, SystemClock], Awaitable[T]]) -> T:
        """Write records into the data folder, beside the server or before its start."""

        async def run() -> T:
            database = open_database(load(self._config, {}))
            try:
                return await work(database, SystemClock())
            finally:
                await database.close()

        return asyncio.run(run())

    def start(self) -> "Server":
        """Start it and wait until it listens."""
        command = [*self._prefix, self.python, "-m", "trunkline", "--config", str(self._config), "serve"]
        with self.log.open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), cwd=self.folder
            )
        until = time.monotonic() + START_S
        while (port := self._listening(before)) is None:
            assert self._process.poll() is None, f"the server ended: {self.tail()}"
            assert time.monotonic() < until, f"the server does not listen: {self.tail()}"
            time.sleep(POLL_S)
        if not self.port:
            self.port = port
            self._tables["server"] = {**self._tables["server"], "port": port}
            self._write()
        return self

    def _listening(self, before: int) -> int | None:
        """The HTTP port, once it listens: with calls or peers there are other ports, so the log has to tell."""
        if not any(self._tables.get(name, {}).get("enabled") for name in ("sip", "cluster", "smpp_server")):
            return listening_port(self.pid)
        said = SAID.search(self.log.read_bytes()[before:])
        return int(said[1]) if said else None

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(STOP_S)

    def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait(STOP_S)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"the server did not end within {timeout_s:g} s: {self.tail()}") from None

    def close(self) -> None:
        """Make sure that nothing runs on."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def whole_log(self) -> Path:
        """Its log."""
        return self.log

    def _write(self) -> None:
        self._config.write_text(toml(self._tables))


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}


def toml(tables: Mapping[str, Any]) -> str:
    """Tables, and lists of tables, of strings, numbers, tables and lists: JSON's way of writing them is TOML's too."""
    text = [f"{key} = {_value(value)}" for key, value in tables.items() if not _is_table(value)]
    for name, value in tables.items():
        if isinstance(value, Mapping):
            text += ["", f"[{name}]", *(f"{key} = {_value(item)}" for key, item in value.items())]
        elif _is_table(value):
            for table in value:
                text += ["", f"[[{name}]]", *(f"{key} = {_value(item)}" for key, item in table.items())]
    return "\n".join(text) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def listening_port(pid: int) -> int | None:
    """The TCP port on which the process listens (the lowest), whatever network namespace it is in."""
    try:
        own = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
        rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return None
    fields = (row.split() for row in rows)
    ports = [int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == LISTENING and f"socket:[{f[9]}]" in own]
    return min(ports, default=None)
