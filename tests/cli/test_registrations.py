"""Registered phones by the command line, in a data folder without a server."""

import asyncio
from pathlib import Path

import pytest

from trunkline import bootstrap
from trunkline.bootstrap_stores import MEMORY_FILE
from trunkline.model.clock import SystemClock
from trunkline.model.sip_domain import SipDomain
from trunkline.settings import load
from trunkline.sip.flow import Flow
from trunkline.sip.registrar import Binding
from trunkline.storage.engines.journal.memory import JournalStore
from trunkline.voice.registrations import PREFIX, _encode

from .conftest import Command

SD = "SD" + "1" * 32


@pytest.fixture
def registered(data: Path, account: str) -> Path:
    """Alice has two phones, one of them gone; Bob's domain was deleted."""
    clock = SystemClock()
    now = clock.now_ms()

    async def make() -> None:
        settings = load(environment={}, overrides={"data": {"path": str(data)}})
        database = bootstrap.open_database(settings)
        await database.insert(SipDomain(sid=SD, account_sid=account, name="acme", domain_name="acme.sip.localhost"))
        await database.close()

    asyncio.run(make())
    store = JournalStore(data / MEMORY_FILE, clock)
    wire = Flow("TCP", ("2001:db8::7", 40_123), ("2001:db8::1", 5060), 7)
    phone = Binding("sip:alice@10.0.0.5:5060", wire, now + 600_500, now, "c", 1, user_agent="Desk 3")
    gone = Binding("sip:alice@10.0.0.6", wire, now - 1, now - 60_000, "d", 1)
    store.post(f"{PREFIX}{SD}/alice", _encode([phone, gone]), 600_000)
    other = Binding("sip:bob@192.0.2.5", Flow("UDP", ("192.0.2.5", 5060), wire.local), now + 60_500, now, "e", 1)
    store.post(f"{PREFIX}{'SD' + '2' * 32}/bob", _encode([other]), 60_000)
    store.post("call/CA1/leg", b"something else")
    return data


@pytest.mark.parametrize(
    ("options", "users"),
    [
        ((), ["bob@SD" + "2" * 32, "alice@acme.sip.localhost"]),
        (("--domain", "acme.sip.localhost"), ["alice@acme.sip.localhost"]),
        (("--user", "bob"), ["bob@SD" + "2" * 32]),
        (("--user", "carol"), []),
    ],
)
def test_who_is_registered(registered: Path, trunkline: Command, options: tuple[str, ...], users: list[str]) -> None:
    ran = trunkline("registrations", *options)
    assert ran.code == 0, ran.err
    assert sorted(row[0] for row in ran.rows) == sorted(users)


def test_where_and_for_how_long(registered: Path, trunkline: Command) -> None:
    before = (registered / MEMORY_FILE).read_bytes()
    (row,) = trunkline("registrations", "--user", "alice").rows
    assert row[1:4] == ["sip:alice@10.0.0.5:5060", "TCP", "[2001:db8::7]:40123"]
    assert 595 <= int(row[4]) <= 600
    assert row[5] == "Desk 3"
    assert (registered / MEMORY_FILE).read_bytes() == before  # a server may be writing it


def test_without_a_server_ever_nobody_is(data: Path, account: str, trunkline: Command) -> None:
    assert trunkline("registrations").rows == []
