"""Connections to servers that fall silent, and to those that have become the primary."""

import asyncio
import errno
import socket

import pytest

from tests.redis import Group, RedisServer, needs_redis
from trunkline.storage.engines.valkey.line import Line, Primary
from trunkline.storage.engines.valkey.servers import Address, Servers, Target, Wire
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = needs_redis


async def test_a_connection_that_the_system_gave_up_ends(redis_server: RedisServer) -> None:
    """TCP_USER_TIMEOUT makes ETIMEDOUT of a host that is gone: whoever waits for a reply must hear of it."""
    servers = Servers(Target.read(redis_server.url, (), "trunkline", "", ""))
    _, wire = await servers.open()
    waiting = asyncio.ensure_future(wire.take())
    await asyncio.sleep(0)
    wire._reader.set_exception(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
    with pytest.raises(OSError, match="lost"):
        await waiting
    with pytest.raises(OSError, match="lost"):
        await wire.take()
    wire.cut()


async def test_nothing_is_a_reply_too(redis_server: RedisServer) -> None:
    servers = Servers(Target.read(redis_server.url, (), "trunkline", "", ""))
    _, wire = await servers.open()
    await wire.send_packed_command(wire.pack_command("GET", "there is no such key"), check_health=False)
    assert await wire.take() is None
    wire.cut()


async def test_a_sentinel_that_is_cut_off_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.storage.engines.valkey.servers.SENTINEL_S", 60.0)
    group = Group(replicas=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        cut_off = f"127.0.0.1:{silent.getsockname()[1]}"
        try:
            servers = Servers(Target.read("", [cut_off, *group.addresses[:2]], "trunkline"))
            async with asyncio.timeout(30):
                address, wire = await servers.open()
            wire.cut()
            assert address == Address.parse(group.primary().address, 0)
        finally:
            group.close()


async def test_the_sentinel_that_knows_what_was_said_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    former, now = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)
    slow = asyncio.Event()

    async def ask(self: Servers, sentinel: Address) -> tuple[int, Address]:
        if sentinel.host != "10.1.0.3":
            return 1, former
        await slow.wait()
        return 2, now

    monkeypatch.setattr(Servers, "_ask", ask)
    servers = Servers(Target.read("", ["10.1.0.1", "10.1.0.2", "10.1.0.3"], "trunkline"))
    assert await servers._candidates(None) == (former,)
    assert await servers._candidates(former) == (former,)
    asking = asyncio.ensure_future(servers._candidates(now))
    await asyncio.sleep(0.01)
    slow.set()
    assert await asking == (now,)


# -- the primary changes -----------------------------------------------------------------------------------------


class Elsewhere(Servers):
    """Servers of which one swallows what it is sent, as one that is cut off does."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.hangs = False

    async def open(self, said: Address | None = None) -> tuple[Address, Wire]:
        if self.hangs:
            await asyncio.Event().wait()
        return await super().open(said)


async def test_only_connections_elsewhere_are_given_up(redis_server: RedisServer) -> None:
    servers = Elsewhere(Target.read(redis_server.url))
    primary = Primary(servers, Survives.PROCESS, {})
    told: list[bool] = []
    line = await primary.open()
    primary.changed = told.append
    for _ in range(3):  # each Sentinel says it
        primary.switched(line.address)
    assert told == [False] * 3
    assert not line.lost
    primary.switched(Address("127.0.0.1", 1))
    assert line.lost


async def test_a_connection_to_the_former_primary_is_not_waited_for(redis_server: RedisServer) -> None:
    servers = Elsewhere(Target.read(redis_server.url))
    primary = Primary(servers, Survives.PROCESS, {})
    servers.hangs = True
    opening = asyncio.ensure_future(primary.open())
    await asyncio.sleep(0.01)
    servers.hangs = False
    here = Address.parse(redis_server.address, 0)
    primary.switched(here)
    with pytest.raises(StoreUnavailable, match="has changed to"):
        async with asyncio.timeout(30):
            await opening
    line = await primary.open()
    assert line.address == here
    primary.close()
    assert line.lost


async def test_the_primary_may_change_twice_in_a_moment(redis_server: RedisServer) -> None:
    servers = Elsewhere(Target.read(redis_server.url))
    primary = Primary(servers, Survives.PROCESS, {})
    line = await primary.open()
    servers.hangs = True
    opening = asyncio.ensure_future(primary.open())
    await asyncio.sleep(0.01)
    primary.switched(line.address)
    told = asyncio.get_running_loop().create_future()

    def another() -> None:  # before the task has heard of the first
        primary.switched(Address("127.0.0.1", 1))
        told.set_result(None)

    asyncio.get_running_loop().call_soon(another)
    with pytest.raises(StoreUnavailable, match="has changed to"):
        await opening
    await told
    assert line.lost


async def test_a_connection_to_whoever_was_the_primary_when_it_began_is_not_used(redis_server: RedisServer) -> None:
    primary = Primary(Servers(Target.read(redis_server.url)), Survives.PROCESS, {})

    async def switched_meanwhile(line: Line) -> None:
        primary.switched(Address("127.0.0.1", 1))

    primary.look = switched_meanwhile  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="changed"):
        await primary.open()


@pytest.mark.parametrize(
    ("said", "address"),
    [
        (b"trunkline 10.0.0.1 6379 10.0.0.2 6380", Address("10.0.0.2", 6380)),
        (b"other 10.0.0.1 6379 10.0.0.2 6380", None),
        (b"trunkline 10.0.0.1 6379 10.0.0.2 port", None),
        (b"trunkline", None),
        (b"\xff", None),
    ],
)
def test_what_a_sentinel_says_is_read(said: bytes, address: Address | None) -> None:
    assert Servers(Target.read("", ["10.0.0.3"], "trunkline"))._ours(said) == address
