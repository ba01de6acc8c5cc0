"""Real Redis servers and Sentinels for tests: Debian's, on loopback, in folders of their own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import redis
from tests.ports import free_port

START_S = 60.0
PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")

needs_redis = pytest.mark.skipif(
    not PROGRAM and not os.environ.get("CI"), reason="Redis is not installed (scripts/test-setup.sh)"
)


class _Process:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trunkline-redis-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> Any:
        """A plain client of its own."""
        return redis.Redis(port=self.port, socket_timeout=5, socket_connect_timeout=2)

    def _run(self, *arguments: str) -> None:
        with (self.folder / "server.log").open("ab") as log:
            command = [str(PROGRAM), *arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        until = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(START_S)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(_Process):
    """`settings` go on the command line; nothing is kept on disk unless they say so."""

    def __init__(self, settings: Mapping[str, str] | None = None, follows: int = 0) -> None:
        """`follows`: the primary's port."""
        super().__init__()
        self.settings = dict(settings or {})
        self.follows = follows

    def start(self) -> "RedisServer":
        own = {
            "port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": str(self.folder),
            "repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1",
        }  # fmt: skip
        if self.follows:
            own["replicaof"] = f"127.0.0.1 {self.follows}"
        arguments = []
        for name, value in {**own, **self.settings}.items():
            arguments += [f"--{name}", *(value.split(" ") if name == "replicaof" else [value])]
        self._run(*arguments)
        return self

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def wait_for_replicas(self, count: int) -> None:
        until = time.monotonic() + START_S
        with self.client() as client:
            while not client.wait(count, 50) >= count:
                assert time.monotonic() < until, self.log()
                client.set("touch", "1")


class Sentinel(_Process):
    """Watches the primary at `port` under the name `trunkline`."""

    def __init__(self, port: int, quorum: int, down_ms: int = 400) -> None:
        super().__init__()
        self._file = self.folder / "sentinel.conf"
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor trunkline 127.0.0.1 {port} {quorum}\n"
            f"sentinel down-after-milliseconds trunkline {down_ms}\n"
            "sentinel failover-timeout trunkline 3000\nsentinel parallel-syncs trunkline 2\n"
        )

    def start(self) -> "Sentinel":
        self._run(str(self._file), "--sentinel")
        return self


class Group:
    """A primary, replicas and Sentinels that know each other; `seen_as`: by another port than its own."""

    def __init__(self, replicas: int = 2, sentinels: int = 3, seen_as: tuple[RedisServer, int] | None = None) -> None:
        own = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
        primary = seen_as[0] if seen_as else RedisServer(own).start()
        self._seen_port = seen_as[1] if seen_as else primary.port
        self.servers = [primary, *(RedisServer(own, follows=self._seen_port).start() for _ in range(replicas))]
        primary.wait_for_replicas(replicas)
        self.sentinels = [Sentinel(self._seen_port, sentinels // 2 + 1).start() for _ in range(sentinels)]
        until = time.monotonic() + START_S
        while not all(self._knows_all(one) for one in self.sentinels):
            assert time.monotonic() < until, self.sentinels[0].log()
            time.sleep(0.05)

    def _knows_all(self, sentinel: Sentinel) -> bool:
        with sentinel.client() as client:
            state = client.execute_command("SENTINEL", "MASTER", "trunkline")
        if isinstance(state, list):
            state = {state[at].decode(): state[at + 1].decode() for at in range(0, len(state), 2)}
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in state.items()}
        return (int(named["num-slaves"]), int(named["num-other-sentinels"])) == (
            len(self.servers) - 1, len(self.sentinels) - 1,
        )  # fmt: skip

    @property
    def addresses(self) -> list[str]:
        return [one.address for one in self.sentinels]

    def zones(self) -> dict[str, str]:
        return {one.address: f"zone-{at}" for at, one in enumerate(self.servers)}

    def primary(self) -> RedisServer:
        """By the first Sentinel."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "trunkline")
        if int(port) == self._seen_port:
            return self.servers[0]
        return next(one for one in self.servers if one.port == int(port))

    def close(self) -> None:
        for one in (*self.sentinels, *self.servers):
            one.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests of a session that do it no harm."""
    server = RedisServer().start()
    yield server
    server.close()
