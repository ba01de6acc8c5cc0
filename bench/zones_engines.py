"""What nodes in three zones stand on, on this machine: PostgreSQL, alone and with two standbys of which a commit waits
for one, Redis with two replicas and three Sentinels, HAProxy. Plain processes on loopback; nobody fails over here.
"""

import contextlib
import shutil
from pathlib import Path

import psycopg
from lab.outside import HAPROXY
from tests.ports import free_port
from tests.postgres import USER, PostgresServer
from tests.redis import Group

from bench.processes import Failed, Process

SETTINGS = {
    "listen_addresses": "127.0.0.1", "shared_buffers": "64MB", "max_connections": "120", "max_wal_senders": "6",
    "max_wal_size": "1GB", "wal_log_hints": "on", "hot_standby": "on",
}  # fmt: skip
"""The rest as the lab has it; fsync, full_page_writes and synchronous_commit are on by default."""
ZONES = ("a", "b", "c")


class Server(PostgresServer):
    """One server, reached over TCP."""

    def __init__(self, name: str) -> None:
        self.port = free_port()
        super().__init__({**SETTINGS, "port": str(self.port), "cluster_name": name})

    def dsn(self, database: str) -> str:
        """Its connection string."""
        return f"host=127.0.0.1 port={self.port} user={USER} dbname={database}"

    @property
    def pid(self) -> int:
        """Of the postmaster, whose children count as well."""
        assert self._process is not None
        return self._process.pid


class Cluster:
    """A primary and, if asked for, a standby in each other zone, of which each commit waits for one."""

    def __init__(self, standbys: bool) -> None:
        self.servers = [Server(ZONES[0])]
        try:
            self.servers[0].create().start()
            if standbys:
                self._follow()
        except BaseException:
            self.close()
            raise

    def _follow(self) -> None:
        primary = self.servers[0]
        for zone in ZONES[1:]:
            standby = Server(zone)
            self.servers.append(standby)
            source = f"host=127.0.0.1 port={primary.port} user={USER} application_name={zone}"
            standby._run("pg_basebackup", "-D", str(standby.data), "-d", source, "-R", "-X", "stream", "-c", "fast")
            with (standby.data / "postgresql.auto.conf").open("a") as file:
                file.write(f"primary_conninfo = '{source}'\n")
            standby.start()
        with psycopg.connect(primary.dsn("postgres"), autocommit=True) as connection:
            connection.execute("alter system set synchronous_standby_names = 'ANY 1 (b, c)'")
            connection.execute("select pg_reload_conf()")

    def database(self) -> str:
        """The connection string of a fresh database."""
        return self.servers[0].database()

    def close(self) -> None:
        for one in self.servers:
            one.close()


class Engines:
    """All of them, started once; what is not used costs next to nothing. `with` ends and removes them."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as made:
            self.alone = made.enter_context(contextlib.closing(Cluster(standbys=False)))
            """One server: a commit is on its disk."""
            self.quorum = [made.enter_context(contextlib.closing(Cluster(standbys=True))) for _ in ZONES]
            """Three clusters: two for the queue, one for the records."""
            self.redis = made.enter_context(contextlib.closing(Group()))
            for server in self.redis.servers:
                with server.client() as client:
                    client.config_set("appendonly", "yes")
            self._made = made.pop_all()

    def __enter__(self) -> "Engines":
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    @property
    def pids(self) -> list[int]:
        """Of the first process of each."""
        found = [server.pid for cluster in (self.alone, *self.quorum) for server in cluster.servers]
        return found + [one._process.pid for one in (*self.redis.servers, *self.redis.sentinels) if one._process]


def balance(folder: Path, port: int, nodes: dict[str, int]) -> Process:
    """HAProxy, as the lab has it: each request to the next node. Raises Failed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise Failed("HAProxy is not installed")
    servers = "\n".join(f"  server {name} 127.0.0.1:{at} check" for name, at in nodes.items())
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(edge="127.0.0.1", port=port, check="/readyz/drain", servers=servers))
    return Process([program, "-db", "-f", str(file)], folder, "haproxy.log")
