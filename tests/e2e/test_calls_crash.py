"""Processes of a server are killed while calls are up: what is heard, what still works, what is recorded and told."""

import io
import os
import random
import signal
import statistics
import time
import wave
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.air import TONE, Air, Call
from tests.e2e.call_server import NUMBER, CallServer
from tests.e2e.voice_app import VoiceApp, response
from trunkline.rtp import g711

FRAME = 320
PROMPT_S = 60
MOST_JUMPS = 2
"""Frames of the prompt that the end of the media process may cost, or let come twice."""
PATIENCE_S = 30.0
SILENCE_S = 0.5
"""Most silence that the end of the media process may cost."""
AFTER_S = 0.4
"""How long a jitter buffer is too full or too empty after somebody was late."""
UNINTERRUPTED_S = 0.4
"""What a busy machine may cost where nothing that sends audio was killed."""
PROMPT = random.Random(3).randbytes(8000 * 2 * PROMPT_S)
"""Noise: every frame of it is known again."""
INDEX = {
    g711.encode(PROMPT[at : at + FRAME]): at // FRAME for at in range(0, len(PROMPT), FRAME)
}  # fmt: skip


def eventually(look: Callable[[], Any], what: str = "it") -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)
    return found


def wav(samples: bytes) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples)
    return out.getvalue()


