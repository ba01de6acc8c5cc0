"""Restarts of the node while messages come over HTTP and SMPP and calls are up: the customers count, nothing fails.

`RESTARTS=10 pytest -s tests/e2e/test_restarts.py` prints the figures of docs/reference/upgrades.md.
"""

import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.call_server import NUMBER
from tests.e2e.carrier import Carrier
from tests.e2e.conftest import make_tenant
from tests.e2e.restart_load import Esme, Held, Requests, eventually, post
from tests.e2e.server import Server
from tests.e2e.test_calls_crash import Scene
from tests.e2e.voice_app import response
from trunkline.bootstrap_processes import ORDERS_SOCKET, socket_path
from trunkline.model.clock import Clock
from trunkline.settings import load
from trunkline.storage.database import Database
from trunkline.supervisor.orders import give

RESTARTS = int(os.environ.get("RESTARTS", "3"))
CALLS = int(os.environ.get("CALLS", "2"))
HOLDS_S = (1.0, 4.0, 16.0, 24.0)
"""How long requests are held: some longer than an old process waits for one whose work has begun."""
HELD = int(os.environ.get("HELD", "2000"))
SYSTEM_ID, PASSWORD = "restarts", "secret12"
HANDSET = "+12025550199"


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    carrier = Carrier(latency_ms=5, receipt_delay_ms=200)
    yield carrier
    carrier.close()


class Customers(Scene):
    """A server with a carrier and SMPP clients besides the phones."""

    def __init__(self, folder: Path, carrier: Carrier) -> None:
        super().__init__(
            folder, {"shutdown_s": 10}, messaging={"long_code_mps": 0}, smpp_server={"enabled": True, "port": 0},
            connectors=[carrier.connector()],
        )  # fmt: skip
        self.server.seed(self._client)

    async def _client(self, database: Database, clock: Clock) -> None:
        account = self.server.account
        account.smpp_system_id, account.smpp_password = SYSTEM_ID, PASSWORD
        await database.update(account)

    def restart(self, **order: Any) -> dict[str, Any]:
        """One restart; what the supervisor said at its end."""
        path = socket_path(load(self.server.folder / "trunkline.toml", {}), ORDERS_SOCKET)
        (*_, last) = give(path, {"do": "restart", "grace_s": 1.0, "ready_s": 120.0, **order}, 300.0)
        assert last["ok"], (last, self.server.tail())
        return last

    def smpp_port(self) -> int:
        found = re.search(r"SMPP server listens on \S+ port (\d+)", self.server.text())
        assert found is not None
        return int(found[1])


@pytest.mark.slow
def test_restarts_under_load_fail_nothing(tmp_path: Path, carrier: Carrier) -> None:
    scene = Customers(tmp_path, carrier)
    scene.app.answers["/voice"] = response('<Play loop="0">/prompt.wav</Play>')
    sent: Requests | None = None
    esme: Esme | None = None
    held: Held | None = None
    try:
        server = scene.start().server
        calls = scene.dial(CALLS)
        sids = [scene.sid(call) for call in calls]
        account = server.account
        form = {"From": NUMBER, "To": HANDSET, "Body": "Over HTTP", "StatusCallback": f"{scene.app.url}/message"}
        sent = Requests(server.port, account.sid, str(account.auth_token), form)
        held = Held(server.port, account.sid, str(account.auth_token), form, HOLDS_S)
        esme = Esme(scene.smpp_port(), SYSTEM_ID, PASSWORD, NUMBER, HANDSET)
        eventually(lambda: len(sent.accepted) > 10 and len(esme.accepted) > 10, "traffic")
        began, pids, pauses = time.monotonic(), {server.child("node")}, []
        for _ in range(RESTARTS):
            counts = len(sent.accepted), len(esme.accepted), esme.binds
            pauses.append(scene.restart()["pause_s"])
            pids.add(max(server.children("node")))
            eventually(lambda c=counts: len(sent.accepted) > c[0] + 10, "requests after it")
            eventually(lambda c=counts: len(esme.accepted) > c[1] + 10 and esme.binds > c[2], "the client binds again")
        assert len(pids) == RESTARTS + 1
        assert server.text().count("trx1 goes on as the process before left it") == RESTARTS, "carrier"
        sent.stop()
        held.stop()
        esme.quiet()

        def told() -> bool:
            forms = scene.app.at("/message")
            delivered = {form["MessageSid"] for form in forms if form["MessageStatus"] == "delivered"}
            return {*sent.accepted, *held.accepted} <= delivered and esme.accepted <= set(esme.receipts)

        eventually(told, "receipts of everything")
        gaps = [call.gap(began) for call in calls]
        print(
            f"{RESTARTS} restarts, {len(sent.waits)} requests: {len(sent.failed)} failed, longest"
            f" {max(sent.waits):.2f} s; {len(held.accepted)} held {HOLDS_S} s: {len(held.failed)} failed;"
            f" {len(esme.accepted)} over SMPP: {len(esme.failed)} failed, {esme.binds} binds,"
            f" {len(esme.receipts) - len(set(esme.receipts))} receipts twice; {sum(call.up for call in calls)} of"
            f" {CALLS} calls up, longest gap {max(gaps) * 1000:.0f} ms; connections waited"
            f" {statistics.median(pauses):.2f} s (median), {max(pauses):.2f} s (longest)"
        )
        assert sent.failed == []
        assert held.failed == []
        assert esme.failed == []
        assert all(call.up for call in calls)
        assert {len(call.ports) for call in calls} == {1}
        for call in calls:
            call.hangs_up()
        assert {form["CallStatus"] for form in scene.ends(sids).values()} == {"completed"}
    finally:
        if esme is not None:
            esme.stop()
        if sent is not None:
            sent.stop()
        scene.close()


