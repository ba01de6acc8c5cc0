"""A carrier (Kamailio) that wants registration and logins, and gateways (SIPp) that fail or decline."""

import json
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.kamailio import Kamailio
from tests.interop.sipp_run import Sipp
from tests.interop.switch import BEHIND, HOST, NUMBER, PROXY, Peers, Switch, wait_listening
from tests.ports import free_port
from trunkline.voice import trunk_status
from trunkline.voice.trunk_status import GATEWAY, REGISTRATION

CARRIER = Path(__file__).with_name("carrier.cfg")
PAGE = Path(__file__).parents[2] / "docs/howto/trunk.md"
DOMAIN, USER, SECRET = "carrier.example", "customer7", "s3cret"
TO, TO_FAILING, TO_DECLINING = "+12025552", "+12025553", "+12025554"
ENDLESS = "<Pause length='60'/>"
SETTLE_S = 60.0
CALLS = 3


@pytest.fixture(scope="module")
def gateways() -> dict[str, int]:
    """Ports of gateways: one that fails, and those that are tried after it."""
    return {"first": free_port(), "second": free_port(), "watched": free_port()}


def from_the_page(name: str) -> dict[str, Any]:
    """A trunk as docs/howto/trunk.md has it."""
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    trunks = [trunk for block in blocks for trunk in tomllib.loads(block).get("trunks", [])]
    return next(trunk for trunk in trunks if trunk["name"] == name)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, gateways: dict[str, int]) -> Iterator[tuple[Switch, Peers]]:
    """A server with a trunk that registers, and two with gateways that fail and that decline."""
    peers = Peers()
    carrier = {
        **from_the_page("acme"), "name": "carrier", "gateways": [f"sip:{PROXY}:{peers.proxy}"], "prefixes": [TO],
        "domain": DOMAIN, "username": USER, "password": SECRET, "country_code": "1", "register_s": 60,
        "options_ping_s": 0.2,
    }  # fmt: skip
    uris = {name: f"sip:{HOST}:{port}" for name, port in gateways.items()}
    failing = {
        **from_the_page("wholesale"), "name": "failing", "called_add": "",
        "gateways": [{"uri": uris["second"]}, {"uri": uris["first"], "priority": 1}],
    }  # fmt: skip
    declining = {"name": "declining", "gateways": [uris["first"], uris["watched"]], "failover": ["4xx", "5xx"]}
    trunks = [carrier, {**failing, "prefixes": [TO_FAILING]}, {**declining, "prefixes": [TO_DECLINING]}]
    switch = Switch(tmp_path_factory.mktemp("office"), trunks)
    try:
        yield switch, peers
    finally:
        switch.close(hard=True)


@pytest.fixture(scope="module")
def switch(office: tuple[Switch, Peers], carrier: Kamailio) -> Switch:
    """The server, running."""
    office[0].start()
    return office[0]


@pytest.fixture(scope="module")
def carrier(office: tuple[Switch, Peers], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kamailio]:
    """The carrier."""
    more = {"DOMAIN": DOMAIN, "LOGIN": USER, "PASSWORD": SECRET}
    running = Kamailio(tmp_path_factory.mktemp("carrier"), *office, CARRIER, more)
    yield running
    running.close()


@pytest.fixture
def sipp(tmp_path: Path) -> Iterator[Callable[..., Sipp]]:
    """Start SIPp; all are ended."""
    runs: list[Sipp] = []

    def sipp(scenario: str, to: str = "", **options: Any) -> Sipp:
        runs.append(Sipp(tmp_path, scenario, to, **options))
        if "p" in options and not to:
            wait_listening(options["p"])
        return runs[-1]

    yield sipp
    for run in runs:
        run.close()


def until(true: Callable[[], Any]) -> Any:
    end = time.monotonic() + SETTLE_S
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def standing(switch: Switch, kind: str, up: bool) -> Any:
    """The carrier's line of that kind, when it is so at some node."""
    snapshots = [trunk_status.read(folder) for folder in switch.server.folders]
    lines = [one for snapshot in snapshots if snapshot is not None for one in snapshot.lines]
    return next((one for one in lines if (one.trunk, one.kind, one.up) == ("carrier", kind, up)), None)