class Scene:
    """A server, its peers, the customer's app."""

    def __init__(self, folder: Path, server: dict[str, Any] | None = None, **tables: Any) -> None:
        self.air = Air()
        self.app = VoiceApp()
        self.server = CallServer(folder, self.air.port, server=server or {}, **tables)
        self.app.files["/prompt.wav"] = ("audio/wav", wav(PROMPT))
        self.begin()

    def begin(self) -> None:
        """The documents as they are at first; nothing has been asked for or called."""
        menu = '<Gather numDigits="1" timeout="120" action="/chosen"><Play>/prompt.wav</Play></Gather>'
        self.app.answers.update(
            {
                "/voice": response(menu),
                "/chosen": response('<Pause length="1"/><Play loop="0">/prompt.wav</Play>'),
                "/update": response('<Play loop="0">/prompt.wav</Play>'),
            }
        )
        self.app.hooks.clear()
        self.air.forget()
        self.air.rings = False

    def start(self) -> "Scene":
        self.server.start()
        self.server.answer_at(f"{self.app.url}/voice", f"{self.app.url}/status")
        return self

    def close(self) -> None:
        self.server.close()
        self.air.close()
        self.app.close()

    def dial(self, count: int, path: str = "/voice") -> list[Call]:
        """So many calls that are up and hear something."""
        begun = len(self.app.at(path))
        calls = []
        for _ in range(count):
            caller = f"+1555{len(self.air.calls):07d}"
            calls.append(self.air.dials(self.server.sip_port, NUMBER, caller))
            time.sleep(0.01)
        eventually(lambda: all(len(call.heard) > 25 for call in calls), "audio of all calls")
        assert len(self.app.at(path)) == begun + count
        return calls

    def sid(self, call: Call, path: str = "/voice") -> str:
        return next(form["CallSid"] for form in self.app.at(path) if form["From"] == call.number)

    def kill(self, name: str) -> float:
        """Kill a child; for the node: wait until it is back. When it was killed."""
        begin = self.server.log.stat().st_size
        when = self.server.kill_child(name)
        if name == "node":
            self.server.until_back(begin)
        return when

    def ends(self, sids: list[str]) -> dict[str, dict[str, str]]:
        """What was told of the ends of these calls."""

        def told() -> dict[str, dict[str, str]] | None:
            found = {form["CallSid"]: form for form in self.app.at("/status")}
            return {sid: found[sid] for sid in sids} if set(sids) <= set(found) else None

        return eventually(told, "callbacks of all calls")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The server whose processes die one after the other."""
    scene = Scene(tmp_path_factory.mktemp("crash"))
    yield scene.start()
    scene.close()


@pytest.fixture
def shared(stage: Scene) -> Scene:
    """That server when it is whole again, and nothing is left of the calls before."""
    stage.begin()
    eventually(lambda: len(stage.server.children("media")) == 2, "a spare media process")
    return stage


def positions(call: Call, since: float = 0.0) -> list[int]:
    """Which frames of the prompt came, in order."""
    return [INDEX[frame] for frame in call.frames(since) if frame in INDEX]


def jumps(call: Call, since: float) -> int:
    """Frames of the prompt that were left out or came twice."""
    found = positions(call, since)
    return sum(abs(b - a - 1) for a, b in pairwise(found))


def goes_on(scene: Scene, calls: list[Call], killed: float, most_s: float) -> tuple[list[Call], list[float]]:
    """Which calls went on within a silence of `most_s`, on the same ports, where the prompt was; all silences."""
    time.sleep(max(0.0, killed + 3 - time.monotonic()))
    until = time.monotonic()
    gaps = [call.gap(killed - 0.2, until) for call in calls]
    on = [
        call
        for call, gap in zip(calls, gaps, strict=True)
        if call.up and gap <= most_s and len(call.ports) == 1 and jumps(call, killed - 1) <= MOST_JUMPS
    ]
    return on, gaps


def why(call: Call, killed: float) -> str:
    """What became of a call that did not go on as it should."""
    return f"up {call.up}, gap {call.gap(killed - 0.2):.3f} s, ports {call.ports}, frames {positions(call, killed - 1)}"


def works(scene: Scene, calls: list[Call], some: int) -> None:
    """Keys, live updates, hang-ups from both sides work, and all is told."""
    sids = {call.call_id: scene.sid(call) for call in calls}
    pressed, updated = calls[:some], calls[some : 2 * some]
    for call in pressed:
        call.press("7")
    eventually(lambda: len(scene.app.at("/chosen")) >= some, "keys")
    assert {form["CallSid"] for form in scene.app.at("/chosen")} == {sids[call.call_id] for call in pressed}
    assert {form["Digits"] for form in scene.app.at("/chosen")} == {"7"}
    for call in updated:
        scene.server.client.calls(sids[call.call_id]).update(url=f"{scene.app.url}/update")
    eventually(lambda: len(scene.app.at("/update")) == some, "updates")
    half = len(calls) // 2
    for call in calls[half:]:
        scene.server.client.calls(sids[call.call_id]).update(status="completed")
    for call in calls[:half]:
        call.hangs_up()
    eventually(lambda: all(call.ended_at for call in calls), "the end of all calls")
    assert {call.ended_by for call in calls[half:]} == {"server"}
    ends = scene.ends(list(sids.values()))
    assert {form["CallStatus"] for form in ends.values()} == {"completed"}
    assert {form["SequenceNumber"] for form in ends.values()} == {"0"}
    for call in calls:
        took = call.ended_at - call.up_at
        assert abs(int(ends[sids[call.call_id]]["CallDuration"]) - took) <= 1.5, took


def recordings(scene: Scene, started: dict[str, tuple[Call, float]]) -> list[float]:
    """How much shorter (s) than the call each recording is, once all are there."""
    short = []
    for sid, (call, began) in started.items():
        found = eventually(
            lambda sid=sid: [
                one for one in scene.server.client.recordings.list(call_sid=sid) if one.status == "completed"
            ],
            "the recording",
        )
        short.append(call.ended_at - began - float(found[0].duration))
    return short


@pytest.mark.parametrize("victim", ["media", "node", "recorder"])
def test_a_few_calls_go_on(shared: Scene, victim: str) -> None:
    scene, calls = shared, shared.dial(5)
    sid = scene.sid(calls[4])
    scene.server.client.calls(sid).recordings.create(recording_channels="dual")
    began = time.monotonic()
    killed = scene.kill(victim)
    on, gaps = goes_on(scene, calls, killed, SILENCE_S if victim == "media" else UNINTERRUPTED_S)
    assert len(on) == 5, (gaps, [jumps(call, killed - 1) for call in calls], scene.server.tail())
    works(scene, calls, 2)
    (short,) = recordings(scene, {sid: (calls[4], began)})
    assert short < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["media", "node"])
def test_a_hundred_calls_go_on(scene: Scene, victim: str, record_property: Any) -> None:
    calls = scene.start().dial(100)
    recorded = {}
    for call in calls[90:]:
        sid = scene.sid(call)
        scene.server.client.calls(sid).recordings.create(recording_channels="dual")
        recorded[sid] = call, time.monotonic()
    killed = scene.kill(victim)
    back = time.monotonic() - killed
    on, gaps = goes_on(scene, calls, killed, SILENCE_S if victim == "media" else UNINTERRUPTED_S)
    print(f"the node was back after {back:.1f} s" if victim == "node" else "")
    figures = (
        f"{victim}: {len(on)} of 100 go on, silence {statistics.median(gaps) * 1000:.0f} ms median, "
        f"{max(gaps) * 1000:.0f} ms at most"
    )
    print(figures, [why(call, killed) for call in calls if call not in on])
    record_property("figures", figures)
    assert len(on) >= 99, scene.server.tail()
    works(scene, on, 20)
    short = recordings(scene, {sid: one for sid, one in recorded.items() if one[0] in on})
    print(f"recordings are up to {max(short):.1f} s shorter than the calls (whole seconds are told)")
    assert max(short) < 1.5


@pytest.mark.slow
def test_both_processes_killed(scene: Scene) -> None:
    calls = scene.start().dial(3)
    begin = scene.server.log.stat().st_size
    os.kill(scene.server.child("media"), signal.SIGKILL)
    killed = scene.server.kill_child("node")
    scene.server.until_back(begin)
    on, gaps = goes_on(scene, calls, killed, SILENCE_S)
    assert len(on) == 3, (gaps, scene.server.tail())
    works(scene, calls, 1)


def hears_only_the_tone(call: Call, since: float) -> None:
    """Each frame is the other side's tone as it is, wherever for the last AFTER_S neither these tests were late to say
    it nor the media process to pass it on: what they are late with is concealed, and as the machine's, not the kill's,
    doing looked over. That has to be the lesser part."""
    lates = [*call.air.late, *call.missed()]
    frames = [one for one in list(call.heard) if one.at >= since and one.packet.payload_type == 0]
    judged = [one for one in frames if not any(begin <= one.at < end + AFTER_S for begin, end in lates)]
    strange = [one.at - since for one in judged if one.packet.payload != TONE]
    concealed = sum(one.packet.payload != TONE for one in frames) - len(strange)
    print(f"{len(judged)} of {len(frames)} frames in time, {concealed} of the others concealed")
    assert not strange
    assert len(judged) > len(frames) / 2, "the machine stands still all the time"


def test_connected_calls_go_on_without_their_node(shared: Scene) -> None:
    scene = shared
    hook = f"{scene.app.url}/recorded"
    dial = (
        f'<Dial action="/after" record="record-from-answer-dual" recordingStatusCallback="{hook}">+15557770000</Dial>'
    )
    scene.app.answers.update({"/voice": response(dial), "/after": response('<Play loop="0">/prompt.wav</Play>')})
    callers = scene.dial(2)
    sids = [scene.sid(call) for call in callers]
    callees = [call for call in scene.air.calls.values() if call.number == "+15557770000"]
    assert len(callees) == 2
    eventually(lambda: all(TONE in call.frames()[-5:] for call in (*callers, *callees)), "audio both ways")
    killed = scene.kill("node")
    time.sleep(max(0.0, killed + 3 - time.monotonic()))
    for call in (*callers, *callees):
        assert call.up
        assert call.gap(killed - 0.2) < UNINTERRUPTED_S
        hears_only_the_tone(call, killed)
    callees[0].hangs_up()
    (after,) = eventually(lambda: scene.app.at("/after"), "the action")
    assert after["DialCallStatus"] == "completed"
    assert after["DialBridged"] == "true"
    caller = callers[sids.index(after["CallSid"])]
    eventually(lambda: len(positions(caller)) > 10, "what follows the <Dial>")
    other = next(call for call in callers if call is not caller)
    other.hangs_up()
    eventually(lambda: callees[1].ended_at, "the end of the other callee")
    caller.hangs_up()
    ends = scene.ends(sids)
    assert {form["CallStatus"] for form in ends.values()} == {"completed"}
    told = eventually(lambda: len(scene.app.at("/recorded")) == 2 and scene.app.at("/recorded"), "recordings")
    assert {form["RecordingStatus"] for form in told} == {"completed"}
    for form in told:
        call = callers[sids.index(form["CallSid"])]
        talked = (callees[0] if call is caller else callees[1]).ended_at - call.up_at
        assert abs(float(form["RecordingDuration"]) - talked) < 2


def test_a_call_that_rings_is_picked_up_by_the_next_node(shared: Scene) -> None:
    scene = shared
    scene.app.answers["/voice"] = response('<Pause length="2"/><Play>/prompt.wav</Play>')
    call = scene.air.dials(scene.server.sip_port, NUMBER, "+15550009999")
    eventually(lambda: scene.app.at("/voice") and call.status == 180, "ringing")
    time.sleep(0.2)
    scene.kill("node")
    eventually(lambda: len(positions(call)) > 10, "the answer")
    assert len({form["CallSid"] for form in scene.app.at("/voice")}) == 1
    call.hangs_up()
    (end,) = scene.ends([scene.sid(call)]).values()
    assert (end["CallStatus"], end["SequenceNumber"]) == ("completed", "0")


def test_calls_that_were_being_placed_fail_and_are_told(shared: Scene) -> None:
    scene = shared
    scene.air.rings = True
    call = scene.server.client.calls.create(
        to="+15557771111",
        from_=NUMBER,
        twiml=response("<Pause length='9'/>"),
        status_callback=f"{scene.app.url}/status",
    )
    eventually(lambda: scene.server.client.calls(call.sid).fetch().status == "ringing", "ringing")
    scene.kill("node")
    (end,) = scene.ends([call.sid]).values()
    assert (end["CallStatus"], end["SequenceNumber"]) == ("failed", "0")
    (leg,) = scene.air.calls.values()
    eventually(lambda: leg.ended_by == "cancel", "the phone stops ringing")


@pytest.mark.slow
def test_after_a_power_cut_calls_have_ended_and_recordings_are_kept(scene: Scene) -> None:
    calls = scene.start().dial(2)
    sids = [scene.sid(call) for call in calls]
    scene.server.client.calls(sids[0]).recordings.create(recording_channels="dual")
    began = time.monotonic()
    time.sleep(2)
    recorded_s = time.monotonic() - began
    children = [pid for name in ("media", "recorder", "node") for pid in scene.server.children(name)]
    scene.server.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the end of all processes")
    time.sleep(3)
    scene.server.start()
    ends = scene.ends(sids)
    assert {form["CallStatus"] for form in ends.values()} == {"completed"}
    eventually(lambda: all(call.ended_by == "server" for call in calls), "BYEs")
    fetched = [scene.server.client.calls(sid).fetch() for sid in sids]
    assert {call.status for call in fetched} == {"completed"}
    assert max(int(call.duration) for call in fetched) <= 12
    found = eventually(
        lambda: [one for one in scene.server.client.recordings.list(call_sid=sids[0]) if one.status == "completed"],
        "the recording",
    )
    assert abs(float(found[0].duration) - recorded_s) < 1.5


def test_a_stop_lets_calls_end_and_refuses_new_ones(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"shutdown_s": 3})
    try:
        ends, stays = scene.start().dial(2)
        sids = [scene.sid(call) for call in (ends, stays)]
        scene.server.signal(signal.SIGTERM)
        stopped = time.monotonic()
        eventually(lambda: "calls are up" in scene.server.text(), "the drain")
        refused = scene.air.dials(scene.server.sip_port, NUMBER, "+15550009999")
        eventually(lambda: refused.status == 503, "a refusal")
        assert ends.up
        assert stays.up
        ends.hangs_up()
        eventually(lambda: stays.ended_at, "the end")
        assert stays.ended_by == "server"
        assert 2.5 < stays.ended_at - stopped < 6
        assert scene.server.wait(PATIENCE_S) == 0
        told = scene.ends(sids)
        assert {form["CallStatus"] for form in told.values()} == {"completed"}
    finally:
        scene.close()


def test_a_second_server_on_the_folder_does_no_harm(shared: Scene) -> None:
    scene, calls = shared, shared.dial(2)
    second = scene.server.again({"server": {"port": 0}, "sip": {"enabled": True, "port": 0}})
    assert second.returncode == 1
    assert "another server runs on" in second.stderr
    time.sleep(0.5)
    assert max(call.gap(time.monotonic() - 0.5) for call in calls) < UNINTERRUPTED_S
    works(scene, calls, 1)


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(scene: Scene) -> None:
    taken = scene.air.port
    first = scene.server.again({"sip": {"enabled": True, "port": taken}})
    assert first.returncode == 1
    assert f"cannot take SIP port {taken} on 127.0.0.1: Address already in use" in first.stderr
    second = scene.server.again({"connectors": [{"name": "air", "kind": "smpp"}]})
    assert second.returncode == 1
    assert "trunkline: " in second.stderr.splitlines()[-1]
