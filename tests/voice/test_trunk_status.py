"""How trunks stand, in a file that another process reads."""

import asyncio
import random
from types import SimpleNamespace

from trunkline.settings import Trunk
from trunkline.sip.flow import Target
from trunkline.voice import trunk_status
from trunkline.voice.trunk_gateways import DOWN_AFTER
from trunkline.voice.trunk_registration import Standing
from trunkline.voice.trunk_status import GATEWAY, NOT_ASKED, REGISTRATION, TrunkStatus
from trunkline.voice.trunks import Trunks

from ..messaging.world import eventually

NOW, NOW_MS = 1000.0, 1_700_000_000_000


def made(folder, *standings):
    trunk = Trunk(name="acme", gateways=("sip:10.0.0.1", "sip:carrier.example"))
    trunks = Trunks((trunk,), random.Random(1), NOW - 60)
    registrations = [SimpleNamespace(standing=lambda one=one: one) for one in standings]
    return trunks, trunk, TrunkStatus(trunks, registrations, folder, lambda: NOW, lambda: NOW_MS)


def test_gateways_and_their_addresses(tmp_path):
    trunks, trunk, status = made(tmp_path)
    one, two = trunks.gateways["acme"].all
    trunks.reached(trunk, two, [Target("UDP", f"192.0.2.{n}", 5060) for n in (1, 2)], NOW)
    for _ in range(DOWN_AFTER):
        one.endpoints[0].failed(NOW - 5, "no answer to OPTIONS")
    assert [(line.kind, line.what, line.up, line.state, line.since_ms, line.detail) for line in status.lines()] == [
        (GATEWAY, "sip:10.0.0.1", False, "down", NOW_MS - 5000, "no answer to OPTIONS"),
        (GATEWAY, "sip:carrier.example (192.0.2.1)", True, "up", NOW_MS, NOT_ASKED),
        (GATEWAY, "sip:carrier.example (192.0.2.2)", True, "up", NOW_MS, NOT_ASKED),
    ]
    two.watch(lambda: None, pinged=True)
    assert [line.detail for line in status.lines()][1:] == ["", ""]


def test_registrations(tmp_path):
    _, _, status = made(
        tmp_path,
        Standing("acme", "sip:r", "sip:u@r", "registered", True, NOW - 1, "", 55.4, "203.0.113.9:5060"),
        Standing("acme", "sip:s", "sip:u@s", "refused", False, NOW - 2, "403 Forbidden", 0.0, ""),
    )
    lines = [line for line in status.lines() if line.kind == REGISTRATION]
    assert [(line.what, line.up, line.state, line.detail) for line in lines] == [
        ("sip:u@r at sip:r", True, "registered", "55 s left, we are seen at 203.0.113.9:5060"),
        ("sip:u@s at sip:s", False, "refused", "403 Forbidden"),
    ]
    assert lines[1].since_ms == NOW_MS - 2000


async def test_it_is_written_at_each_change_and_gone_at_the_end(tmp_path):
    trunks, _, status = made(tmp_path)
    assert trunk_status.read(tmp_path) is None
    status.start()
    assert trunk_status.read(tmp_path).at_ms == NOW_MS
    (endpoint,) = trunks.gateways["acme"].all[0].endpoints
    trunks.gateways["acme"].all[0].watch(status.changed, pinged=True)
    for _ in range(DOWN_AFTER):
        endpoint.failed(NOW, "x")
    await eventually(lambda: not trunk_status.read(tmp_path).lines[0].up)
    status.stop()
    assert trunk_status.read(tmp_path) is None
    status.stop()


async def test_a_folder_that_cannot_be_written_is_no_end(tmp_path):
    _, _, status = made(tmp_path / "nowhere")
    status.start()
    await asyncio.sleep(0)
    status.stop()


def test_rubbish_is_no_snapshot(tmp_path):
    (tmp_path / trunk_status.FILE).write_text("{")
    assert trunk_status.read(tmp_path) is None
