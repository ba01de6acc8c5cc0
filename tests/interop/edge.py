"""The SIP edge of docs/howto/sip-edge.md: Kamailio with the configuration that we ship, as it is; what a site writes
beside it is made here."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.conftest import program
from tests.interop.switch import wait_listening
from tests.ports import free_port

SHIPPED = Path(__file__).parents[2] / "deploy/kamailio.cfg"
TLS_MODULE = "kamailio/modules/tls.so"
LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
STOP_S = 20
EDGE = "127.0.0.4"
"""Its address."""


class Behind(NamedTuple):
    """A node, as dispatcher.list has it."""

    host: str
    port: int
    tls_port: int = 0


def has_tls() -> bool:
    """Whether Kamailio has its module for TLS."""
    return any((Path(folder) / TLS_MODULE).exists() for folder in LIBRARIES)


def speaks_tls() -> None:
    """Skip a test where it has not."""
    if not has_tls():
        pytest.skip("Kamailio's TLS is missing: the Debian package kamailio-tls-modules")


class Edge:
    """See the module. `certificate`: PEM file with its key, for TLS on both sides; `carriers`: URIs of set 3."""

    def __init__(
        self, folder: Path, nodes: Sequence[Behind], *, certificate: str = "", carriers: Sequence[str] = ()
    ) -> None:
        self.host, self.port, self.tls_port = EDGE, free_port(EDGE), free_port(EDGE) if certificate else 0
        self._folder = folder
        folder.mkdir(exist_ok=True)
        shutil.copy(SHIPPED, folder / "kamailio.cfg")
        lines = [f"1 sip:{one.host}:{one.port} 8" for one in nodes]
        lines += [f"2 sip:{one.host}:{one.tls_port};transport=tls 8" for one in nodes if one.tls_port]
        lines += [f"3 {uri}" for uri in carriers]
        (folder / "dispatcher.list").write_text("\n".join(lines) + "\n")
        (folder / "tls.cfg").write_text(
            f"[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n"
            f"private_key = {certificate}\ncertificate = {certificate}\n"
            f"[client:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n"
            f"private_key = {certificate}\ncertificate = {certificate}\n"
        )
        own = [
            f'#!define DISPATCHER_LIST "{folder / "dispatcher.list"}"',
            f'#!define TLS_CONFIG "{folder / "tls.cfg"}"',
            "#!define CHILDREN 1",
            f"listen=udp:{EDGE}:{self.port}",
            f"listen=tcp:{EDGE}:{self.port}",
            f"tcp_source_ipv4={EDGE}",
        ]
        if certificate:
            own += ["#!define WITH_TLS", "#!define WITH_TLS_INSIDE", f"listen=tls:{EDGE}:{self.tls_port}"]
        (folder / "edge.cfg").write_text("\n".join(own) + "\n")
        self._log = folder / "kamailio.log"
        self._run = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Edge":
        """Start it and wait until it listens."""
        self._run = tempfile.mkdtemp(prefix="kam")  # its sockets' paths must be short
        path: str = program("kamailio", "kamailio")  # type: ignore[no-untyped-call]
        command = [path, "-f", str(self._folder / "kamailio.cfg"), "-DD", "-E"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-m", "64", "-M", "8", "-Y", self._run], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_listening(self.port, "UDP")
            for port in filter(None, (self.port, self.tls_port)):
                wait_listening(port, "TCP")
        except AssertionError:
            self.close()
            pytest.fail(self.log()[-3000:])
        return self

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    def dies(self) -> None:
        """All of its processes are gone at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_S)
        shutil.rmtree(self._run, ignore_errors=True)
        self._process = None

    def close(self) -> None:
        """End it and its children."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process = None
        shutil.rmtree(self._run, ignore_errors=True)
