"""Kamailio as a proxy between phones and the server: a process of our own configuration, without a database."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.interop.conftest import program
from tests.interop.switch import BEHIND, NUMBER, PROXY, Peers, Switch, wait_listening

TEMPLATE = Path(__file__).with_name("kamailio.cfg")
MODULES = (
    "/usr/lib/x86_64-linux-gnu/kamailio/modules", "/usr/lib/aarch64-linux-gnu/kamailio/modules",
    "/usr/lib64/kamailio/modules", "/usr/lib/kamailio/modules",
)  # fmt: skip
STOP_S = 10


class Kamailio:
    """See the module. It listens on PROXY; what is not for our number goes to the phone at BEHIND. `more` fills in what
    another template than that of the proxy wants."""

    def __init__(
        self,
        folder: Path,
        switch: Switch,
        peers: Peers,
        template: Path = TEMPLATE,
        more: Mapping[str, str] | None = None,
    ) -> None:
        path = program("kamailio", "kamailio")
        self.server_port = switch.sip_port
        """The one that it leads to."""
        filled = {
            "HOST": PROXY, "PORT": peers.proxy, "SERVER": f"{switch.host}:{self.server_port}", "NUMBER": NUMBER,
            "PHONE": f"{BEHIND}:{peers.behind}", "MODULES": next(each for each in MODULES if Path(each).is_dir()),
            **(more or {}),
        }  # fmt: skip
        text = template.read_text()
        for name, value in filled.items():
            text = text.replace(f"@{name}@", str(value))
        config = folder / "kamailio.cfg"
        config.write_text(text)
        self._log = folder / "kamailio.log"
        self._run = tempfile.mkdtemp(prefix="kam")  # its sockets' paths must be short
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [path, "-f", str(config), "-DD", "-E", "-m", "32", "-M", "4", "-Y", self._run],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            wait_listening(peers.proxy, "UDP")
            wait_listening(peers.proxy, "TCP")
        except AssertionError:
            self.close()
            pytest.fail(self._log.read_text(errors="replace")[-3000:])

    def close(self) -> None:
        """End it and its children."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._run, ignore_errors=True)
