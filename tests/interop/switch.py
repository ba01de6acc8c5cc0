"""A whole server for tests with foreign phones, proxies and attackers: a `trunkline serve` process with an account, a
number, the account's web application, and trunks to addresses that are known beforehand."""

import base64
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.nodes import Nodes, serving
from tests.e2e.voice_app import VoiceApp, response
from tests.ports import free_port
from trunkline.accounts.directory import create_account
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.storage.database import Database

NUMBER = "+12025550142"
START_S = 120.0
SETTLE_S = 60.0
POLL_S = 0.02
HOST = "127.0.0.1"
ERROR = re.compile(r"^(?:\S+ (?:ERROR|CRITICAL) |.*Traceback |\w*(?:Error|Exception)\b).*$", re.MULTILINE)
"""What a line about a defect looks like in the server's log."""
MODULES = {
    "trunkline.supervisor": "supervisor",
    "trunkline.media.process": "media",
    "trunkline.media.recorder": "recorder",
    "trunkline.media.audio_worker": "worker",
}
"""What the server's processes run; any other is the node."""
LIMITS: dict[str, dict[str, Any]] = {
    "media": {"legs": 200},
    "voice": {"calls_per_second": 0},
    "speech": {"engine": "tones"},
    "webhooks": {"retry_first_s": 0.2},
}


class Switch:
    """See the module. `sip` is where it takes calls; `app` answers at /voice and hears of ends at /status."""

    number = NUMBER

    def __init__(
        self, folder: Path, trunks: Sequence[Mapping[str, Any]], host: str = HOST, **settings: Mapping[str, Any]
    ) -> None:
        self.app = VoiceApp()
        self.host, self._sip_port = host, free_port(host, 2)
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        tables: dict[str, Any] = {
            "profile": "development",
            "server": {"port": port},
            "sip": {"enabled": True, "host": host, "port": self._sip_port, **settings.pop("sip", {})},
            "connectors": [{"name": "air", "kind": "loopback"}],
            "trunks": [dict(trunk) for trunk in trunks],
        }
        for name in {*LIMITS, *settings}:
            tables[name] = {**LIMITS.get(name, {}), **settings.get(name, {})}
        self.server = serving(folder, tables)
        self.account = self.server.seed(self._seed)
        self._client: Any = None

    @property
    def sip_port(self) -> int:
        """Of the server; of the next node, where there are several."""
        return self.server.sip_port if isinstance(self.server, Nodes) else self._sip_port

    async def _seed(self, database: Database, clock: Clock) -> Account:
        account = await create_account(database, clock, "Interop")
        number = PhoneNumber(
            sid=new_sid(PHONE_NUMBER), account_sid=account.sid, phone_number=NUMBER, bought_ms=clock.now_ms(),
            voice_url=f"{self.app.url}/voice", status_callback=f"{self.app.url}/status",
        )  # fmt: skip
        await database.insert(number)
        return account

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> "Switch":
        """Start it and wait until it takes calls."""
        self.server.start()
        until = time.monotonic() + START_S
        while not self._ready():
            assert time.monotonic() < until, self.server.tail()
            time.sleep(POLL_S)
        return self

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def close(self, *, hard: bool = False) -> None:
        """End everything; `hard`: without waiting for calls to end."""
        if self._client is not None:
            self._client.http_client.session.close()
        try:
            if not hard:
                self.server.stop()
        finally:
            self.server.close()
            self.app.close()

    # -- what tests ask --------------------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """Twilio's own client of the account."""
        if self._client is None:
            from twilio.rest import Client

            from trunkline.testing.local import http_client

            self._client = Client(self.account.sid, self.account.auth_token, http_client=http_client(self.url))
        return self._client

    def fetch(self, url: str) -> bytes:
        """What is at a URL of the server, logged in."""
        login = base64.b64encode(f"{self.account.sid}:{self.account.auth_token}".encode()).decode()
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def answers(self, *verbs: str, **others: str) -> None:
        """Forget all requests so far; calls get these verbs from now on, and those of `others` at their paths."""
        self.app.hooks.clear()
        self.app.answers["/voice"] = response(*verbs)
        for path, document in others.items():
            self.app.answers[f"/{path}"] = response(document)

    def calls(self, to: str, *verbs: str, **more: Any) -> Any:
        """Have the API place a call."""
        return self.client.calls.create(
            to=to, from_=NUMBER, twiml=response(*verbs), status_callback=f"{self.app.url}/status", **more
        )

    def ends(self, count: int = 1, timeout_s: float = SETTLE_S) -> list[str]:
        """The statuses of `count` calls that have ended, sorted; each is told once."""
        told = self.app.wait("/status", count, timeout_s)
        assert len({one["CallSid"] for one in told}) == len(told) == count
        return sorted(one["CallStatus"] for one in told)

    def landed(self, sid: str) -> Any:
        """The call once it is over."""
        until = time.monotonic() + SETTLE_S
        while (call := self.client.calls(sid).fetch()).status in ("queued", "ringing", "in-progress"):
            assert time.monotonic() < until, call.status
            time.sleep(POLL_S)
        return call

    def errors(self, *expected: str) -> list[str]:
        """Lines of the log about defects, but for those that hold one of `expected`."""
        text = self.server.whole_log().read_text(errors="replace")
        return [line for line in ERROR.findall(text) if not any(known in line for known in expected)]

    def resident(self) -> dict[str, int]:
        """Bytes of memory of each process of the server, without what it shares with others, by `kind pid`."""
        return {f"{kind} {pid}": _resident(pid) for pid, kind in self.processes()}

    def processes(self) -> Iterator[tuple[int, str]]:
        """The server's processes: pid and kind (MODULES)."""
        pids = [self.server.pid]
        for pid in pids:
            pids += _children(pid)
            command = _read(Path(f"/proc/{pid}/cmdline")).split("\0")
            yield pid, next((kind for module, kind in MODULES.items() if module in command), "node")


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in _read(task / "children").split()]
    return found


