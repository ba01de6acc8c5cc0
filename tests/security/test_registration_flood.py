"""A flood of REGISTERs on the whole server: without a login, with wrong ones, broken ones, from many addresses. Phones
stay registered, calls go on, nothing is let in, nothing is kept."""

import itertools
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_sip_phones import Domain, node_of, talk
from tests.e2e.voice_app import VoiceApp, response
from trunkline.sip import digest
from trunkline.testing.local import Local

SOURCES = 20
RATE = 1500
"""REGISTERs a second, all sources together: about as many as their limits let through."""
FLOOD_S = 6.0
PACE_S = 0.01
GROWTH_BYTES = 40 * 1024 * 1024


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


class Flood(threading.Thread):
    """Sends for FLOOD_S; `statuses` counts what it was answered."""

    def __init__(self, domain: str, port: int) -> None:
        super().__init__(daemon=True)
        self._domain, self._target = domain, ("127.0.0.1", port)
        self._dice = random.Random(7)
        self._numbers = itertools.count(1)
        self._sockets = [self._socket(f"127.0.2.{number}") for number in range(1, SOURCES + 1)]
        self._challenges: dict[int, digest.Challenge] = {}
        self.sent = 0
        self.statuses: dict[str, int] = {}

    def _socket(self, host: str) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((host, 0))
        made.setblocking(False)
        return made

    def run(self) -> None:
        """See the class."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < FLOOD_S:
            while self.sent < passed * RATE:
                self._send(self.sent % SOURCES)
            self._hear()
            time.sleep(PACE_S)
        self._hear()
        for each in self._sockets:
            each.close()

    def _send(self, index: int) -> None:
        self.sent += 1
        number, user = next(self._numbers), self._dice.choice(["ada", "bob", "admin", "1000", "x" * 200])
        host, port = self._sockets[index].getsockname()
        login, challenge = "", self._challenges.get(index)
        if challenge is not None and number % 3 == 0:
            answer = digest.answer(challenge, user, str(number), "REGISTER", f"sip:{self._domain}", "c", number)
            login = f"Authorization: {answer}\r\n"
        text = (
            f"REGISTER sip:{self._domain} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{number};rport\r\n"
            f"From: <sip:{user}@{self._domain}>;tag={number}\r\nTo: <sip:{user}@{self._domain}>\r\n"
            f"Call-ID: {number}\r\nCSeq: 1 REGISTER\r\nContact: <sip:{user}@{host}:{port}>\r\n{login}"
            "Content-Length: 0\r\n\r\n"
        ).encode()
        if number % 10 == 0:
            at = self._dice.randrange(len(text))
            text = text[:at] + self._dice.randbytes(20) + text[at + 10 :]
        self._sockets[index].sendto(text, self._target)

    def _hear(self) -> None:
        for index, each in enumerate(self._sockets):
            while True:
                try:
                    data = each.recv(4096)
                except BlockingIOError:
                    break
                status = data[8:11].decode("latin-1")
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status == "401" and index not in self._challenges:
                    lines = data.decode("latin-1").split("\r\n")
                    value = next(line for line in lines if line.startswith("WWW-Authenticate")).partition(": ")[2]
                    self._challenges[index] = digest.parse_challenge(value)


def resident(pid: int) -> int:
    """Bytes of memory of a process's own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def metric(trunkline: Local, name: str) -> float:
    lines = trunkline._ask("GET", "/metrics", None, {}).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_flood_of_registers(trunkline: Local, app: VoiceApp) -> None:
    domain = Domain(trunkline, app)
    ada, bob = domain.phone("ada"), domain.phone("bob", "TCP")
    domain.answers(f"<Dial><Sip>{bob.uri}</Sip></Dial>")
    sip = trunkline.simulator("GET", "/_simulator/phones")["platform"]
    node = node_of(trunkline)
    calling = ada.dials("200", wait=False)
    called = bob.answers()
    talk(calling, called)
    registered, before = metric(trunkline, "trunkline_registrations"), resident(node)
    flood = Flood(domain.name, sip[1])
    flood.start()
    try:
        talk(calling, called)  # the call that is up goes on
        called.hangs_up()
        calling.ended()
        assert ada.registers().status == 200  # phones refresh
        trunkline.client.calls.create(to=ada.uri, from_=trunkline.number, twiml=response("<Say>Still here</Say>"))
        ada.answers().hears("Still here")  # and are called
    finally:
        flood.join()
    assert flood.sent >= RATE * FLOOD_S * 0.9
    assert set(flood.statuses) <= {"400", "401", "403", "404", "405", "416", "420", "481", "501", "505", "513"}
    assert flood.statuses["401"] > 100
    assert flood.statuses["403"] > 10
    assert metric(trunkline, "trunkline_registrations") == registered
    assert node_of(trunkline) == node
    assert resident(node) - before < GROWTH_BYTES
    assert "Traceback" not in trunkline._log.read_text(errors="replace")
