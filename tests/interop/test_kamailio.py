"""Kamailio between phones and the whole server: every request within a call follows its route, in both directions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.kamailio import Kamailio
from tests.interop.phone_calls import Start, a_held_call, an_ivr, says, starts  # noqa: F401  (fixtures)
from tests.interop.raw_sip import RawCaller
from tests.interop.sipp_run import Sipp
from tests.interop.switch import BEHIND, NUMBER, PROXY, TO_PROXY, Peers, Switch, wait_listening

CALLS = 5
ENDLESS = "<Pause length='60'/>"
SPEECH = "<Say>You are welcome.</Say>"
USERS = {"UDP": NUMBER, "TCP": f"tcp{NUMBER}"}
"""Whom a phone behind the proxy dials, by the transport between proxy and server."""
TRANSPORTS = list(USERS)


@pytest.fixture(scope="module", autouse=True)
def proxy(switch: Switch, peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kamailio]:
    """The proxy."""
    running = Kamailio(tmp_path_factory.mktemp("kamailio"), switch, peers)
    yield running
    running.close()


@pytest.fixture
def sipp(peers: Peers, tmp_path: Path) -> Iterator[Callable[..., Sipp]]:
    """Start SIPp behind the proxy: as a caller with a `user` to dial, else as one who is called."""
    runs = []

    def sipp(scenario: str, user: str = "") -> Sipp:
        given: dict[str, Any] = {"calls": CALLS, "host": BEHIND}
        if user:
            runs.append(Sipp(tmp_path, scenario, f"{PROXY}:{peers.proxy}", s=user, **given))
        else:
            runs.append(Sipp(tmp_path, scenario, p=peers.behind, **given))
            wait_listening(peers.behind)
        return runs[-1]

    yield sipp
    for run in runs:
        run.close()


def place(switch: Switch, transport: str, *verbs: str, **more: Any) -> list[str]:
    """Have the API call the phone behind the proxy."""
    switch.app.hooks.clear()
    return [switch.calls(f"{TO_PROXY[transport]}{index:02d}", *verbs, **more).sid for index in range(CALLS)]


def test_the_phone_itself_is_a_stranger(switch: Switch) -> None:
    caller = RawCaller(switch.host, switch.sip_port, NUMBER, BEHIND)
    assert caller.invite().status == 401
    caller.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ["uac", "uac_called_hangs_up"])
def test_it_calls(switch: Switch, sipp: Callable[..., Sipp], scenario: str, transport: str) -> None:
    switch.answers(SPEECH, *([ENDLESS] if scenario == "uac" else []))
    sipp(scenario, USERS[transport]).succeeds()
    assert switch.ends(CALLS) == ["completed"] * CALLS


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_it_cancels(switch: Switch, sipp: Callable[..., Sipp], transport: str) -> None:
    switch.answers("<Pause length='20'/>", SPEECH)
    sipp("uac_cancel", USERS[transport]).succeeds()
    assert set(switch.ends(CALLS)) <= {"canceled", "no-answer"}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_we_reject(switch: Switch, sipp: Callable[..., Sipp], transport: str) -> None:
    switch.answers("<Reject reason='busy'/>")
    sipp("uac_busy", USERS[transport]).succeeds()
    assert switch.ends(CALLS) == ["busy"] * CALLS


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ["uas", "uas_hangs_up"])
def test_it_is_called(switch: Switch, sipp: Callable[..., Sipp], scenario: str, transport: str) -> None:
    run = sipp(scenario)
    place(switch, transport, SPEECH, *([ENDLESS] if scenario == "uas_hangs_up" else []))
    run.succeeds()
    assert switch.ends(CALLS) == ["completed"] * CALLS


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_it_is_busy(switch: Switch, sipp: Callable[..., Sipp], transport: str) -> None:
    run = sipp("uas_busy")
    place(switch, transport, SPEECH)
    run.succeeds()
    assert switch.ends(CALLS) == ["busy"] * CALLS


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_we_cancel(switch: Switch, sipp: Callable[..., Sipp], transport: str) -> None:
    run = sipp("uas_cancel")
    sids = place(switch, transport, SPEECH, status_callback_event=["ringing", "completed"])
    switch.app.wait_calls("/status", sids)
    switch.app.hooks.clear()
    for sid in sids:
        switch.client.calls(sid).update(status="canceled")
    run.succeeds()
    assert switch.ends(CALLS) == ["canceled"] * CALLS


def test_a_real_phone_calls(switch: Switch, start: Start, peers: Peers) -> None:
    an_ivr(switch, start(), f"sip:{USERS['TCP']}@{PROXY}:{peers.proxy};transport=tcp")


def test_a_real_phone_is_called_and_holds(switch: Switch, start: Start, peers: Peers) -> None:
    number = f"{TO_PROXY['TCP']}77"
    a_held_call(switch, start(host=BEHIND, port=peers.behind, user=number), number)