def _resident(pid: int) -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB", _read(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


PROXY, BEHIND = "127.0.0.4", "127.0.0.5"
"""Address of the proxy, and of phones whose calls are only taken if they come through it."""
STRANGER = "127.0.0.3"
"""An address of no trunk: it needs a login."""
LOGIN, PASSWORD = "alice", "secret"
TO_PHONE = {"UDP": "+120255510", "TCP": "+120255511"}
TO_PROXY = {"UDP": "+120255520", "TCP": "+120255521"}
TO_SIPP = {"UDP": "+120255530", "TCP": "+120255531"}
TO_GUARDED = "+120255532"
"""Beginnings of the numbers that lead to each peer."""


class Peers:
    """The ports of those who are called, and the trunks that lead there."""

    def __init__(self) -> None:
        self.phone, self.proxy, self.sipp = free_port(span=2), free_port(PROXY), free_port()
        self.behind = free_port(BEHIND, 2)

    def trunks(self) -> list[dict[str, Any]]:
        """See `Switch`."""
        found: list[dict[str, Any]] = [{"name": "near", "addresses": [f"{HOST}/32"], "prefixes": []}]
        for name, host, port, prefixes in (
            ("phone", HOST, self.phone, TO_PHONE),
            ("proxy", PROXY, self.proxy, TO_PROXY),
            ("sipp", HOST, self.sipp, TO_SIPP),
        ):
            for transport, prefix in prefixes.items():
                gateway = f"sip:{host}:{port};transport={transport.lower()}"
                found.append({"name": f"{name}-{transport.lower()}", "gateways": [gateway], "prefixes": [prefix]})
        found[3]["addresses"] = [f"{PROXY}/32"]
        guarded = {"name": "guarded", "gateways": [f"sip:{HOST}:{self.sipp}"], "prefixes": [TO_GUARDED]}
        return [*found, {**guarded, "username": LOGIN, "password": PASSWORD}]


def wait_listening(port: int, transport: str = "UDP", timeout_s: float = SETTLE_S) -> None:
    """Until some process has the port, without touching it: SIPp takes a connection that closes again for a failure."""
    table, state = Path(f"/proc/net/{transport.lower()}"), {"TCP": "0A", "UDP": "07"}[transport]
    until = time.monotonic() + timeout_s
    while True:
        sockets = [line.split() for line in table.read_text().splitlines()[1:]]
        if any(each[1].endswith(f":{port:04X}") and each[3] == state for each in sockets):
            return
        assert time.monotonic() < until, f"nothing listens on {port}"
        time.sleep(POLL_S)
