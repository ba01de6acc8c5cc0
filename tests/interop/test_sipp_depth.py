"""SIPp against the whole server: reliable responses (RFC 3262), UPDATE (RFC 3311), session timers (RFC 4028), REFER
(RFC 3515) and redirects, with SIPp as caller and as callee. Session intervals are of seconds here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.sipp_run import Sipp
from tests.interop.switch import HOST, NUMBER, Peers, Switch, wait_listening
from tests.ports import free_port

FEW = 3
TO = "+120255540"
ENDLESS = "<Pause length='60'/>"
SPEECH = "<Say>You are welcome.</Say>"
DELAY = "<Pause length='1'/>"
"""As the first verb: it rings on for a second."""
Start = Callable[..., Sipp]


class Depth:
    """A server with short session intervals, and a trunk to SIPp that may send calls elsewhere."""

    def __init__(self, folder: Path) -> None:
        peers = Peers()
        self.callee, self.moved = peers.sipp, free_port()
        trunks = [
            {"name": "near", "addresses": [f"{HOST}/32"], "prefixes": []},
            {
                "name": "depth",
                "gateways": [f"sip:{HOST}:{self.callee}"],
                "prefixes": [TO],
                "follow_redirects": True,
                "refers": True,
            },
        ]
        self.switch = Switch(folder, trunks, sip={"session_expires_s": 6, "min_se_s": 3, "t1_s": 0.1})


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Depth]:
    made = Depth(tmp_path_factory.mktemp("depth"))
    try:
        made.switch.start()
        yield made
        assert not made.switch.errors()
    finally:
        made.switch.close()


@pytest.fixture
def start(depth: Depth, tmp_path: Path) -> Iterator[Start]:
    """Start SIPp: as a callee with `p=port`, else as a caller of the number."""
    runs = []

    def start(scenario: str, **options: Any) -> Sipp:
        switch, options = depth.switch, {"calls": FEW, **options}
        if "p" in options:
            runs.append(Sipp(tmp_path, scenario, **options))
            wait_listening(options["p"])
        else:
            runs.append(Sipp(tmp_path, scenario, f"{switch.host}:{switch.sip_port}", s=NUMBER, **options))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def place(depth: Depth, *verbs: str) -> None:
    """Have the API place calls to SIPp."""
    depth.switch.app.hooks.clear()
    for index in range(FEW):
        depth.switch.calls(f"{TO}{index:02d}", *verbs)


# -- it calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["uac_prack", "uac_update"])
def test_it_calls(depth: Depth, start: Start, scenario: str) -> None:
    depth.switch.answers(DELAY, SPEECH, ENDLESS)
    start(scenario).succeeds()
    assert depth.switch.ends(FEW) == ["completed"] * FEW


def test_it_never_acknowledges_the_ringing(depth: Depth, start: Start) -> None:
    depth.switch.answers("<Pause length='30'/>", SPEECH)
    start("uac_no_prack").succeeds()
    assert depth.switch.ends(FEW) == ["no-answer"] * FEW


def test_it_refreshes_the_session_and_then_does_not(depth: Depth, start: Start) -> None:
    depth.switch.answers(SPEECH, ENDLESS)
    start("uac_timer").succeeds()
    assert depth.switch.ends(FEW) == ["completed"] * FEW


def test_we_refresh_the_session_of_its_call(depth: Depth, start: Start) -> None:
    depth.switch.answers(SPEECH, ENDLESS)
    start("uac_refreshed").succeeds()
    assert depth.switch.ends(FEW) == ["completed"] * FEW


def test_it_asks_for_too_short_a_session(depth: Depth, start: Start) -> None:
    depth.switch.answers(SPEECH)
    start("uac_422").succeeds()
    assert not depth.switch.app.hooks


def test_it_transfers_whom_it_talks_with(depth: Depth, start: Start) -> None:
    switch = depth.switch
    switch.answers(f"<Dial referUrl='{switch.app.url}/refer'>{TO}99</Dial>", refer="<Say>Goodbye.</Say>")
    callee = start("uas", calls=1, p=depth.callee)
    start("uac_refer", calls=1).succeeds()
    callee.succeeds()
    (asked,) = switch.app.wait("/refer", 1)
    assert asked["ReferTransferTarget"] == "<sip:+12025550188@pbx.example>"
    assert switch.ends() == ["completed"]


# -- it is called --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["uas_prack", "uas_422"])
def test_we_call(depth: Depth, start: Start, scenario: str) -> None:
    run = start(scenario, p=depth.callee)
    place(depth, SPEECH)
    run.succeeds()
    assert depth.switch.ends(FEW) == ["completed"] * FEW


def test_we_refresh_by_reinvite_where_there_is_no_update(depth: Depth, start: Start) -> None:
    run = start("uas_timer", p=depth.callee)
    place(depth, "<Pause length='3'/>")
    run.succeeds()
    assert depth.switch.ends(FEW) == ["completed"] * FEW


def test_we_ask_it_to_call_elsewhere(depth: Depth, start: Start) -> None:
    switch = depth.switch
    switch.answers(referred="<Hangup/>")
    run = start("uas_refer", p=depth.callee)
    place(depth, f"<Refer action='{switch.app.url}/referred'><Sip>sip:agent@pbx.example</Sip></Refer>")
    run.succeeds()
    for asked in switch.app.wait("/referred", FEW):
        told = asked["ReferCallStatus"], asked["ReferSipResponseCode"], asked["NotifySipResponseCode"]
        assert told == ("in-progress", "202", "200")
    assert switch.ends(FEW) == ["completed"] * FEW


def test_it_has_moved(depth: Depth, start: Start) -> None:
    moved = start("uas", p=depth.moved)
    run = start("uas_moved", p=depth.callee, key=f"moved {depth.moved}")
    place(depth, SPEECH)
    run.succeeds()
    moved.succeeds()
    assert depth.switch.ends(FEW) == ["completed"] * FEW
