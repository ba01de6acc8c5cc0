"""How unmodified clients are led to the server: by where they connect, and by nothing else.

`Namespace`: a network and mount namespace of the test's own, in which /etc/hosts names this machine for Twilio's
names and the server has port 443; needs root or unprivileged user namespaces. `Redirect`, where neither is allowed:
the server has any port, Python's resolver is told about it, and Node goes through a proxy (HTTP CONNECT).
"""

import os
import select
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

PROGRAMS = Path(__file__).parent / "programs"
SUBDOMAINS = ("api", "messaging", "lookups", "monitor", "accounts", "trunking", "voice")
HTTPS_PORT = 443
READY_S = 60.0
CHUNK_BYTES = 65536
WAY_ENV = "TRUNKLINE_TEST_NETWORK"
"""`namespace` or `redirect` asks for that way; unset: the first that works."""


class Network(Protocol):
    """Where server and clients run."""

    port: int
    """The server's port; 0: any, to be told by `serves`."""
    prefix: Sequence[str]
    """What stands before each command."""

    def serves(self, port: int) -> None: ...

    def environment(self) -> dict[str, str]: ...

    def close(self) -> None: ...


class Namespace:
    """See the module."""

    port = HTTPS_PORT

    def __init__(self, folder: Path, holder: subprocess.Popen[bytes], *, as_user: bool) -> None:
        self._holder = holder
        users = ("-U", "--preserve-credentials") if as_user else ()
        self.prefix = ("nsenter", "-t", str(holder.pid), *users, "-n", "-m", "--")

    @classmethod
    def open(cls, folder: Path) -> "Namespace | None":
        """The namespace; None where it is not allowed."""
        hosts = folder / "hosts"
        names = " ".join(f"{name}.twilio.com" for name in SUBDOMAINS)
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {names}\n")
        as_user = os.geteuid() != 0
        unshare = ["unshare", *(("-r",) if as_user else ()), "-n", "-m"]
        try:
            holder = subprocess.Popen(
                [*unshare, sys.executable, str(PROGRAMS / "namespace.py"), str(hosts)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            return None
        assert holder.stdout is not None
        ready, _, _ = select.select([holder.stdout], [], [], READY_S)
        if ready and holder.stdout.readline() == b"ready\n":
            return cls(folder, holder, as_user=as_user)
        _end(holder)
        return None

    def serves(self, port: int) -> None:
        """Nothing to do: the names and the port are Twilio's own."""

    def environment(self) -> dict[str, str]:
        """Nothing to add."""
        return {}

    def close(self) -> None:
        """Let the namespace go."""
        _end(self._holder)


def _end(process: subprocess.Popen[bytes]) -> None:
    with ExitStack() as stack:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                stack.callback(pipe.close)
        process.kill()
        process.wait()


class Redirect:
    """See the module."""

    port = 0
    prefix: Sequence[str] = ()

    def __init__(self) -> None:
        self._proxy = _Proxy()
        self._port = 0

    def serves(self, port: int) -> None:
        """The server listens on this port now."""
        self._port = self._proxy.target = port

    def environment(self) -> dict[str, str]:
        """For Python its resolver, for Node a proxy."""
        return {
            "PYTHONPATH": str(PROGRAMS / "redirect"),
            "TRUNKLINE_TEST_SERVER": f"127.0.0.1:{self._port}",
            "HTTP_PROXY": f"http://127.0.0.1:{self._proxy.server_address[1]}",
        }

    def close(self) -> None:
        """Stop the proxy."""
        self._proxy.end()


class _Proxy(socketserver.ThreadingTCPServer):
    """Takes HTTP CONNECT and leads every connection to one port of this machine."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.target = 0
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Tunnel(socketserver.StreamRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        if not self.rfile.readline().startswith(b"CONNECT "):
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        while self.rfile.readline().strip():
            pass
        with socket.create_connection(("127.0.0.1", self.server.target)) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ends = {self.connection: upstream, upstream: self.connection}
            while True:
                readable, _, _ = select.select(list(ends), [], [])
                for end in readable:
                    data = end.recv(CHUNK_BYTES)
                    if not data:
                        return
                    ends[end].sendall(data)


def open_network(folder: Path) -> Network:
    """The first way that works here, or the one that the environment asks for."""
    wanted = os.environ.get(WAY_ENV, "")
    network = Namespace.open(folder) if wanted != "redirect" else None
    assert network is not None or wanted != "namespace", "namespaces are not allowed here"
    return network or Redirect()
