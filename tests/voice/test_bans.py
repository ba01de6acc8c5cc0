"""Bans: who is banned, who is spared, how they end and outlive the process."""

import logging

import pytest

from trunkline.settings import Sip
from trunkline.storage.memory import InProcess
from trunkline.testing.clock import ManualClock
from trunkline.voice.bans import FORGEABLE_S, LIFT_FILE, LOGGED, MAX_ADDRESSES, Bans, group, wanted

EVE, ADA, CARRIER = "203.0.113.7", "198.51.100.4", "192.0.2.1"


class Place:
    def __init__(self, memory=None, clock=None, **sip):
        self.clock = clock or ManualClock()
        self.memory = memory or InProcess(self.clock)
        self.bans = Bans(Sip(**sip), self.memory, self.clock, lambda host: host == CARRIER)

    def offends(self, host=EVE, times=10, proven=True, why="wrong-login"):
        for _ in range(times):
            self.bans.offended(host, why, proven=proven)


def test_too_much_in_a_window_is_a_ban_for_a_time(caplog):
    here = Place(ban_s=600)
    here.offends(times=9)
    assert not here.bans.refuses(EVE)
    with caplog.at_level(logging.WARNING):
        here.offends(times=1)
    assert here.bans.refuses(EVE)
    assert not here.bans.admits(EVE)
    assert not here.bans.refuses(ADA)
    assert [record.message for record in caplog.records] == [f"SIP: {EVE} is banned for 600 s: wrong-login"]
    assert here.bans.counters == {"wrong-login": 1}
    here.clock.advance(601)
    assert not here.bans.refuses(EVE)
    assert here.bans.admits(EVE)
    assert here.bans.listed() == []


def test_little_by_little_is_none():
    here = Place(ban_window_s=60)
    for _ in range(10):
        here.offends(times=9)
        here.clock.advance(61)
    assert not here.bans.refuses(EVE)


def test_switched_off():
    here = Place(ban_after=0)
    here.offends(times=1000)
    assert not here.bans.refuses(EVE)


def test_what_may_be_forged_is_banned_shortly_and_over_udp_only():
    here = Place()
    here.offends(proven=False)
    assert here.bans.refuses(EVE)
    assert here.bans.admits(EVE)
    here.clock.advance(FORGEABLE_S + 1)
    assert not here.bans.refuses(EVE)


@pytest.mark.parametrize("proven", [True, False])
def test_trunks_and_whoever_was_right_are_spared(proven):
    here = Place()
    here.bans.vouched(ADA)
    for host in (ADA, CARRIER):
        here.offends(host, 1000, proven)
        assert not here.bans.refuses(host)
    here.clock.advance(2 * 3600)  # longer than any registration stands
    here.offends(ADA)
    assert here.bans.refuses(ADA)


def test_a_right_login_clears_the_score():
    here = Place()
    here.offends(ADA, 9)
    here.bans.vouched(ADA)
    here.clock.advance(2 * 3600)
    here.offends(ADA, 9)
    assert not here.bans.refuses(ADA)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (EVE, EVE), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("::ffff:203.0.113.7", EVE),
        ("fe80::1%eth0", "fe80::/64"), ("2001:db8:1:2::/64", "2001:db8:1:2::/64"), ("not:an:address", "not:an:address"),
    ],
)  # fmt: skip
def test_an_ipv6_network_counts_as_one(host, name):
    assert group(host) == name


def test_another_address_of_a_banned_ipv6_network():
    here = Place()
    for number in range(10):
        here.offends(f"2001:db8::{number:x}", 1)
    assert here.bans.refuses("2001:db8::ffff")
    assert not here.bans.refuses("2001:db8:0:1::1")


async def test_bans_outlive_the_process():
    here = Place()
    here.offends()
    here.offends(ADA, proven=False)
    here.offends(CARRIER)
    here.clock.advance(FORGEABLE_S + 1)
    heir = Place(here.memory, here.clock)
    assert await heir.bans.load() == 1
    assert heir.bans.refuses(EVE)
    assert not heir.bans.admits(EVE)
    trusting = Bans(Sip(), here.memory, here.clock, lambda host: host == EVE)  # a trunk by now
    assert await trusting.load() == 0


async def test_the_operator_lifts_a_ban(tmp_path):
    here = Place()
    here.offends()
    (tmp_path / LIFT_FILE).write_text(f"{EVE}\n\nelsewhere\n")
    for address in wanted(tmp_path / LIFT_FILE):
        here.bans.lift(address)
    assert not here.bans.refuses(EVE)
    assert not (tmp_path / LIFT_FILE).exists()
    assert wanted(tmp_path / LIFT_FILE) == []
    assert await Place(here.memory, here.clock).bans.load() == 0


def test_forged_sources_fill_neither_memory_nor_log(caplog):
    here = Place(ban_after=1)
    with caplog.at_level(logging.WARNING):
        for number in range(MAX_ADDRESSES + 100):
            here.offends(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1, False)
    assert len(here.bans.listed()) == MAX_ADDRESSES
    assert not here.bans.refuses("10.0.0.0")
    assert len(caplog.records) == LOGGED + 1


def test_scores_are_bounded():
    here = Place()
    here.offends(EVE, 9)
    for number in range(MAX_ADDRESSES):
        here.offends(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
    here.offends(EVE, 1)  # its score was forgotten
    assert not here.bans.refuses(EVE)


def test_a_repeated_ban_is_no_shorter():
    here = Place(ban_s=3600)
    here.offends()
    here.offends(proven=False, times=10)
    here.clock.advance(FORGEABLE_S + 1)
    assert here.bans.refuses(EVE)


async def test_an_entry_of_another_release_is_dropped():
    here = Place()
    here.memory.post("ban/x", b"\xc1")
    assert await here.bans.load() == 0
    assert await here.memory.scan("ban/") == []
