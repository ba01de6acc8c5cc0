"""Customers of a server that is restarted: over HTTP and over SMPP, each counting what failed."""

import asyncio
import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from trunkline.smpp import constants as c
from trunkline.smpp import events
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import ConnectError, SessionStateError, WindowFullError
from trunkline.smpp.receipt import parse
from trunkline.smpp.transport import Connection, Handler, connect

TIMEOUT_S = 60.0
REBIND_S = 0.05


class Requests:
    """Threads that send messages; some keep their connection, at different paces, some do not."""

    def __init__(self, port: int, account: str, token: str, form: dict[str, str]) -> None:
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self.waits: list[float] = []
        self._port = port
        self._path = f"/2010-04-01/Accounts/{account}/Messages.json"
        login = base64.b64encode(f"{account}:{token}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}", "Content-Type": "application/x-www-form-urlencoded"}
        self._body = urlencode(form)
        self._over = threading.Event()
        ways = ((True, 0.02), (True, 0.25), (True, 1.3), (False, 0.1))
        self._threads = [threading.Thread(target=self._run, args=way, daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    def _run(self, keeps: bool, pause_s: float) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._over.wait(pause_s):
            began = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
                connection.request("POST", self._path, body=self._body, headers=self._headers)
                response = connection.getresponse()
                body = response.read()
                if response.status == 201:
                    self.accepted.append(json.loads(body)["sid"])
                else:
                    self.failed.append(f"{response.status} {body[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection = None
            self.waits.append(time.monotonic() - began)
            if not keeps and connection is not None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        """Send no more."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def post(account: str, token: str, form: dict[str, str]) -> tuple[bytes, bytes]:
    """Head and body of a request for a message."""
    login = base64.b64encode(f"{account}:{token}".encode()).decode()
    body = urlencode(form).encode()
    head = (
        f"POST /2010-04-01/Accounts/{account}/Messages.json HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Basic {login}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


class Held:
    """Threads whose requests are long under way: half of the body, seconds of nothing, the other half."""

    def __init__(self, port: int, account: str, token: str, form: dict[str, str], holds_s: tuple[float, ...]) -> None:
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self._head, self._body = post(account, token, form)
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(hold_s,), daemon=True) for hold_s in holds_s]
        for thread in self._threads:
            thread.start()

    def _run(self, hold_s: float) -> None:
        half = len(self._body) // 2
        while not self._over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_S) as connection:
                    connection.sendall(self._head + self._body[:half])
                    self._over.wait(hold_s)
                    connection.sendall(self._body[half:])
                    response = http.client.HTTPResponse(connection)
                    response.begin()
                    body = response.read()
                if response.status == 201:
                    self.accepted.append(json.loads(body)["sid"])
                else:
                    self.failed.append(f"held {hold_s:g} s: {response.status} {body[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"held {hold_s:g} s: {error!r}")

    def stop(self) -> None:
        """Finish those that are held; hold no more."""
        self._over.set()
        for thread in self._threads:
            thread.join()


class Esme(Handler):
    """An SMPP client that binds again whenever it is unbound, and submits all the time."""

    def __init__(self, port: int, system_id: str, password: str, source: str, destination: str) -> None:
        self.accepted: set[str] = set()
        self.receipts: list[str] = []
        self.failed: list[str] = []
        self.binds = 0
        self._port = port
        self._bind = p.BindTransceiver(system_id=system_id, password=password)
        self._pdu = p.SubmitSm(
            source_ton=1, source_npi=1, source=source.lstrip("+"), destination=destination.lstrip("+"),
            registered_delivery=1, message=b"Over SMPP",
        )  # fmt: skip
        self._submits = True
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def on_request(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        """A receipt."""
        if isinstance(pdu, p.DeliverSm):
            found = parse(pdu)
            if found is not None:
                self.receipts.append(str(found.message_id))
        connection.respond(sequence)

    async def _run(self) -> None:
        while not self._over:
            try:
                connection = await connect("127.0.0.1", self._port, self._bind, self)
            except ConnectError as error:
                self.failed.append(f"bind: {error}")
                await asyncio.sleep(REBIND_S)
                continue
            self.binds += 1
            while not connection.closed.done() and not self._over:
                if self._submits:
                    try:
                        connection.submit(self._pdu, self._answered)
                    except (SessionStateError, WindowFullError):
                        """It is being unbound: nothing was sent."""
                await asyncio.sleep(0.02)
        connection.close()
        await connection.closed

    def _answered(self, context: Any, outcome: Any) -> None:
        if isinstance(outcome, events.ResponseReceived) and outcome.pdu.status == c.ESME_ROK:
            self.accepted.add(outcome.pdu.message_id)
        else:
            self.failed.append(str(outcome))

    def quiet(self) -> None:
        """Submit no more; receipts still come."""
        self._submits = False

    def stop(self) -> None:
        """Unbind."""
        self._over = True
        self._thread.join(TIMEOUT_S)


def eventually(look: Callable[[], Any], what: str, patience_s: float = TIMEOUT_S) -> Any:
    """What it finds, once it finds something."""
    end = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found
