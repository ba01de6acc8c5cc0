"""Connections to servers that fall silent."""

import asyncio
import errno

import pytest

from tests.redis import RedisServer, needs_redis
from trunkline.storage.engines.valkey.servers import Servers, Target

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
