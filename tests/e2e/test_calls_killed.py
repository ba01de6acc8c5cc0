"""Processes die with a call up: the phone goes on hearing, and the call can still be played and ended."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.test_calls import samples_of, speechlike, wav
from tests.e2e.voice_app import VoiceApp, response
from trunkline.rtp import g711
from trunkline.testing.local import Local, LocalFailed
from trunkline.testing.phones import hearing
from trunkline.testing.phones.client import RemoteCall
from trunkline.testing.phones.rtp_peer import decoded, encoded
from trunkline.testing.phones.things import CallState

BACK_S = 20.0
MEDIA = "trunkline.media.process"
MAX_SILENCE_MS = 500
KEPT = 0.9
"""Share of the blocks of what was said that a recording must have whole; the rest may have lost two packets."""
SECOND = 50
"""Packets of audio."""
TALK = "<Say loop='0'>Please hold the line.</Say>"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """The server whose processes die one after the other."""
    with Local(tmp_path_factory.mktemp("killed")) as local:
        yield local


@pytest.fixture
def local(running: Local) -> Local:
    """The server when it is whole again."""
    end = time.monotonic() + BACK_S
    while len(processes(running, MEDIA)) < 2:
        assert time.monotonic() < end, "no spare media process"
        time.sleep(0.05)
    return running


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


def processes(local: Local, *words: str) -> list[int]:
    """The children of the server whose command lines have these words, the oldest first."""
    assert local._process is not None
    shown = subprocess.run(
        ["ps", "-eww", "-o", "pid,ppid,args", "--sort", "start_time"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()]
    parent = str(local._process.pid)
    return [int(pid) for pid, ppid, args in rows if ppid == parent and all(word in args for word in words)]


def process(local: Local, *words: str) -> int:
    """The one of them that is at work."""
    found = processes(local, *words)
    assert found, words
    return found[0]


def until_back(local: Local) -> None:
    end = time.monotonic() + BACK_S
    while True:
        try:
            local.call("GET", "/readyz")
            return
        except (LocalFailed, OSError):
            assert time.monotonic() < end, local.log_tail()
            time.sleep(0.05)


def test_the_node_dies_in_a_call(local: Local, app: VoiceApp) -> None:
    phone = local.phone()
    menu = f'<Gather numDigits="1" timeout="60" action="{app.url}/chosen">{TALK}</Gather>'
    app.answers["/chosen"] = response("<Say>You are through.</Say>", TALK)
    made = local.client.calls.create(
        to=phone.number, from_=local.number, twiml=response(menu), status_callback=f"{app.url}/status"
    )
    call = phone.answers()
    call.hears("Please hold the line.")
    os.kill(process(local, "-m trunkline ", " dev"), signal.SIGKILL)
    until_back(local)
    call.hears("Please hold the line.")
    state = call.state
    assert (state.state, state.media.lost) == ("up", 0)
    assert state.media.longest_gap_ms < MAX_SILENCE_MS
    call.press("1")
    call.hears("You are through.")
    local.client.calls(made.sid).update(twiml=response("<Say>Redirected.</Say>", TALK))
    call.hears("Redirected.")
    call.hangs_up()
    (ended,) = app.wait("/status")
    assert (ended["CallSid"], ended["CallStatus"]) == (made.sid, "completed")


def test_the_media_process_dies_in_a_call(local: Local, app: VoiceApp) -> None:
    phone = local.phone()
    made = local.client.calls.create(
        to=phone.number, from_=local.number, twiml=response(TALK), status_callback=f"{app.url}/status"
    )
    call = phone.answers()
    call.hears("Please hold the line.")
    os.kill(process(local, MEDIA), signal.SIGKILL)
    call.hears("Please hold the line.")
    call.hears("Please hold the line.")
    assert call.state.media.longest_gap_ms <= MAX_SILENCE_MS
    local.client.calls(made.sid).update(status="completed")
    assert call.ended().ended_by == "other"
    (ended,) = app.wait("/status")
    assert ended["CallStatus"] == "completed"


def recorded(local: Local, sid: str) -> np.ndarray:
    """The samples of a call's only recording, once it is there."""
    end = time.monotonic() + BACK_S
    while True:
        found = local.client.recordings.list(call_sid=sid)
        if found and found[0].status == "completed":
            octets = local.call("GET", f"/2010-04-01/Accounts/{local.account_sid}/Recordings/{found[0].sid}.wav")
            return samples_of(octets)[:, 0]
        assert time.monotonic() < end, [(one.sid, one.status) for one in found]
        time.sleep(0.1)


