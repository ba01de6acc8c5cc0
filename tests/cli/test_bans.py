"""Bans by the command line, in a data folder without a server."""

from pathlib import Path

from trunkline.bootstrap_stores import MEMORY_FILE
from trunkline.model.clock import SystemClock
from trunkline.storage.engines.journal.memory import JournalStore
from trunkline.voice.bans import LIFT_FILE, PREFIX, Ban, _encode, wanted

from .conftest import Command


def test_what_is_banned(data: Path, account: str, trunkline: Command) -> None:
    clock = SystemClock()
    now = clock.now_ms()
    store = JournalStore(data / MEMORY_FILE, clock)
    for ban in (
        Ban("203.0.113.7", now + 600_500, True, "wrong-login", now),
        Ban("2001:db8::/64", now + 60_500, False, "scanner", now),
        Ban("192.0.2.1", now - 1, True, "scanner", now),
    ):
        store.post(PREFIX + ban.address, _encode(ban), 600_000)
    store.post(f"{PREFIX}x", b"of another release")
    ran = trunkline("bans")
    assert ran.code == 0, ran.err
    assert [row[:3] for row in ran.rows] == [["2001:db8::/64", "scanner", "UDP"], ["203.0.113.7", "wrong-login", "all"]]


def test_a_ban_is_lifted_by_the_running_server(data: Path, account: str, trunkline: Command) -> None:
    for address in ("203.0.113.7", "2001:db8::5"):
        assert trunkline("bans", "--lift", address).code == 0
    assert wanted(data / LIFT_FILE) == ["203.0.113.7", "2001:db8::5"]