@pytest.mark.slow
def test_thousands_of_held_requests_are_answered_by_the_next_process(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = Server(tmp_path, {"profile": "development", "server": {"supervisor": "yes", "request_timeout_s": 300}})
    tenant = server.seed(make_tenant)
    form = {"From": tenant.numbers[0].phone_number, "To": HANDSET, "Body": "Held"}
    account = tenant.account
    held: list[socket.socket] = []
    try:
        server.start()
        head, body = post(account.sid, str(account.auth_token), form)
        for _ in range(HELD):
            held.append(socket.create_connection(("127.0.0.1", server.port), 60))
            held[-1].sendall(head + body[:10])
        path = socket_path(load(tmp_path / "trunkline.toml", {}), ORDERS_SOCKET)
        (*_, last) = give(path, {"do": "restart", "grace_s": 1.0, "ready_s": 120.0}, 300.0)
        assert last["ok"], (last, server.tail())
        for one in held:
            one.sendall(body[10:])
        answers = [one.recv(12) for one in held]
        print(f"\n{HELD} held requests: connections waited {last['pause_s']:.2f} s")
        assert Counter(answers) == {b"HTTP/1.1 201": HELD}
    finally:
        for one in held:
            one.close()
        server.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_the_media_process_is_replaced_with_calls_up(tmp_path: Path, carrier: Carrier) -> None:
    scene = Customers(tmp_path, carrier)
    scene.app.answers["/voice"] = response('<Play loop="0">/prompt.wav</Play>')
    try:
        server = scene.start().server
        calls = scene.dial(2)
        before = set(server.children("media"))
        scene.restart(media=True)
        eventually(lambda: not before & set(server.children("media")), "the old media processes end")
        heard = [len(call.heard) for call in calls]
        eventually(lambda: all(len(call.heard) > h + 50 for call, h in zip(calls, heard, strict=True)), "audio goes on")
        assert all(call.up and len(call.ports) == 1 for call in calls)
    finally:
        scene.close()


def answers(peer: socket.socket, number: int) -> str:
    """What a SIP peer is told over its connection."""
    host, port = peer.getsockname()
    peer.sendall(
        f"OPTIONS sip:{host} SIP/2.0\r\nVia: SIP/2.0/TCP {host}:{port};branch=z9hG4bKr{number};rport\r\n"
        f"From: <sip:peer@{host}>;tag=1\r\nTo: <sip:{host}>\r\nCall-ID: restart{number}\r\nCSeq: 1 OPTIONS\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    return peer.recv(4096).decode().partition("\r\n")[0]


@pytest.mark.slow
def test_the_commands(tmp_path: Path, carrier: Carrier) -> None:
    scene = Customers(tmp_path, carrier)
    try:
        server = scene.start().server
        command = [sys.executable, "-m", "trunkline", "--config", str(server.folder / "trunkline.toml")]

        def run(*words: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, check=False)

        peer = socket.create_connection(("127.0.0.1", server.sip_port), 60)
        assert answers(peer, 1) == "SIP/2.0 200 OK"
        first = server.child("node")
        restarted = run("restart", "--grace", "0.5")
        assert restarted.returncode == 0, restarted.stderr
        assert "serves; connections waited" in restarted.stdout
        second = server.child("node")
        assert second != first
        assert answers(peer, 2) == "SIP/2.0 200 OK", "its connection is the next process's"
        upgraded = run("upgrade", "--python", sys.executable, "--grace", "0.5")
        assert upgraded.returncode == 0, upgraded.stderr
        assert server.child("node") not in (first, second)
        assert answers(peer, 3) == "SIP/2.0 200 OK"
        peer.close()
        broken = tmp_path / "python"
        broken.write_text("#!/bin/sh\nexit 3\n")
        broken.chmod(0o700)
        third = server.child("node")
        refused = run("upgrade", "--python", str(broken))
        assert (refused.returncode, server.child("node")) == (1, third)
        assert '"stage": ""' in run("upgrade", "--status").stdout
    finally:
        scene.close()
