"""Two servers on one database and one memory store: the first is killed with calls up, the second goes on with them.

Everything is counted at the peers: how long each was silent, where in the prompt it went on, what it could still do.
"""

import base64
import json
import os
import re
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.air import _PORT, Air, Call, Heard, Message
from tests.e2e.call_server import NUMBER, CallServer
from tests.e2e.test_calls_crash import PROMPT, wav
from tests.e2e.voice_app import VoiceApp, response
from tests.ports import port_range
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import RedisServer, needs_redis
from trunkline.model.clock import Clock
from trunkline.rtp import g711
from trunkline.storage.database import Database

pytestmark = [needs_postgres, needs_redis]
PARTITIONS = 4
PATIENCE_S = 60.0
CALLS, BRIDGED, STOPPED, LEFT = 12, 6, 5, 3
LEASE_S = 1.0
MARGIN_S = 0.2
"""What was under way when the host died may take so long to be heard."""
CODED = g711.encode(PROMPT)
PLACES = {CODED[8 * ms : 8 * ms + 160]: ms for ms in range(len(CODED) // 8 - 20)}
"""Where in the prompt a frame is, in ms; it is noise, so that no two are alike."""


class MovableAir(Air):
    """Peers who follow a call to another host. `strange` are the packets that come from anywhere else meanwhile: when,
    and from which port; `requests` what SIP came, from which port."""

    def __init__(self) -> None:
        self.strange: list[tuple[float, int]] = []
        self.requests: list[tuple[float, int, str]] = []
        super().__init__()

    def _hear(self, call: Call) -> None:
        while True:
            try:
                data, source = call.rtp.recvfrom(2048)
            except BlockingIOError:
                return
            heard = Heard(time.monotonic(), source[1], data)
            call.ssrc = call.ssrc or (heard.packet.ssrc if call.up_at else 0)
            if heard.packet.ssrc == call.ssrc:
                call.heard.append(heard)
            else:
                self.strange.append((heard.at, source[1]))

    def _send(self, text: str, to: tuple[str, int]) -> None:
        if text.startswith("SIP/2.0 "):  # whatever comes is answered
            self.requests.append((time.monotonic(), to[1], text))
        super()._send(text, to)

    def _called(self, message: Message, source: tuple[str, int], call: Call | None) -> None:
        if call is not None and call.up_at:
            call.target = source
            contact = re.search(r"<([^>]+)>", message.get("contact"))
            port = _PORT.search(message.body)
            assert contact is not None
            assert port is not None
            call.contact = contact[1]
            call.target_rtp = ("127.0.0.1", int(port[1]))
            call.ssrc = 0
        super()._called(message, source, call)


class Member(CallServer):
    """One node of the cluster; `first`: whose account and number it knows, too."""

    def __init__(self, folder: Path, gateway: int, first: "Member | None", **tables: Any) -> None:
        self._first = first
        super().__init__(folder, gateway, **tables)

    async def _tenant(self, database: Database, clock: Clock) -> None:
        if self._first is None:
            await super()._tenant(database, clock)
        else:
            self.account, self._number = self._first.account, self._first._number

    def processes(self) -> list[int]:
        """The supervisor and all that it runs."""
        return [self.pid, *(pid for name in ("media", "recorder", "node") for pid in self.children(name))]

    def dies(self) -> float:
        """The whole host is gone at once; when."""
        pids = self.processes()
        when = time.monotonic()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.wait(10)
        return when


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


class Cluster:
    """Two nodes, their stores, their peers, the customer's app. `own`: of each node's SIP alone; `more`: tables."""

    def __init__(
        self, folder: Path, database: PostgresServer, sip: dict[str, Any] | None = None,
        own: Sequence[dict[str, Any]] = ({}, {}), **more: Any,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.air, self.app = MovableAir(), VoiceApp()
        self.memory = RedisServer().start()
        self.nodes: list[Member] = []
        storage = {
            "engine": "postgres", "queue": [database.database()], "database": database.database(),
            "partitions": PARTITIONS,
        }  # fmt: skip
        (folder / "objects").mkdir()
        for number, zone in enumerate("ab"):
            (folder / zone).mkdir()
            low = port_range()[0] + number * 1_500
            tables = {
                "storage": storage,
                "memory": {"engine": "valkey", "url": self.memory.url},
                "objects": {"url": f"file://{folder / 'objects'}"},
                "security": {"master_key": base64.b64encode(b"k" * 32).decode()},
                "node": {"name": f"node-{zone}", "zone": zone, "address": f"127.0.0.1:{free_port()}"},
                "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": LEASE_S},
                "sip": {"enabled": True, "port": 0, **(sip or {}), **own[number]},
                "media": {"legs": 250, "port_min": low, "port_max": low + 1_400},
                **more,
            }
            first = self.nodes[0] if self.nodes else None
            self.nodes.append(Member(folder / zone, self.air.port, first, **tables))
        self.app.files["/prompt.wav"] = ("audio/wav", wav(PROMPT))
        menu = '<Gather numDigits="1" timeout="120" action="/chosen"><Play>/prompt.wav</Play></Gather>'
        self.app.answers.update(
            {
                "/voice": response(menu),
                "/chosen": response('<Gather timeout="60"/>'),
                "/dial": response('<Dial action="/dialled">+12125550177</Dial>'),
                "/dialled": response("<Hangup/>"),
            }
        )

    def start(self) -> "Cluster":
        for node in self.nodes:
            node.start()
        time.sleep(1)
        return self

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.air.close()
        self.app.close()
        self.memory.close()

    def dial(self, count: int, path: str) -> list[Call]:
        """So many calls to the first node, which are up and hear something."""
        first = self.nodes[0]
        first.answer_at(f"{self.app.url}{path}", f"{self.app.url}/status")
        calls = []
        for _ in range(count):
            calls.append(self.air.dials(first.sip_port, NUMBER, f"+1555{len(self.air.calls):07d}"))
            time.sleep(0.02)
        try:
            eventually(lambda: all(len(call.heard) > 25 for call in calls), "audio of all calls")
        except AssertionError:
            print([(call.status, len(call.heard), call.ended_by) for call in calls], first.tail(60))
            raise
        return calls


def eventually(look: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer) -> Iterator[Cluster]:
    made = Cluster(tmp_path, postgres)
    try:
        yield made.start()
    finally:
        made.close()


def test_calls_outlive_their_host(cluster: Cluster) -> None:
    first, second = cluster.nodes
    bridged = cluster.dial(BRIDGED, "/dial")
    callees = [call for call in cluster.air.calls.values() if call not in bridged]
    assert len(callees) == BRIDGED
    menus = cluster.dial(CALLS, "/voice")
    try:
        eventually(lambda: all(_said(call) for call in menus), "the prompt of all calls")
    except AssertionError:
        print([(len(_said(call)), len(call.heard), call.up) for call in menus], first.tail(60))
        raise
    everyone = [*menus, *bridged, *callees]
    ports = {call.heard[-1].port for call in everyone}
    killed = first.dies()
    _follow(everyone, ports, killed, second)
    eventually(lambda: all(_spoke_at(call, killed) for call in menus), "the prompt")
    spoke = [_spoke_at(call, killed) - killed for call in menus]
    print(f"the prompt goes on after {min(spoke):.3f} to {max(spoke):.3f} s")
    repeated = [_stopped_ms(call, killed) - _went_on_ms(call, killed) for call in menus]
    print(f"of the prompt {min(repeated)} to {max(repeated)} ms are said again (negative: left out)")
    # it goes on where it was when the host was last seen: somewhere between its end and now
    assert all(-1000 * after_s - 100 <= ms <= 2000 for ms, after_s in zip(repeated, spoke, strict=True)), repeated
    for call in menus:
        call.press("7")
    forms = eventually(lambda: cluster.app.at("/chosen") if len(cluster.app.at("/chosen")) == CALLS else None, "keys")
    assert {form["Digits"] for form in forms} == {"7"}
    for call in (*menus, *bridged):
        call.hangs_up()
    eventually(lambda: all(call.ended_at for call in everyone), "the end of all calls")
    told = eventually(
        lambda: cluster.app.at("/status") if len(cluster.app.at("/status")) >= CALLS + BRIDGED else None, "callbacks"
    )
    assert {form["CallStatus"] for form in told} == {"completed"}
    assert len({form["CallSid"] for form in told}) == CALLS + BRIDGED == len(told)


@pytest.mark.slow
def test_calls_go_on_while_their_database_is_away(tmp_path: Path) -> None:
    """A zone is lost: the owner of the calls, and the PostgreSQL server that knows of them. Then another server
    is promoted (here: it goes on)."""
    database = PostgresServer().create().start()
    cluster = Cluster(tmp_path, database)
    try:
        cluster.start()
        _without_database(cluster, database)
    finally:
        _signal(database, signal.SIGCONT)
        cluster.close()
        database.close()


def _without_database(cluster: Cluster, database: PostgresServer) -> None:
    first, second = cluster.nodes
    app = cluster.app
    bridged = cluster.dial(LEFT, "/dial")
    callees = [call for call in cluster.air.calls.values() if call not in bridged]
    menus = cluster.dial(LEFT, "/voice")
    everyone = [*menus, *bridged, *callees]
    ports = {call.heard[-1].port for call in everyone}
    _signal(database, signal.SIGSTOP)
    killed = first.dies()
    _follow(everyone, ports, killed, second)
    for call in menus:
        call.press("7")
    forms = eventually(lambda: app.at("/chosen") if len(app.at("/chosen")) == LEFT else None, "keys")
    assert {form["Digits"] for form in forms} == {"7"}, "documents go on"
    bridged[0].hangs_up()
    menus[0].hangs_up()
    eventually(lambda: all(call.ended_at for call in (bridged[0], menus[0], callees[0])), "the ends of three legs")
    assert app.at("/status") == [], "nothing is told that is not stored"
    _signal(database, signal.SIGCONT)
    app.wait("/status", 2, PATIENCE_S)
    for call in (*menus[1:], *bridged[1:]):
        call.hangs_up()
    told = app.wait("/status", 2 * LEFT, PATIENCE_S)
    assert [form["CallStatus"] for form in told] == ["completed"] * 2 * LEFT
    assert len({form["CallSid"] for form in told}) == 2 * LEFT
    assert {form["SequenceNumber"] for form in told} == {"0"}
    calls = second.client.calls
    for form in told:
        stored = eventually(lambda sid=form["CallSid"]: _ended(calls, sid), "the record")  # type: ignore[misc]
        assert (stored.status, stored.duration) == ("completed", form["CallDuration"])
    children = eventually(lambda: _landed(calls, LEFT), "the records of callees")
    assert {one.status for one in children} == {"completed"}


def _ended(calls: Any, sid: str) -> Any:
    found = calls(sid).fetch()
    return found if found.end_time is not None else None


def _landed(calls: Any, count: int) -> Any:
    found = [one for one in calls.list() if one.direction == "outbound-dial" and one.end_time is not None]
    return found if len(found) == count else None


def _signal(database: PostgresServer, number: signal.Signals) -> None:
    """To all processes of a server."""
    process = database._process
    assert process is not None
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])
            if process.pid in (pid, parent):
                os.kill(pid, number)
        except (OSError, ValueError):
            continue


