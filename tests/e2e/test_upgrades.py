"""Upgrades from one release to another and back, across a schema pivot, under everything at once: nothing fails.

Customers count: HTTP clients, requests that are held for seconds, SMPP clients with their receipts, phones that listen.
`pytest -s tests/e2e/test_upgrades.py` prints the figures of docs/reference/upgrades.md. The other release:
tests.e2e.releases; `AFTER` names the commit of this one, else it is the working tree.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.call_server import NUMBER
from tests.e2e.carrier import Carrier
from tests.e2e.conftest import Tenant
from tests.e2e.releases import Release, install, previous_commit, running
from tests.e2e.restart_load import Esme, Held, Requests, eventually
from tests.e2e.test_pivot import sqlite_rows, wait_in
from tests.e2e.test_restarts import HANDSET, PASSWORD, SYSTEM_ID, Customers
from tests.e2e.voice_app import response
from trunkline.bootstrap_stores import open_queue
from trunkline.model.numbers import PhoneNumber
from trunkline.settings import load

pytestmark = pytest.mark.slow
UPGRADES = int(os.environ.get("UPGRADES", "10"))
CALLS = int(os.environ.get("CALLS", "50"))
HOLDS_S = tuple(map(float, os.environ.get("HOLDS", "2,3,5,7").split(",")))
WAITING = 3000
"""Messages in the queue that the pivot has to fill."""
PIVOT = (
    ("expand", "lane_split"), ("backfill", "lane_split", "--rows", "100"), ("verify", "lane_split"),
    ("contract", "lane_split", "--wait", "60"), ("expand", "lane_split", "--back"),
    ("backfill", "lane_split", "--rows", "100"), ("verify", "lane_split"), ("contract", "lane_split", "--wait", "60"),
)  # fmt: skip
"""One step after each upgrade: each is done under the other release than the one before."""


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    carrier = Carrier(latency_ms=5, receipt_delay_ms=200)
    yield carrier
    carrier.close()


class Operator:
    """Commands of this release, beside the server."""

    def __init__(self, scene: Customers) -> None:
        self._config = str(scene.server.folder / "trunkline.toml")
        self.steps = iter(PIVOT)
        self.done: list[str] = []

    def __call__(self, *words: str) -> str:
        command = [sys.executable, "-m", "trunkline", "--config", self._config, *words]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
        return ran.stdout

    def pivots(self) -> None:
        """The next step of the pivot, if there is one."""
        words = next(self.steps, ())
        if words:
            self("schema", *words)
            self.done.append(words[0])


class Load:
    """All customers of the server."""

    def __init__(self, scene: Customers) -> None:
        server, account = scene.server, scene.server.account
        self.scene = scene
        form = {"From": NUMBER, "To": HANDSET, "Body": "Over HTTP", "StatusCallback": f"{scene.app.url}/message"}
        who = (server.port, account.sid, str(account.auth_token))
        self.requests = Requests(*who, form)
        self.held = Held(*who, form, HOLDS_S)
        self.esmes = [Esme(scene.smpp_port(), SYSTEM_ID, PASSWORD, NUMBER, HANDSET) for _ in range(2)]

    @property
    def counts(self) -> list[int]:
        """What each has done."""
        return [len(self.requests.accepted), *(len(esme.accepted) for esme in self.esmes)]

    def goes_on(self) -> None:
        """Wait until each has done some more."""
        before = self.counts
        eventually(lambda: all(now > then + 10 for now, then in zip(self.counts, before, strict=True)), "traffic")

    @property
    def failed(self) -> list[str]:
        return [*self.requests.failed, *self.held.failed, *(text for esme in self.esmes for text in esme.failed)]

    def quiet(self) -> None:
        """Finish what is under way and begin nothing more."""
        self.requests.stop()
        self.held.stop()
        for esme in self.esmes:
            esme.quiet()

    def receipts(self) -> list[str]:
        """Of all that was accepted: wait until each has its receipt. Those that came over SMPP."""

        def told() -> bool:
            forms = self.scene.app.at("/message")
            delivered = {form["MessageSid"] for form in forms if form["MessageStatus"] == "delivered"}
            return {*self.requests.accepted, *self.held.accepted} <= delivered and submitted <= set(self._told())

        submitted = {sid for esme in self.esmes for sid in esme.accepted}
        eventually(told, "receipts of everything", 180.0)
        return self._told()

    def _told(self) -> list[str]:
        return [sid for esme in self.esmes for sid in esme.receipts]

    def stop(self) -> None:
        for esme in self.esmes:
            esme.stop()


def waiting_in(scene: Customers) -> dict[int, str]:
    """Messages in the queue before the server starts; id -> lane."""

    number = PhoneNumber(sid="", account_sid=scene.server.account.sid, phone_number=NUMBER, bought_ms=0)

    async def fill() -> dict[int, str]:
        queue = open_queue(load(scene.server.folder / "trunkline.toml", {}))
        try:
            return await wait_in(queue, Tenant(scene.server.account, (number, number)), WAITING)
        finally:
            await queue.close()

    return asyncio.run(fill())


def upgrade(scene: Customers, release: Release) -> float:
    """Put the server on a release; how long connections waited."""
    last = scene.restart(do="upgrade", python=str(release.python))
    pid = max(scene.server.children("node"))
    assert running(pid) == str(release.python)
    return float(last["pause_s"])


def test_upgrades_and_a_pivot_under_load_fail_nothing(tmp_path: Path, carrier: Carrier) -> None:
    commit = previous_commit()
    before = install(tmp_path / "before", f"before.{commit}", commit)
    after = install(tmp_path / "after", "after", os.environ.get("AFTER", ""))
    assert before.version != after.version
    scene = Customers(tmp_path, carrier)
    scene.app.answers["/voice"] = response('<Play loop="0">/prompt.wav</Play>')
    waiting = waiting_in(scene)
    load: Load | None = None
    try:
        scene.server.python = str(before.python)
        scene.start()
        operator = Operator(scene)
        calls = scene.dial(CALLS)
        sids = [scene.sid(call) for call in calls]
        load = Load(scene)
        load.goes_on()
        began, pauses = time.monotonic(), []
        for number in range(UPGRADES):
            pauses.append(upgrade(scene, before if number % 2 else after))
            load.goes_on()
            operator.pivots()
            load.goes_on()
        load.quiet()
        receipts = load.receipts()
        gaps = [call.gap(began) for call in calls]
        rows = sqlite_rows(scene.server.data / "queue.db", "old")
        wrong = sum(rows.get(one) != lane for one, lane in waiting.items())
        waits = sorted(load.requests.waits)
        print(
            f"\n{UPGRADES} upgrades between {before.version} and {after.version}, pivot {', '.join(operator.done)}:\n"
            f"{len(waits)} requests, longest {waits[-1]:.2f} s; {len(load.held.accepted)} held {HOLDS_S} s;"
            f" {sum(load.counts[1:])} over SMPP, {sum(esme.binds for esme in load.esmes)} binds,"
            f" {len(receipts) - len(set(receipts))} receipts twice; {len(load.failed)} failed;"
            f" {sum(call.up for call in calls)} of {CALLS} calls up, longest gap {max(gaps) * 1000:.0f} ms;"
            f" {wrong} rows wrong; connections waited"
            f" {statistics.median(pauses):.2f} s (median), {max(pauses):.2f} s (longest)"
        )
        assert load.failed == []
        assert wrong == 0
        assert all(call.up for call in calls)
        assert {len(call.ports) for call in calls} == {1}
        for call in calls:
            call.hangs_up()
        assert {form["CallStatus"] for form in scene.ends(sids).values()} == {"completed"}
    finally:
        if load is not None:
            load.stop()
        scene.close()
