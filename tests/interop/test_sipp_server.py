"""SIPp against the whole server: it calls, is called, loses packets, cancels, holds, logs in, and is refused."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.interop.raw_sip import RawCaller
from tests.interop.sipp_run import TRANSPORTS, Sipp
from tests.interop.switch import HOST, LOGIN, NUMBER, STRANGER, TO_GUARDED, TO_SIPP, Peers, Switch, wait_listening
from trunkline.sip import digest

FEW = 10
SOME = ["UDP", pytest.param("TCP", marks=pytest.mark.slow)]
RATE = 20
"""Calls a second."""
ENDLESS = "<Pause length='60'/>"
SPEECH = "<Say>You are welcome.</Say>"
Start = Callable[..., Sipp]


@pytest.fixture
def start(switch: Switch, tmp_path: Path) -> Iterator[Start]:
    """Start SIPp as a caller of the number."""
    runs = []

    def start(scenario: str, **options: Any) -> Sipp:
        options = {"calls": FEW, "s": NUMBER, **options}
        runs.append(Sipp(tmp_path, scenario, f"{switch.host}:{switch.sip_port}", **options))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


@pytest.fixture
def called(peers: Peers, tmp_path: Path) -> Iterator[Start]:
    """Start SIPp as one who is called."""
    runs = []

    def called(scenario: str, **options: Any) -> Sipp:
        runs.append(Sipp(tmp_path, scenario, p=peers.sipp, **{"calls": FEW, **options}))
        wait_listening(peers.sipp, options.get("transport", "UDP"))
        return runs[-1]

    yield called
    for run in runs:
        run.close()


def place(switch: Switch, to: str, *verbs: str, count: int = FEW, **more: Any) -> list[str]:
    """Have the API place some calls at once; their SIDs."""
    switch.app.hooks.clear()
    switch.client  # noqa: B018 - made before the threads want it
    with ThreadPoolExecutor(FEW) as pool:
        made = pool.map(lambda index: switch.calls(f"{to}{index:02d}", *verbs, **more).sid, range(count))
        return list(made)


# -- it calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", SOME)
@pytest.mark.parametrize("scenario", ["uac", "uac_hold", "uac_late_offer"])
def test_it_calls_and_hangs_up(switch: Switch, start: Start, scenario: str, transport: str) -> None:
    switch.answers(SPEECH, ENDLESS)
    start(scenario, transport=transport).succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW


@pytest.mark.parametrize("transport", SOME)
def test_it_calls_and_we_hang_up(switch: Switch, start: Start, transport: str) -> None:
    switch.answers(SPEECH)
    start("uac_called_hangs_up", transport=transport).succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_many_calls(switch: Switch, start: Start, count: int) -> None:
    switch.answers(SPEECH, ENDLESS)
    start("uac", calls=count, r=RATE).succeeds()
    assert switch.ends(count) == ["completed"] * count
    assert len(switch.app.at("/voice")) == count


def test_it_cancels_while_it_rings(switch: Switch, start: Start) -> None:
    switch.answers("<Pause length='20'/>", SPEECH)
    start("uac_cancel").succeeds()
    assert set(switch.ends(FEW)) <= {"canceled", "no-answer"}


def test_packets_are_lost(switch: Switch, start: Start) -> None:
    switch.answers(SPEECH, ENDLESS)
    start("uac_lossy", lost=20).succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW
    assert len(switch.app.at("/voice")) == FEW, "a repeated INVITE is the same call"


def test_a_login(switch: Switch, start: Start) -> None:
    switch.answers(SPEECH, ENDLESS)
    start("uac_auth", host=STRANGER).succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW


# -- it is called --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ["uas_hangs_up", "uas_hold"])
def test_we_call_and_it_hangs_up(switch: Switch, called: Start, scenario: str, transport: str) -> None:
    run = called(scenario, transport=transport)
    place(switch, TO_SIPP[transport], SPEECH, ENDLESS)
    run.succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW


@pytest.mark.parametrize("transport", SOME)
def test_we_call_and_hang_up(switch: Switch, called: Start, transport: str) -> None:
    run = called("uas", transport=transport)
    place(switch, TO_SIPP[transport], SPEECH)
    run.succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW


def test_we_log_in(switch: Switch, called: Start) -> None:
    run = called("uas_auth")
    place(switch, TO_GUARDED, SPEECH)
    run.succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW


def test_it_is_busy(switch: Switch, called: Start) -> None:
    run = called("uas_busy")
    place(switch, TO_SIPP["UDP"], SPEECH)
    run.succeeds()
    assert switch.ends(FEW) == ["busy"] * FEW
    assert {one["SipResponseCode"] for one in switch.app.at("/status")} == {"486"}


def test_we_cancel(switch: Switch, called: Start) -> None:
    run = called("uas_cancel")
    sids = place(switch, TO_SIPP["UDP"], SPEECH, status_callback_event=["ringing", "completed"])
    switch.app.wait_calls("/status", sids)
    assert {one["CallStatus"] for one in switch.app.at("/status")} == {"ringing"}
    switch.app.hooks.clear()
    for sid in sids:
        switch.client.calls(sid).update(status="canceled")
    run.succeeds()
    assert switch.ends(FEW) == ["canceled"] * FEW


@pytest.mark.slow
def test_we_call_and_packets_are_lost(switch: Switch, called: Start) -> None:
    run = called("uas_lossy")
    place(switch, TO_SIPP["UDP"], SPEECH)
    run.succeeds()
    assert switch.ends(FEW) == ["completed"] * FEW


# -- a caller of plain sockets: when SIPp's scenarios cannot say it -----------------------------------------------


@pytest.fixture
def caller(switch: Switch) -> Iterator[Callable[..., RawCaller]]:
    """Make callers."""
    made = []

    def caller(host: str = HOST, number: str = NUMBER) -> RawCaller:
        made.append(RawCaller(switch.host, switch.sip_port, number, host))
        return made[-1]

    yield caller
    for one in made:
        one.close()


def test_a_cancel_meets_the_answer(switch: Switch, caller: Callable[..., RawCaller]) -> None:
    """CANCEL after 0 to 12 ms, whatever has come by then: one final response, and a call that is up is ended by BYE."""
    switch.answers(SPEECH, ENDLESS)
    finals = []
    for after_ms in (*range(12), 60):
        one = caller()
        invite = one.message("INVITE", body=one.offer())
        cancel = one.message("CANCEL")
        one.send(invite)
        time.sleep(after_ms / 1000)
        one.send(cancel)
        got = {}
        while {"INVITE", "CANCEL"} - got.keys():
            response = one.receive(lambda message: message.status >= 200)
            got[response.answers] = response
        finals.append(got["INVITE"].status)
        assert got["CANCEL"].status in (200, 481)
        one.to = got["INVITE"].header("To")
        if got["INVITE"].status == 200:
            one.up(got["INVITE"])
            assert one.hang_up() == 200
        else:
            one.send(one.message("ACK"))
    assert set(finals) == {200, 487}
    ends = switch.ends(len(finals))
    assert ends.count("completed") == finals.count(200)
    assert set(ends) <= {"completed", "no-answer", "canceled"}


@pytest.mark.parametrize("status", [404, 401])
def test_strangers_and_unknown_numbers(switch: Switch, caller: Callable[..., RawCaller], status: int) -> None:
    switch.answers(SPEECH)
    one = caller(STRANGER) if status == 401 else caller(number="+12025550199")
    assert one.invite().status == status
    assert not switch.app.hooks


def test_a_wrong_password(switch: Switch, caller: Callable[..., RawCaller]) -> None:
    switch.answers(SPEECH)
    one = caller(STRANGER)
    challenge = digest.parse_challenge(one.invite().header("WWW-Authenticate"))
    login = digest.answer(challenge, LOGIN, "guess", "INVITE", one.target, "c", 1)
    one.to = f"<{one.target}>"
    assert one.invite(headers=[f"Authorization: {login}"]).status in (401, 403)
    assert not switch.app.hooks


@pytest.mark.parametrize("source", [HOST, STRANGER])
@pytest.mark.parametrize("way", ["request-uri", "route", "own route", "to"])
def test_it_is_no_relay(switch: Switch, caller: Callable[..., RawCaller], source: str, way: str) -> None:
    """Neither a foreign request URI nor Route headers make it send anything elsewhere."""
    switch.answers(SPEECH, ENDLESS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind((HOST, 0))
        there = "{}:{}".format(*victim.getsockname())
        one = caller(source, "+12025550199" if way != "to" else NUMBER)
        headers = []
        if way == "request-uri":
            one.target = f"sip:+12025550199@{there}"
        elif way == "to":
            one.target, one.to = f"sip:+33123456789@{there}", f"<sip:{NUMBER}@{there}>"
        else:
            own = f"Route: <sip:{switch.host}:{switch.sip_port};lr>"
            headers = [*([own] if way == "own route" else []), f"Route: <sip:{there};lr>"]
        assert one.invite(headers=headers).status in (401, 403, 404)
        victim.settimeout(0.1)
        with pytest.raises(TimeoutError):
            victim.recv(1)
    assert not switch.app.hooks


def test_other_methods_go_nowhere(switch: Switch, caller: Callable[..., RawCaller]) -> None:
    """From a trunk: REGISTER, MESSAGE, SUBSCRIBE, REFER and a BYE of no call are refused, OPTIONS is answered."""
    for method, statuses in {
        "OPTIONS": {200}, "BYE": {481}, "REGISTER": {404}, "MESSAGE": {405}, "SUBSCRIBE": {405}, "REFER": {403},
    }.items():  # fmt: skip
        one = caller()
        if method == "BYE":
            one.to += ";tag=x"
        one.send(one.message(method))
        assert one.final(method).status in statuses, method


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "MESSAGE"])
def test_strangers_hear_nothing(caller: Callable[..., RawCaller], method: str) -> None:
    """From an address that has never logged in."""
    one = caller("127.0.0.77")
    one.send(one.message(method))
    with pytest.raises(TimeoutError):
        one.final(method, 1.0)