@pytest.mark.parametrize("victim", ["node", "media", "recorder"])
def test_a_recording_is_kept(local: Local, tmp_path: Path, victim: str) -> None:
    phone = local.phone()
    made = local.client.calls.create(
        to=phone.number, from_=local.number, twiml=response("<Pause length='60'/>"), record=True
    )
    call = phone.answers()
    pieces = [speechlike(1.5, seed) for seed in (11, 12)]
    for number, piece in enumerate(pieces):
        (tmp_path / f"{number}.wav").write_bytes(wav(piece))
    call.says(tmp_path / "0.wav")
    words = {"node": ("-m trunkline ", " dev"), "media": ("media.process", "state_fd"), "recorder": ("media.recorder",)}
    killed, before = process(local, *words[victim]), call.state.media.received
    os.kill(killed, signal.SIGKILL)
    until_back(local)
    end = time.monotonic() + BACK_S
    while call.state.media.received < before + SECOND or processes(local, *words[victim])[:1] in ([], [killed]):
        assert time.monotonic() < end, "the call has no audio again"
        time.sleep(0.05)
    call.says(tmp_path / "1.wav")
    call.hangs_up()
    audio = recorded(local, made.sid)
    for piece in pieces:
        expected = decoded(encoded(piece, g711.PCMU), g711.PCMU)[4000:-800]
        assert kept_share(audio, expected) >= KEPT


def kept_share(audio: np.ndarray, expected: np.ndarray) -> float:
    """How much of what was said is in a recording, in blocks of 100 ms that each lie at their place or whole packets
    beside it: a jitter buffer that was starved on a busy machine repeats or drops one between two blocks. A block that
    is not there, or is damaged, counts as lost."""
    listener = hearing.Listener(expected)
    match = listener.listen(audio, np.ones(len(audio), bool))
    return match.score if match is not None else 0.0


# -- many calls ----------------------------------------------------------------------------------------------------

CALLS = 100
LEAST_SHARE = 0.99


@pytest.fixture
def crowd(tmp_path: Path, app: VoiceApp) -> Iterator[tuple[Local, list[RemoteCall], list[str]]]:
    """A server with a hundred calls up, each in a <Gather> that talks."""
    app.answers["/chosen"] = response("<Say>You are through.</Say>", TALK)
    menu = f'<Gather numDigits="1" timeout="60" action="{app.url}/chosen">{TALK}</Gather>'
    with Local(tmp_path, {"TRUNKLINE_MEDIA_LEGS": "150"}) as local:
        phones = [local.phone() for _ in range(CALLS)]
        sids = []
        for phone in phones:
            phone.picks_up()
            made = local.client.calls.create(
                to=phone.number, from_=local.number, twiml=response(menu), status_callback=f"{app.url}/status"
            )
            sids.append(made.sid)
        calls = [phone.rings() for phone in phones]
        for call in calls:
            call.becomes(lambda state: state.heard_ms > 500, "heard")
        yield local, calls, sids


def goes_on(before: list[CallState], after: list[CallState]) -> list[bool]:
    """Which calls are up and have heard more, without a long silence."""
    return [
        new.state == "up" and new.media.received > old.media.received and new.media.longest_gap_ms <= MAX_SILENCE_MS
        for old, new in zip(before, after, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["media", "node"])
def test_a_hundred_calls_go_on(crowd: tuple[Local, list[RemoteCall], list[str]], app: VoiceApp, victim: str) -> None:
    local, calls, sids = crowd
    before = [call.state for call in calls]
    words = (MEDIA, "state_fd") if victim == "media" else ("-m trunkline ", " dev")
    os.kill(process(local, *words), signal.SIGKILL)
    until_back(local)
    time.sleep(3)
    after = [call.state for call in calls]
    gaps = sorted(state.media.longest_gap_ms for state in after)
    assert sum(goes_on(before, after)) >= LEAST_SHARE * CALLS, gaps
    if victim == "node":
        assert sum(state.media.lost for state in after) <= CALLS  # a packet a call: the audio was not interrupted
    for call in calls[:10]:
        call.press("1", wait=False)
    for call in calls[:10]:
        call.hears("You are through.")
    for sid in sids[10:20]:
        local.client.calls(sid).update(twiml=response("<Say>Redirected.</Say>", TALK))
    for call in calls[10:20]:
        call.hears("Redirected.")
    for call in calls:
        call.hangs_up()
    ended = app.wait("/status", CALLS)
    assert sorted(one["CallSid"] for one in ended) == sorted(sids)
    assert {one["CallStatus"] for one in ended} == {"completed"}
