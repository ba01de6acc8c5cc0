"""What every `MemoryStore` promises, over each engine."""

import asyncio

import pytest

from tests.redis import needs_redis
from trunkline.model.clock import SystemClock
from trunkline.storage.engines.journal.memory import JournalStore
from trunkline.storage.memory import InProcess

ENGINES = ["in-process", "journal", pytest.param("valkey", marks=needs_redis)]


@pytest.fixture(params=ENGINES)
async def store(request, tmp_path):
    if request.param == "in-process":
        yield InProcess(SystemClock())
    elif request.param == "journal":
        store = JournalStore(tmp_path / "memory.journal", SystemClock())
        yield store
        store.close()
    else:
        from trunkline.storage.engines.valkey.memory import ValkeyStore
        from trunkline.storage.engines.valkey.servers import Target

        server = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()
        store = ValkeyStore(Target.read(server.url), SystemClock())
        yield store
        store.close()
        await asyncio.sleep(0)


async def test_values_are_put_read_and_removed(store):
    assert await store.get("k") is None
    await store.put("k", b"\x00\xff")
    assert await store.get("k") == b"\x00\xff"
    await store.put("k", b"2")
    assert await store.get("k") == b"2"
    await store.delete("k")
    assert await store.get("k") is None


async def test_a_value_expires(store):
    await store.put("k", b"v", ttl_ms=60)
    store.post("p", b"v", ttl_ms=60)
    assert await store.get("k") == b"v"
    assert await store.get("p") == b"v"
    await asyncio.sleep(0.15)
    assert await store.get("k") is None
    assert await store.get("p") is None
    assert await store.scan("") == []


async def test_compare_and_set(store):
    assert await store.compare_and_set("k", None, b"1", ttl_ms=200)
    assert not await store.compare_and_set("k", None, b"2")
    assert not await store.compare_and_set("k", b"0", b"2")
    assert await store.compare_and_set("k", b"1", b"2")
    assert await store.get("k") == b"2"
    await store.delete("k")
    assert not await store.compare_and_set("k", b"2", b"3")


async def test_an_expired_key_is_free(store):
    await store.put("k", b"1", ttl_ms=50)
    assert not await store.compare_and_set("k", None, b"2")
    await asyncio.sleep(0.1)
    assert not await store.compare_and_set("k", b"1", b"2")
    assert await store.compare_and_set("k", None, b"2")


async def test_one_of_many_wins(store):
    won = await asyncio.gather(*(store.compare_and_set("k", None, b"%d" % n) for n in range(50)))
    assert sum(won) == 1
    assert await store.get("k") == b"%d" % won.index(True)


async def test_what_is_posted_is_seen_at_once_and_kept_soon(store):
    store.post("a", b"1")
    store.post_all([("a", b"2"), ("b", b"3"), ("c", b"4")], ttl_ms=60_000)
    store.post("c", None)
    assert await store.get("a") == b"2"
    assert sorted(await store.scan("")) == [("a", b"2"), ("b", b"3")]
    assert await store.settled(2)
    assert sorted(await store.scan("")) == [("a", b"2"), ("b", b"3")]
    assert await store.get("c") is None


async def test_nothing_posted_is_settled(store):
    assert await store.settled(2)


async def test_awaited_writes_come_after_posts_of_the_same_key(store):
    for number in range(20):
        store.post("k", b"posted", ttl_ms=60_000)
        await store.put("k", b"%d" % number)
        assert await store.get("k") == b"%d" % number
        store.post("k", b"posted", ttl_ms=60_000)
        assert await store.compare_and_set("k", b"posted", b"set")
        store.post("k", b"posted")
        await store.delete("k")
        assert await store.get("k") is None


async def test_a_scan_finds_what_begins_with_its_prefix(store):
    names = ["call/a/leg", "call/a/document", "call/ab/leg", "other/*", "call*", "[x]y", "[x]z", "x"]
    for name in names:
        store.post(name, name.encode())
    await store.settled(2)
    for prefix in ("", "call/", "call/a/", "call*", "[x]", "nothing", "other/*"):
        expected = sorted((name, name.encode()) for name in names if name.startswith(prefix))
        assert sorted(await store.scan(prefix)) == expected


async def test_a_scan_of_many(store):
    for number in range(3000):
        store.post(f"many/{number}", b"x")
    assert len(await store.scan("many/")) == 3000
    await store.settled(5)
    assert len(await store.scan("many/")) == 3000