def _follow(everyone: list[Call], ports: set[int], killed: float, heir: Member) -> None:
    """Wait until all hear the heir; say how long they heard nothing."""
    try:
        eventually(lambda: all(call.heard[-1].port not in ports for call in everyone), "the takeover")
    except AssertionError:
        print(heir.tail(80))
        raise
    assert all(call.up for call in everyone), heir.tail(80)
    silences = sorted(call.gap(killed - 0.1, time.monotonic()) for call in everyone)
    p95 = silences[int(len(silences) * 0.95) - 1]
    print(f"\nsilence of {len(silences)} legs: p50 {statistics.median(silences):.3f} s, p95 {p95:.3f} s, "
          f"longest {silences[-1]:.3f} s")  # fmt: skip


@pytest.mark.slow
def test_a_host_that_stood_still_says_nothing_more(cluster: Cluster) -> None:
    """SIGSTOP, and SIGCONT once another one has its calls: it has lost its lease while it slept."""
    first, second = cluster.nodes
    calls = cluster.dial(STOPPED, "/voice")
    ports = {call.heard[-1].port for call in calls}
    pids = first.processes()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    eventually(lambda: all(call.heard[-1].port not in ports for call in calls), "the takeover")
    time.sleep(0.5)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    went_on = time.monotonic()
    time.sleep(6)
    late = [(at, port) for at, port in cluster.air.strange if at > went_on]
    print(f"\n{len(late)} packets of {len(calls)} legs came from the host that stood still: {late}")
    assert len(late) <= len(calls)
    assert all(at < went_on + 1 for at, _ in late)
    said = [text for at, port, text in cluster.air.requests if at > stopped and port == first.sip_port]
    assert said == []
    assert all(call.up for call in calls), second.tail(60)
    assert all(call.gap(went_on) < 0.5 for call in calls), "the heir's audio goes on"
    for call in calls:
        call.hangs_up()
    told = eventually(lambda: cluster.app.at("/status") if len(cluster.app.at("/status")) >= STOPPED else None, "ends")
    assert {form["CallStatus"] for form in told} == {"completed"}
    assert len(told) == STOPPED


