"""One server, or with TRUNKLINE_TEST_CLUSTER=3 in the environment (`make test-cluster`) so many nodes in its place.

The nodes share PostgreSQL, Redis, a folder for objects and the simulated phones. HAProxy gives each request to the
next of them; whoever asks for a SIP port gets the next node's.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.e2e.server import START_S, Server, Table
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.redis import RedisServer
from trunkline.model.clock import SystemClock
from trunkline.storage.database import Database
from trunkline.testing.phones.remote import NOTE

T = TypeVar("T")
NODES = int(os.environ.get("TRUNKLINE_TEST_CLUSTER") or 0)
"""0: one server alone, on SQLite."""
PARTITIONS = 6
LEASE_S = 10
"""Long, for a machine that does other things as well: here nobody dies."""
LEGS = 50
"""Of each node at least; ports are few where other tests run as well."""
POLL_S = 0.05
READY = b"Ready to accept connections"
BALANCER = """\
global
    tune.bufsize 131072
defaults
    mode http
    timeout connect 20s
    timeout client 300s
    timeout server 300s
frontend front
    bind 127.0.0.1:{port}{tls}
    default_backend nodes
backend nodes
    balance roundrobin
"""
SETTLED = """\
import re, ssl, sys, time, urllib.request
until, least, urls = time.monotonic() + float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
context = ssl._create_unverified_context()
while urls:
    assert time.monotonic() < until, f"{urls} own no partitions"
    try:
        page = urllib.request.urlopen(urls[0] + "/metrics", timeout=20, context=context).read().decode()
    except OSError:
        page = ""
    if len(re.findall(r"^trunkline_partition_owned{.*} 1.0$", page, re.M)) >= least:
        del urls[0]
    else:
        time.sleep(0.1)
