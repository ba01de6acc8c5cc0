"""Failover by Sentinel: what was posted is there again, and a lease never has two holders."""

import asyncio
import itertools
import random
import socket
import threading
import time

import pytest

from tests.redis import Group, RedisServer, needs_redis
from trunkline.model.clock import SystemClock
from trunkline.storage.engines.valkey.memory import ValkeyStore
from trunkline.storage.engines.valkey.poster import PREFIX
from trunkline.storage.engines.valkey.servers import Target
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = needs_redis
TTL_MS = 500
MARGIN_S = 0.05


class Holder:
    """Takes a lease whenever it can, renews it some times, then lets it go, as a node that dies."""

    def __init__(self, name, store):
        self.name = name
        self.store = store
        self.held = []
        self.until = 0.0
        self._value = None
        self._numbers = itertools.count()
        self._random = random.Random(name)

    async def run(self):
        left = 0
        while True:
            begin = time.monotonic()
            new = f"{self.name}/{next(self._numbers)}".encode()
            old = self._value if begin < self.until else None
            try:
                if await self.store.compare_and_set("lease", old, new, TTL_MS):
                    self._value = new
                    self.until = begin + TTL_MS / 1000 - MARGIN_S
                    self.held.append((time.monotonic(), self.until))
                    left -= 1
                else:
                    self._value = None
            except StoreUnavailable:
                pass  # in doubt: it is not extended, and what stands there is left to expire
            if left <= 0 and self._value:
                left = self._random.randint(2, 6)
                await asyncio.sleep(max(0.0, self.until - time.monotonic()) + 0.1)
                self._value = None
            await asyncio.sleep(0.03)


def overlaps(one, other):
    """Times at which both believed to hold it."""
    return [(a, b) for a in one.held for b in other.held if a[0] < b[1] and b[0] < a[1] and a[0] < a[1] and b[0] < b[1]]


def sentinel_store(group, **options):
    target = Target.read("", group.addresses, "trunkline")
    return ValkeyStore(target, SystemClock(), **{"zones": group.zones(), "wait_ms": 150, **options})


async def until(condition, timeout_s=25.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def hammered(stores, disturb, calm_s=1.5):
    """Two holders through a disturbance; what they had before it and after it."""
    holders = [Holder(f"holder-{at}", store) for at, store in enumerate(stores)]
    tasks = [asyncio.create_task(one.run()) for one in holders]
    await until(lambda: all(one.held for one in holders))
    await disturb()
    disturbed = time.monotonic()
    await until(lambda: any(grant[0] > disturbed + 0.3 for one in holders for grant in one.held))
    await asyncio.sleep(calm_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return holders


@pytest.mark.parametrize("sentinels", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_the_primary_is_killed_with_writes_that_no_replica_has(sentinels):
    group = await asyncio.to_thread(Group, sentinels=sentinels)
    stores = [sentinel_store(group, survives=Survives.ZONE) for _ in range(2)]
    poster = sentinel_store(group)
    try:
        poster.post("call/a/leg", b"old", ttl_ms=60_000)
        poster.post("call/b/leg", b"old", ttl_ms=60_000)
        assert await poster.settled(2)
        old = group.primary()
        seen = []

        async def kill():
            replicas = [one for one in group.servers if one is not old]
            for one in replicas:
                one.pause()
            poster.post("call/a/leg", b"new", ttl_ms=60_000)
            poster.post("call/b/leg", None)
            await until(lambda: old.client().get(PREFIX + "call/a/leg") == b"new")
            old.kill()
            for one in replicas:
                one.resume()
            before = poster.changed_at
            while group.primary() is old:
                await asyncio.sleep(0.01)
            decided = time.monotonic()
            await until(lambda: poster.changed_at > before)
            seen.append(poster.changed_at - decided)

        one, other = await hammered(stores, kill)
        assert seen[0] < 0.5
        assert overlaps(one, other) == []
        with group.primary().client() as client:
            await until(lambda: client.get(PREFIX + "call/a/leg") == b"new")
            assert client.get(PREFIX + "call/b/leg") is None
        await until(lambda: not stores[0].problem)
    finally:
        for store in (*stores, poster):
            store.close()
        await asyncio.sleep(0)
        group.close()


@pytest.mark.slow
async def test_a_lease_has_one_holder_while_primaries_stop_pause_and_come_back():
    group = await asyncio.to_thread(Group)
    stores = [sentinel_store(group, survives=Survives.ZONE) for _ in range(2)]

    async def disturb():
        primary = group.primary()
        with primary.client() as client:  # no failover: the Sentinels see it alive
            client.execute_command("CLIENT", "PAUSE", 1500, "WRITE")
        await asyncio.sleep(2)
        for one in group.servers:  # the primary alone with its clients
            if one is not primary:
                one.pause()
        await asyncio.sleep(1.5)
        for one in group.servers:
            one.resume()
        await asyncio.sleep(1)
        primary.pause()
        while group.primary() is primary:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        primary.resume()  # still a primary, in its own eyes
        await asyncio.sleep(8)
        with group.sentinels[0].client() as client:  # the old one lives and has clients
            client.execute_command("SENTINEL", "FAILOVER", "trunkline")
        await asyncio.sleep(4)

    try:
        one, other = await hammered(stores, disturb)
        assert overlaps(one, other) == []
        assert min(len(one.held), len(other.held)) > 10
    finally:
        for store in stores:
            store.close()
        await asyncio.sleep(0)
        group.close()


class Cut:
    """A TCP relay to a server, that can be cut."""

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lines = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                line, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._lines += [line, far]
            for source, sink in ((line, far), (far, line)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for one in self._lines:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        self._lines = []


@pytest.mark.slow
async def test_a_primary_that_lost_its_peers_but_not_its_clients_renews_nothing():
    primary = RedisServer({"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}).start()
    cut = Cut(primary.port)
    group = await asyncio.to_thread(Group, seen_as=(primary, cut.port))
    beside = ValkeyStore(Target.read(primary.url), SystemClock(), Survives.ZONE, group.zones(), 150)
    zones = {**group.zones(), f"127.0.0.1:{cut.port}": "zone-0"}
    del zones[primary.address]
    elsewhere = sentinel_store(group, survives=Survives.ZONE, zones=zones)

    async def disturb():
        cut.close()
        while group.primary() is primary:
            await asyncio.sleep(0.02)
        await asyncio.sleep(3)

    try:
        one, other = await hammered([beside, elsewhere], disturb, calm_s=3)
        assert overlaps(one, other) == []
        assert max(grant[0] for grant in other.held) > max(grant[0] for grant in one.held) + 2
    finally:
        cut.close()
        for store in (beside, elsewhere):
            store.close()
        await asyncio.sleep(0)
        group.close()
