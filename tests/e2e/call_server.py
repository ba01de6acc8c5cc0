"""A server that takes calls, with its supervisor and children, for tests that kill them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twilio.rest import Client

from tests.e2e.server import START_S, Server, toml
from tests.ports import port_range
from trunkline.accounts.directory import create_account
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.storage.database import Database
from trunkline.testing.local import http_client

NUMBER = "+12015550100"
POLL_S = 0.02
_LISTENING = re.compile(r"listening on \S+ port (\d+)")
_SIP = re.compile(r"SIP on \S+ port (\d+)")
WORDS = {"media": "trunkline.media.process", "recorder": "trunkline.media.recorder", "node": "-m trunkline --config"}


class CallServer(Server):
    """See the module. Calls from 127.0.0.1 are a trunk's, and go out to `gateway`."""

    def __init__(self, folder: Path, gateway: int, legs: int = 250, **tables: Any) -> None:
        low, high = port_range()
        settings: dict[str, Any] = {
            "profile": "development",
            "sip": {"enabled": True, "port": 0},
            "media": {"legs": legs, "port_min": low, "port_max": min(high, low + 4 * legs + 400)},
            "voice": {"calls_per_second": 0, "trunk_calls_per_second": 0},
            "speech": {"engine": "tones"},
            "webhooks": {"retry_first_s": 0.2},
            "trunks": [{"name": "air", "addresses": ["127.0.0.1"], "gateways": [f"sip:127.0.0.1:{gateway}"]}],
            **tables,
        }
        super().__init__(folder, settings)
        self.sip_port = 0
        self.account: Account
        self._sdk: Any = None
        self.seed(self._tenant)

    async def _tenant(self, database: Database, clock: Clock) -> None:
        self.account = await create_account(database, clock, "Crash")
        self._number = PhoneNumber(
            sid=new_sid(PHONE_NUMBER), account_sid=self.account.sid, phone_number=NUMBER, bought_ms=clock.now_ms()
        )
        await database.insert(self._number)

    def start(self) -> "CallServer":
        """Start it and wait until it takes calls."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        command = [self.python, "-m", "trunkline", "--config", str(self._config), "serve"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=kept, cwd=self.folder
            )
        until = time.monotonic() + START_S
        while not (found := _LISTENING.search(self.text(begin))):
            assert self._process.poll() is None, f"the server ended: {self.tail()}"
            assert time.monotonic() < until, f"the server does not listen: {self.tail()}"
            time.sleep(POLL_S)
        self.port = int(found[1])
        sip = _SIP.search(self.text(begin))
        assert sip is not None
        self.sip_port = int(sip[1])
        self._tables["server"] = {**self._tables["server"], "port": self.port}
        self._tables["sip"] = {**self._tables["sip"], "port": self.sip_port}
        self._write()
        self._sdk = None
        return self

    def again(self, tables: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
        """Run another server with the same folder and settings, but for these tables, to its end."""
        config = self.folder / "again.toml"
        config.write_text(toml({**self._tables, **tables}))
        command = [sys.executable, "-m", "trunkline", "--config", str(config), "serve"]
        return subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)

    def text(self, begin: int = 0) -> str:
        """The log from an offset on."""
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode("utf-8", "replace")

    @property
    def client(self) -> Any:
        """Twilio's client, pointed here."""
        if self._sdk is None:
            self._sdk = Client(self.account.sid, str(self.account.auth_token), http_client=http_client(self.base_url))
        return self._sdk

    def answer_at(self, url: str, status: str = "") -> None:
        """Where the number's documents are, and who is told of the ends of its calls."""
        self.client.incoming_phone_numbers(self._number.sid).update(voice_url=url, status_callback=status)

    def child(self, name: str) -> int:
        """The oldest child of a kind."""
        return min(self.children(name))

    def children(self, name: str) -> list[int]:
        """The children of a kind, a spare included."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if parent == self.pid and WORDS[name] in words:
                    found.append(int(entry.name))
        return found

    def kill_child(self, name: str) -> float:
        """End a child as a crash would; when."""
        os.kill(self.child(name), signal.SIGKILL)
        return time.monotonic()

    def until_back(self, begin: int) -> None:
        """Wait until a node listens, by the log from an offset on."""
        until = time.monotonic() + START_S
        while not _LISTENING.search(self.text(begin)):
            assert time.monotonic() < until, f"the node did not come back: {self.tail()}"
            time.sleep(POLL_S)
