"""The memory store on a real server that is stopped, killed, emptied and replaced."""

import asyncio
import socket
import time

import pytest

from tests.certificates import Authority
from tests.ports import free_port
from tests.redis import RedisServer, needs_redis
from trunkline.model.clock import SystemClock
from trunkline.storage.engines.valkey import memory, requests
from trunkline.storage.engines.valkey.memory import ValkeyStore
from trunkline.storage.engines.valkey.poster import PREFIX
from trunkline.storage.engines.valkey.servers import Target
from trunkline.storage.memory import MAX_VALUE_BYTES, StoreInDoubt, ValueTooLarge
from trunkline.storage.survives import CannotSurvive, Survives
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = needs_redis


@pytest.fixture
def server():
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture
async def made():
    stores = []

    def make(url, **options):
        stores.append(ValkeyStore(Target.read(url), SystemClock(), **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
    await asyncio.sleep(0)


async def until(condition, timeout_s=8.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def kept(server, key):
    with server.client() as client:
        return client.get(PREFIX + key)


async def test_a_reader_never_sees_changes_out_of_order_or_halves_of_a_group(server, made):
    store = made(server.url)
    await store.get("x")
    seen = []
    with server.client() as client:
        for number in range(3000):
            store.post_all([("a", b"%d" % number), ("b", b"%d" % number)], ttl_ms=60_000)
            store.post("c", b"%d" % number)
            if number % 20 == 0:
                await asyncio.sleep(0)
                seen.append([int(value or b"-1") for value in client.mget(*(PREFIX + key for key in "abc"))])
    assert await store.settled(2)
    assert all(a == b and c in (a, a - 1) for a, b, c in seen)
    assert len({a for a, _, _ in seen}) > 20


async def test_a_stopped_server_holds_up_nobody_and_gets_what_was_posted(server, made):
    store = made(server.url)
    await store.put("warm", b"1")
    server.pause()
    begin = time.monotonic()
    for number in range(1000):
        store.post(f"k{number % 10}", b"%d" % number, ttl_ms=60_000)
    assert time.monotonic() - begin < 0.2
    assert await store.get("k9") == b"999"
    assert not await store.settled(0.1)
    with pytest.raises(StoreUnavailable):
        await store.get("warm")
    with pytest.raises(StoreUnavailable):
        await store.put("other", b"1")
    assert time.monotonic() - begin < 4
    await until(lambda: store.problem)
    server.resume()
    assert await store.settled(5)
    assert kept(server, "k9") == b"999"
    await until(lambda: not store.problem)
    await store.put("other", b"2")
    assert kept(server, "other") == b"2"


async def test_a_write_that_was_sent_but_not_answered_is_in_doubt(server, made):
    store = made(server.url)
    await store.put("k", b"1")
    server.pause()
    with pytest.raises(StoreInDoubt):
        await store.compare_and_set("k", b"1", b"2")
    server.resume()


async def test_an_empty_server_gets_back_what_its_owners_posted(server, made):
    mine, other = made(server.url), made(server.url)
    mine.post_all([("call/a/leg", b"a"), ("call/b/leg", b"b")], ttl_ms=60_000)
    mine.post("call/b/leg", None)
    other.post("call/c/leg", b"c", ttl_ms=60_000)
    await mine.put("lease", b"mine", ttl_ms=60_000)
    assert await mine.settled(2)
    assert await other.settled(2)
    server.kill()
    server.start()  # nothing was kept on disk
    await until(lambda: kept(server, "call/a/leg") and kept(server, "call/c/leg"))
    assert kept(server, "call/b/leg") is None
    assert kept(server, "lease") is None  # awaited writes are their owner's to make anew
    with server.client() as client:
        assert 50_000 < client.pttl(PREFIX + "call/a/leg") <= 60_000


async def test_a_server_that_was_flushed_gets_it_back_too(server, made):
    store = made(server.url)
    store.post("call/a/leg", b"a", ttl_ms=60_000)
    assert await store.settled(2)
    with server.client() as client:
        client.flushall()
    await until(lambda: kept(server, "call/a/leg") == b"a")


async def test_what_has_another_owner_by_then_is_not_written_again(server, made):
    store = made(server.url)
    store.own(lambda key: not key.startswith("call/a/"))
    store.post("call/b/leg", b"b", ttl_ms=60_000)
    assert await store.settled(2)
    store.post("call/a/leg", b"mine", ttl_ms=60_000)
    assert await store.settled(2)
    assert kept(server, "call/a/leg") is None
    assert kept(server, "call/b/leg") == b"b"


async def test_a_free_key_is_not_taken_right_after_the_store_has_forgotten(server, made):
    first, second = made(server.url), made(server.url)
    assert await first.compare_and_set("node/a", None, b"1", ttl_ms=600)
    assert await second.get("node/a") == b"1"
    before = second.changed_at
    server.kill()
    server.start()
    await until(lambda: second.changed_at > before)
    won = False
    while not won:
        try:
            won = await second.compare_and_set("node/a", None, b"2", ttl_ms=600)
        except StoreUnavailable:
            await asyncio.sleep(0.01)
    assert time.monotonic() >= second.changed_at + 0.6
    with pytest.raises(StoreUnavailable, match="has changed"):
        await second.compare_and_set("node/b", None, b"2", ttl_ms=memory.LONGEST_LEASE_MS)


async def test_replicas_that_do_not_confirm_in_time(made):
    primary = RedisServer({"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}).start()
    replica = RedisServer(follows=primary.port).start()
    try:
        primary.wait_for_replicas(1)
        zones = {primary.address: "a", replica.address: "b"}
        store = made(primary.url, survives=Survives.ZONE, zones=zones, wait_ms=300)
        store.post("p", b"1", ttl_ms=60_000)
        assert await store.settled(5)
        assert await store.compare_and_set("k", None, b"1")
        replica.pause()
        begin = time.monotonic()
        with pytest.raises(StoreInDoubt, match="0 of 1 replicas"):
            await store.compare_and_set("k", b"1", b"2")
        assert not await store.compare_and_set("k", b"wrong", b"3")  # nothing was changed: nothing is in doubt
        store.post("p", b"2", ttl_ms=60_000)
        assert not await store.settled(0.3)
        assert time.monotonic() - begin < 3
        assert await store.get("k") == b"2"
        replica.resume()
        assert await store.settled(5)
        assert kept(replica, "p") == b"2"
        replica.kill()
        await until(lambda: "no replica" in store.problem)
        with pytest.raises(StoreUnavailable, match="no replica"):
            await store.put("k", b"4")
        replica.start()
        await until(lambda: not store.problem)
        await store.put("k", b"4")
    finally:
        primary.close()
        replica.close()


async def test_a_server_that_cannot_keep_it_is_refused_at_the_start(server):
    with pytest.raises(CannotSurvive, match=r"has no replica"):
        memory.look(Target.read(server.url), Survives.HOST, {})
    assert "no replica is waited for" in memory.look(Target.read(server.url), Survives.PROCESS, {})


async def test_hosts_are_tried_one_by_one_with_deadlines_of_their_own(server, made):
    with socket.socket() as hole:  # takes connections and never answers
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        url = f"redis://127.0.0.1:{free_port()},127.0.0.1:{hole.getsockname()[1]},{server.address}/0"
        store = made(url)
        begin = time.monotonic()
        assert await store.get("k") is None
        assert time.monotonic() - begin < 1.0
    with pytest.raises(StoreUnavailable):
        memory.look(Target.read(f"redis://127.0.0.1:{free_port()}"), Survives.PROCESS, {})


async def test_a_wrong_password_is_told_and_not_shown(made):
    server = RedisServer({"requirepass": "right"})
    try:
        server._answers = lambda: True
        server.start()
        right, wrong = f"redis://:right@{server.address}", f"redis://:wrong@{server.address}"
        await until(lambda: _says(right).startswith("primary"))
        with pytest.raises(StoreUnavailable, match="log-in is refused") as refusal:
            memory.look(Target.read(wrong), Survives.PROCESS, {})
        assert "wrong@" not in str(refusal.value)
    finally:
        server.close()


def _says(url):
    try:
        return memory.look(Target.read(url), Survives.PROCESS, {})
    except StoreUnavailable as error:
        return str(error)


async def test_too_many_requests_at_once_are_refused(server, made, monkeypatch):
    monkeypatch.setattr(requests, "MAX_REQUESTS", 50)
    store = made(server.url)
    results = await asyncio.gather(*(store.get(f"k{n}") for n in range(60)), return_exceptions=True)
    assert sum(isinstance(one, StoreUnavailable) for one in results) == 10
    assert results.count(None) == 50
    assert await store.get("k") is None


async def test_large_values(server, made):
    store = made(server.url)
    store.post("large", b"x" * MAX_VALUE_BYTES)
    assert await store.settled(2)
    assert await store.get("large") == b"x" * MAX_VALUE_BYTES
    with pytest.raises(ValueTooLarge):
        store.post("larger", b"x" * (MAX_VALUE_BYTES + 1))
    with pytest.raises(ValueTooLarge):
        await store.put("larger", b"x" * (MAX_VALUE_BYTES + 1))


async def test_it_is_read_beside_the_server_that_writes(server, made):
    store = made(server.url)
    store.post_all([("ban/a", b"1"), ("ban/b", b"2"), ("call/c", b"3")])
    assert await store.settled(2)
    assert sorted(memory.peek(Target.read(server.url), "ban/")) == [("ban/a", b"1"), ("ban/b", b"2")]


async def test_over_tls_with_a_user_of_few_rights(tmp_path):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    files = authority.issue("server")
    tls = free_port()
    server = RedisServer(
        {
            "tls-port": str(tls),
            "tls-cert-file": str(files.chain),
            "tls-key-file": str(files.key),
            "tls-auth-clients": "no",
        }
    ).start()
    rights = "~trunkline* +@read +@write +@connection +eval +wait +info +role +config|get"
    try:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "me", "on", ">secret", *rights.split())
        url = f"rediss://me:secret@127.0.0.1:{tls}/0"
        target = Target.read(url, tls_ca=str(authority.path))
        store = ValkeyStore(target, SystemClock())
        assert await store.compare_and_set("k", None, b"1", ttl_ms=100)
        store.post("p", b"1", ttl_ms=60_000)
        assert await store.settled(5)
        assert await store.scan("") in ([("k", b"1"), ("p", b"1")], [("p", b"1"), ("k", b"1")], [("p", b"1")])
        await store.delete("p")
        assert not store.problem
        store.close()
        await asyncio.sleep(0)
        assert "appendfsync off" in memory.look(target, Survives.PROCESS, {})
        with pytest.raises(StoreUnavailable, match="certificate"):
            memory.look(Target.read(url, tls_ca=str(other.path)), Survives.PROCESS, {})
    finally:
        server.close()