"""
"""Waits until each node owns its share."""

one_node = pytest.mark.skipif(NODES > 0, reason="looks into the files or processes of one node")
"""For tests that can say nothing of a cluster."""


def serving(folder: Path, settings: Mapping[str, Any], prefix: Sequence[str] = ()) -> Server:
    """What the tests talk to."""
    return Nodes(folder, settings, prefix) if NODES else Server(folder, settings, prefix)


class _Redis(RedisServer):
    """Where `prefix` leads: it cannot be asked from here whether it answers."""

    def __init__(self, prefix: Sequence[str]) -> None:
        super().__init__()
        self._prefix = list(prefix)

    def _run(self, *arguments: str) -> None:
        path = self.folder / "server.log"
        with path.open("ab") as log:
            command = [*self._prefix, str(shutil.which("redis-server")), *arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        until = time.monotonic() + START_S
        while READY not in path.read_bytes():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(POLL_S)


class Nodes(Server):
    """See the module: what tests ask of a server, of all nodes."""

    def __init__(self, folder: Path, settings: Mapping[str, Table | list[Table]], prefix: Sequence[str] = ()) -> None:
        super().__init__(folder, settings, prefix)
        self.port = self.port or free_port()
        self._helpers: list[subprocess.Popen[Any]] = []
        self._phones_line: socket.socket | None = None
        self._postgres = PostgresServer({"max_connections": "200"}).create().start()
        self._redis = _Redis(prefix).start()
        (folder / "objects").mkdir()
        shared = {
            "storage": {
                "engine": "postgres",
                "queue": [self._postgres.database(), self._postgres.database()],
                "database": self._postgres.database(),
                "partitions": PARTITIONS,
                **self._tables.get("storage", {}),
            },
            "memory": {"engine": "valkey", "url": self._redis.url},
            "objects": {"url": f"file://{folder / 'objects'}"},
            "security": {"master_key": base64.b64encode(b"k" * 32).decode(), **self._tables.get("security", {})},
            "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": LEASE_S},
        }
        self.nodes = [self._node(number, shared) for number in range(NODES)]
        self._sip_ports, self._smpp_ports = self._ports("sip"), self._ports("smpp_server")

    def _ports(self, section: str) -> "cycle[int]":
        return cycle([int(node._tables.get(section, {}).get("port", 0)) for node in self.nodes])

    @property
    def _scheme(self) -> str:
        return "https" if self._tables["server"].get("tls_cert") else "http"

    def _node(self, number: int, shared: Mapping[str, Table]) -> Server:
        zone = chr(ord("a") + number)
        (self.folder / zone).mkdir()
        own: dict[str, Any] = {**self._tables, **shared}
        url = f"{self._scheme}://127.0.0.1:{self.port}"
        own["server"] = {"public_url": url, **self._tables["server"], "port": 0}
        own["data"] = {**self._tables["data"], "path": str(self.folder / zone / "data")}
        own["node"] = {"name": f"node-{zone}", "zone": zone, "address": f"127.0.0.1:{free_port()}"}
        sip = self._tables.get("sip", {})
        if sip.get("port") and number:
            own["sip"] = {**sip, "port": free_port(str(sip.get("host", "127.0.0.1")), 2)}
        if media := self._tables.get("media"):
            own["media"] = {**media, "legs": max(int(media.get("legs", 0)) // NODES, LEGS)}
        smpp = self._tables.get("smpp_server", {})
        if smpp.get("port") and number:
            own["smpp_server"] = {**smpp, "port": free_port()}
        return Server(self.folder / zone, own, self._prefix)

    # -- life ------------------------------------------------------------------------------------------------

    def seed(self, work: Callable[[Database, SystemClock], Awaitable[T]]) -> T:
        """See `Server.seed`."""
        return self.nodes[0].seed(work)

    def start(self) -> "Nodes":
        """Start all nodes, and the balancer before them."""
        if any(trunk.get("simulated") for trunk in self._tables.get("trunks", [])):
            self._share_phones()
        for node in self.nodes:
            node.start()
        self._balance()
        self._wait_until_settled()
        return self

    def _wait_until_settled(self) -> None:
        """Partitions move to nodes that have come."""
        urls = [f"{self._scheme}://127.0.0.1:{node.port}" for node in self.nodes]
        least = PARTITIONS // len(self.nodes)
        command = [*self._prefix, sys.executable, "-c", SETTLED, str(START_S), str(least), *urls]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * START_S)
        assert done.returncode == 0, f"{done.stderr[-1000:]}\n{self.tail()}"

    def _share_phones(self) -> None:
        """One process of simulated phones, which each node takes for its own."""
        engine = self._tables.get("speech", {}).get("engine", "auto")
        command = [*self._prefix, sys.executable, "-m", "trunkline.testing.phones", "--engine", str(engine)]
        phones = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self._helpers.append(phones)
        assert phones.stdout is not None
        ready = phones.stdout.readline()
        line = self._phones_line = socket.socket(socket.AF_UNIX)  # it stays as long as somebody is connected
        line.connect(json.loads(ready)["control"])
        for node in self.nodes:
            node.data.mkdir(parents=True, exist_ok=True)
            (node.data / NOTE).write_bytes(ready)

    def _balance(self) -> None:
        server, tls, verify = self._tables["server"], "", ""
        if server.get("tls_cert"):
            pem = self.folder / "haproxy.pem"
            pem.write_text("".join(Path(str(server[name])).read_text() for name in ("tls_cert", "tls_key")))
            tls, verify = f" ssl crt {pem}", " ssl verify none"
        text = BALANCER.format(port=self.port, tls=tls)
        text += "".join(f"    server {node.folder.name} 127.0.0.1:{node.port}{verify}\n" for node in self.nodes)
        config = self.folder / "haproxy.cfg"
        config.write_text(text)
        with (self.folder / "haproxy.log").open("ab") as log:
            command = [*self._prefix, shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(config)]
            self._helpers.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        until = time.monotonic() + START_S
        while self._helpers[-1].poll() is None and not self._listens():
            assert time.monotonic() < until, (self.folder / "haproxy.log").read_text()
            time.sleep(POLL_S)
        assert self._helpers[-1].poll() is None, (self.folder / "haproxy.log").read_text()

    def _listens(self) -> bool:
        rows = Path(f"/proc/{self._helpers[-1].pid}/net/tcp").read_text().splitlines()[1:]
        return any(row.split()[1].endswith(f":{self.port:04X}") and row.split()[3] == "0A" for row in rows)

    @property
    def sip_port(self) -> int:
        """The next node's."""
        return next(self._sip_ports)

    @property
    def addresses(self) -> list[str]:
        """See `Server.addresses`."""
        return [node.base_url for node in self.nodes]

    @property
    def config(self) -> Path:
        """See `Server.config`."""
        return self.nodes[0].config

    @property
    def folders(self) -> list[Path]:
        """See `Server.folders`."""
        return [node.data for node in self.nodes]

    @property
    def smpp_port(self) -> int:
        """The next node's."""
        return next(self._smpp_ports)

    @property
    def pid(self) -> int:
        """The first node's process."""
        return self.nodes[0].pid

    def stop(self) -> int:
        """Ask all to end; the worst exit code."""
        return max(node.stop() for node in self.nodes)

    def kill(self) -> None:
        """End all as a crash would."""
        for node in self.nodes:
            node.kill()

    def close(self) -> None:
        """Make sure that nothing runs on."""
        for node in self.nodes:
            node.close()
        for helper in self._helpers:
            helper.kill()
            helper.wait()
            if helper.stdout is not None:
                helper.stdout.close()
        if self._phones_line is not None:
            self._phones_line.close()
        self._redis.close()
        self._postgres.close()

    def tail(self, lines: int = 30) -> str:
        """The ends of all logs."""
        return "\n".join(f"-- {node.folder.name}\n{node.tail(lines)}" for node in self.nodes)

    def whole_log(self) -> Path:
        """All logs as one file."""
        self.log.write_bytes(b"".join(node.log.read_bytes() for node in self.nodes if node.log.exists()))
        return self.log