@pytest.mark.slow
def test_a_recording_goes_on_at_another_host(cluster: Cluster) -> None:
    first, second = cluster.nodes
    cluster.app.answers["/record"] = response(
        '<Record action="/recorded" maxLength="120" timeout="60" playBeep="false" finishOnKey="#"/>'
    )
    cluster.app.answers["/recorded"] = response("<Hangup/>")
    (call,) = cluster.dial(1, "/record")
    began, port = call.up_at, call.heard[-1].port
    live = cluster.folder / "objects" / "live"
    eventually(lambda: len([one for one in live.rglob("*") if one.is_file()]) > 1, "pieces that have left the host")
    first.dies()
    eventually(lambda: call.heard[-1].port != port, "the takeover")
    eventually(lambda: "goes on at" in second.text(), "the recording")
    heard = len(call.heard)
    eventually(lambda: len(call.heard) > heard + 150, "three seconds more")
    call.press("#")
    (form,) = cluster.app.wait("/recorded", timeout_s=PATIENCE_S)
    lasted_s = time.monotonic() - began
    eventually(lambda: call.ended_at, "the end of the call")
    assert [one["CallStatus"] for one in cluster.app.wait("/status", timeout_s=PATIENCE_S)] == ["completed"]
    length_s = int(form["RecordingDuration"])
    print(f"\nrecorded: {length_s} s of {lasted_s:.1f} s")
    assert form["Digits"] == "#"
    assert 3 <= length_s <= lasted_s + 3
    told = eventually(lambda: _recorded(second, form), "the record of the recording")
    print(f"of it are missing: {told}")
    assert int(told["gaps"]) >= 1
    assert 100 <= int(told["missing_ms"]) < lasted_s * 1000


def _recorded(node: Member, form: dict[str, str]) -> Any:
    """What the call's timeline tells of the end of a recording."""
    url = f"{node.base_url}/2010-04-01/Accounts/{node.account.sid}/Calls/{form['CallSid']}/Timeline.json"
    entries = node.client.request("GET", url).text
    found = [one for one in json.loads(entries)["entries"] if one["what"] == f"completed {form['RecordingSid']}"]
    return found[0]["details"] if found else None


def _said(call: Call) -> list[tuple[float, int]]:
    """When frames of the prompt came, and where in it they are, in ms."""
    return [(one.at, PLACES[one.packet.payload]) for one in list(call.heard) if one.packet.payload in PLACES]


def _spoke_at(call: Call, killed: float) -> float:
    """When the first frame of the prompt came after the end of its host; 0: not yet."""
    return next((at for at, _ in _said(call) if at > killed + MARGIN_S), 0.0)


def _went_on_ms(call: Call, killed: float) -> int:
    return next(place for at, place in _said(call) if at > killed + MARGIN_S)


def _stopped_ms(call: Call, killed: float) -> int:
    return 20 + [place for at, place in _said(call) if at < killed + MARGIN_S][-1]