def test_it_registers_with_the_interval_that_the_carrier_wants(switch: Switch) -> None:
    line = until(lambda: standing(switch, REGISTRATION, up=True))
    assert line.what == f"sip:{USER}@{DOMAIN} at sip:{PROXY}:{line.what.rpartition(':')[2]}"
    assert line.state == "registered"
    assert 60 < float(line.detail.split(" ")[0]) <= 91  # 60 were too brief: 423 and Min-Expires
    assert until(lambda: standing(switch, GATEWAY, up=True))


def test_calls_come_in_by_the_registration(
    switch: Switch, office: tuple[Switch, Peers], sipp: Callable[..., Sipp]
) -> None:
    until(lambda: standing(switch, REGISTRATION, up=True))
    switch.answers("<Say>Welcome.</Say>", ENDLESS)
    sipp("uac", f"{PROXY}:{office[1].proxy}", calls=CALLS, host=BEHIND, s=NUMBER).succeeds()
    assert switch.ends(CALLS) == ["completed"] * CALLS
    (asked, *_) = [one for path, one in switch.app.hooks if path == "/voice"]
    assert asked["To"] == NUMBER


def test_calls_go_out_with_the_login(switch: Switch, office: tuple[Switch, Peers], sipp: Callable[..., Sipp]) -> None:
    phone = sipp("uas_hangs_up", calls=CALLS, host=BEHIND, p=office[1].behind)
    switch.app.hooks.clear()
    for index in range(CALLS):
        switch.calls(f"{TO}0{index:02d}", ENDLESS)
    phone.succeeds()
    assert switch.ends(CALLS) == ["completed"] * CALLS


def test_the_doctor_finds_nothing_wrong_beside_the_running_server(switch: Switch) -> None:
    command = [
        sys.executable,
        "-m",
        "trunkline",
        "--config",
        str(switch.server.config),
        "doctor",
        "sip",
        "carrier",
        "--json",
    ]
    ran = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert {one["verdict"] for one in found} == {"ok"}
    assert any(f"accepts the login of {USER}; 1 registered" in one["finding"] for one in found)
    assert standing(switch, REGISTRATION, up=True)


def test_a_failing_gateway_is_passed_over(switch: Switch, gateways: dict[str, int], sipp: Callable[..., Sipp]) -> None:
    bad = sipp("uas_503", calls=1, p=gateways["first"])
    good = sipp("uas_hangs_up", calls=1, p=gateways["second"])
    switch.app.hooks.clear()
    call = switch.calls(f"{TO_FAILING}001", ENDLESS)
    bad.succeeds()
    good.succeeds()
    assert switch.ends() == ["completed"]
    assert switch.landed(call.sid).status == "completed"


def test_nobody_else_is_called_after_a_decline(
    switch: Switch, gateways: dict[str, int], sipp: Callable[..., Sipp]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as watched:
        watched.bind((HOST, gateways["watched"]))
        watched.setblocking(False)
        declines = sipp("uas_603", calls=1, p=gateways["first"])
        switch.app.hooks.clear()
        switch.calls(f"{TO_DECLINING}001", ENDLESS)
        declines.succeeds()
        assert switch.ends() == ["busy"]
        with pytest.raises(BlockingIOError):
            watched.recv(4096)


def test_a_stop_takes_the_registration_back(
    switch: Switch, office: tuple[Switch, Peers], sipp: Callable[..., Sipp]
) -> None:
    assert not switch.errors()
    switch.server.stop()
    assert [trunk_status.read(folder) for folder in switch.server.folders] == [None] * len(switch.server.folders)
    sipp("uac_unregistered", f"{PROXY}:{office[1].proxy}", host=BEHIND, s=NUMBER).succeeds()
