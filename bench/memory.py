"""What the memory store on Valkey carries: posts a second, and how long a lease's renewal takes with WAIT 1.

    python -m bench.memory [SECONDS]

A primary and a replica of Debian's Redis on this machine, one event loop with uvloop; servers and client share cores.
"""

import asyncio
import resource
import sys
import time
from typing import Any

import uvloop
from tests.redis import RedisServer

from trunkline.model.clock import SystemClock
from trunkline.storage.engines.valkey.memory import ValkeyStore
from trunkline.storage.engines.valkey.servers import Target
from trunkline.storage.survives import Survives

KEYS = 20_000
VALUE = b"x" * 400
"""About a checkpoint."""
GROUP = 3
BACKLOG = 2000
"""Posts that may wait: a caller pauses at more."""
RENEWERS = (1, 50)


def cpu_s() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


async def posts(store: ValkeyStore, seconds: float) -> str:
    """Groups of changes as fast as they are taken off."""
    begin, began_cpu, posted = time.monotonic(), cpu_s(), 0
    while time.monotonic() - begin < seconds:
        for _ in range(BACKLOG // GROUP // 4):
            at = posted % KEYS
            store.post_all([(f"call/{at + n}/leg", VALUE) for n in range(GROUP)], ttl_ms=600_000)
            posted += GROUP
        await asyncio.sleep(0)
        while store._posts.number - store._posts.written > BACKLOG:
            await asyncio.sleep(0.001)
    assert await store.settled(10)
    took, used = time.monotonic() - begin, cpu_s() - began_cpu
    return f"posts of {len(VALUE)} bytes: {posted / took:,.0f}/s, {used / posted * 1e6:.1f} us CPU each"


async def renewals(store: ValkeyStore, seconds: float, renewers: int) -> str:
    """Leases renewed by compare-and-set, each one after the other."""
    times: list[float] = []
    until = time.monotonic() + seconds

    async def renew(name: str) -> None:
        old, number = b"0", 0
        await store.put(name, old, 5000)
        while time.monotonic() < until:
            begin = time.perf_counter()
            number += 1
            new = b"%d" % number
            assert await store.compare_and_set(name, old, new, 5000)
            times.append(time.perf_counter() - begin)
            old = new

    await asyncio.gather(*(renew(f"node/{n}") for n in range(renewers)))
    times.sort()
    p50, p99 = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99))
    return (
        f"compare_and_set, WAIT 1, {renewers} at once: {len(times) / seconds:,.0f}/s, p50 {p50:.2f}, p99 {p99:.2f} ms"
    )


async def settled(store: ValkeyStore, seconds: float) -> str:
    """A post that is waited for."""
    times: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begin = time.perf_counter()
        store.post("call/x/leg", VALUE, 600_000)
        assert await store.settled(5)
        times.append(time.perf_counter() - begin)
    times.sort()
    p50, p99 = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99))
    return f"post and settled, WAIT 1: p50 {p50:.2f}, p99 {p99:.2f} ms"


async def main(seconds: float) -> None:
    primary = RedisServer({"min-replicas-to-write": "1", "min-replicas-max-lag": "3"}).start()
    replica = RedisServer(follows=primary.port).start()
    zones: dict[str, Any] = {primary.address: "a", replica.address: "b"}
    store = ValkeyStore(Target.read(primary.url), SystemClock(), Survives.ZONE, zones, wait_ms=1000)
    try:
        primary.wait_for_replicas(1)
        store.post("warm", b"1")
        assert await store.settled(10)
        print(await posts(store, seconds))
        for renewers in RENEWERS:
            print(await renewals(store, seconds, renewers))
        print(await settled(store, seconds))
    finally:
        store.close()
        await asyncio.sleep(0)
        primary.close()
        replica.close()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
