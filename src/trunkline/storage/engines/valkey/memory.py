"""A `MemoryStore` in Valkey (or Redis), shared by the nodes of a cluster.

Theory. What is awaited goes to the primary and, where a `host` or more is to be survived, is confirmed by as many
replicas as that takes. What is posted is written behind, in order, and kept here as well: while the store is away the
latest value of each key waits, and when the store comes back as another one (restarted, promoted, emptied) this process
writes again what it has posted. So the store may be lost at any time: it costs takeover while it is away, never a call.

Two owners. A key that a store has forgotten looks free although somebody holds it. So a `compare_and_set` of an absent
key with a time to live waits until this process has seen the same store for that long, up to LONGEST_LEASE_MS.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from trunkline.model.clock import Clock
from trunkline.storage.engines.valkey.durability import ASK, Server, check
from trunkline.storage.engines.valkey.line import Lane, Line, Primary
from trunkline.storage.engines.valkey.poster import PREFIX, Poster
from trunkline.storage.engines.valkey.posts import Posts
from trunkline.storage.engines.valkey.requests import REQUEST_S, RETRY_S, Requests, TooEarly
from trunkline.storage.engines.valkey.servers import Servers, Target
from trunkline.storage.memory import MAX_VALUE_BYTES, ValueTooLarge
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

CHECK_S = 1.0
"""How often the primary is asked what it is and how it is set, seconds."""
LONGEST_LEASE_MS = 10_000
"""A longer time to live is no lease: such keys do not wait after a change of the store."""
SCAN_KEYS = 1000
"""Keys that one step of a scan looks at."""
WRITE_S = 5.0
"""Longest wait of a scan for what was posted before, seconds."""
READ_KEYS = 200
"""Values read together."""
AGAIN_S = 1.0
"""Pause before a part of ours that failed goes on, seconds."""
COMPARE_AND_SET = """
local now = redis.call('GET', KEYS[1])
if ARGV[1] == '0' then if now then return 0 end
elseif now ~= ARGV[2] then return 0 end
if ARGV[4] == '0' then redis.call('SET', KEYS[1], ARGV[3])
else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1
"""

T = TypeVar("T")

log = logging.getLogger(__name__)


class ValkeyStore:
    """See the module. Made anywhere; used by one event loop, and connected by its first use there."""

    def __init__(
        self,
        target: Target,
        clock: Clock,
        survives: Survives = Survives.PROCESS,
        zones: Mapping[str, str] | None = None,
        wait_ms: int = 200,
    ) -> None:
        """`zones`: label of each server by its address; `wait_ms`: how long a write waits for replicas."""
        self.survives = survives
        self._servers = Servers(target)
        self._primary = Primary(self._servers, survives, zones or {})
        self._posts = Posts(lambda: int(clock.monotonic() * 1000))
        self._poster = Poster(self._primary, self._posts, wait_ms)
        self._reads = Requests(self._primary, wait_ms, sure=False)
        self._writes = Requests(self._primary, wait_ms, sure=True)
        self._checks = Lane(self._primary)
        self._look_now = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._primary.changed = self._changed

    # -- what the cluster asks beside the protocol -----------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why what was asked of it is not kept now (one line, for /readyz); empty: it is."""
        return self._primary.problem

    @property
    def changed_at(self) -> float:
        """Monotonic seconds at which this process first saw the store as it is: what it does not have may be held by
        somebody until a time to live later. 0: it has not been seen."""
        return self._primary.changed_at

    def own(self, owns: Callable[[str], bool]) -> None:
        """Ask `owns` about each posted key when it is written: what has another owner by then is dropped."""
        self._posts.owns = owns

    # -- MemoryStore -----------------------------------------------------------------------------------------

    async def get(self, key: str) -> bytes | None:
        """See `MemoryStore.get`; sees what this process has posted. Raises StoreUnavailable."""
        change = self._posts.unwritten(key)
        if change is not None:
            return self._posts.value_of(change)
        self._start()
        value: bytes | None = (await self._reads.ask(("GET", PREFIX + key)))[0]
        return value

    async def put(self, key: str, value: bytes, ttl_ms: int = 0) -> None:
        """See `MemoryStore.put`. Raises StoreUnavailable, StoreInDoubt, ValueTooLarge."""
        _check_size(key, value)
        await self._take_over(key)
        await self._writes.ask(("SET", PREFIX + key, value, *(("PX", ttl_ms) if ttl_ms else ())))

    async def delete(self, key: str) -> None:
        """See `MemoryStore.delete`. Raises StoreUnavailable, StoreInDoubt."""
        await self._take_over(key)
        await self._writes.ask(("DEL", PREFIX + key))

    async def compare_and_set(self, key: str, old: bytes | None, new: bytes, ttl_ms: int = 0) -> bool:
        """See `MemoryStore.compare_and_set`. Raises StoreUnavailable, StoreInDoubt (look what stands there: it may have
        been done), ValueTooLarge."""
        _check_size(key, new)
        await self._take_over(key)
        command = (
            "EVAL", COMPARE_AND_SET, 1, PREFIX + key, "0" if old is None else "1", old or b"", new, ttl_ms,
        )  # fmt: skip
        grace_s = ttl_ms / 1000 if old is None and ttl_ms <= LONGEST_LEASE_MS else 0.0
        try:
            replies = await self._writes.ask(command, grace_s=grace_s, matters=_was_set)
        except TooEarly as early:
            if early.left_s > REQUEST_S:
                raise
            await asyncio.sleep(early.left_s)
            replies = await self._writes.ask(command, grace_s=grace_s, matters=_was_set)
        return _was_set(replies)

    def post(self, key: str, value: bytes | None, ttl_ms: int = 0) -> None:
        """See `MemoryStore.post`. Raises ValueTooLarge."""
        self.post_all(((key, value),), ttl_ms)

    def post_all(self, changes: Sequence[tuple[str, bytes | None]], ttl_ms: int = 0) -> None:
        """See `MemoryStore.post_all`: the changes are seen together. Raises ValueTooLarge."""
        self._posts.post(changes, ttl_ms)
        self._start()
        self._poster.wake()

    def settled(self, timeout_s: float) -> Awaitable[bool]:
        """See `MemoryStore.settled`."""
        self._start()
        return self._poster.settled(timeout_s)

    async def scan(self, prefix: str) -> list[tuple[str, bytes]]:
        """See `MemoryStore.scan`; sees what this process has posted. Raises StoreUnavailable."""
        self._start()
        await self._in_time(self._poster.all_written(prefix), WRITE_S)
        found = await scan(self._reads.ask, prefix)
        for key, change in self._posts.all_unwritten(prefix).items():
            found.pop(key, None)
            if (value := self._posts.value_of(change)) is not None:
                found[key] = value
        return list(found.items())

    def close(self) -> None:
        """Let go of the connections; what is not written is not written (`settled` first)."""
        for task in self._tasks:
            task.cancel()
        self._primary.changed = lambda lost: None
        self._primary.close()

    # -- inside ----------------------------------------------------------------------------------------------

    async def _take_over(self, key: str) -> None:
        """Before a write that is awaited: what was posted for the key goes first, and is not written again."""
        self._start()
        if self._posts.unwritten(key) is not None:
            await self._in_time(self._poster.written(key), REQUEST_S)
        self._posts.forget(key)

    async def _in_time(self, written: Coroutine[Any, Any, None], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await written
        except TimeoutError:
            raise StoreUnavailable(self.problem or "what was posted before is not written yet") from None

    def _start(self) -> None:
        """Begin to work, once an event loop runs."""
        if self._tasks:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        works = (self._poster.run, self._reads.run, self._writes.run, self._watch, self._check)
        self._tasks = [loop.create_task(_forever(work)) for work in works]

    def _changed(self, lost: bool) -> None:
        if lost:
            self._poster.again()
        self._poster.wake()
        self._look_now.set()

    async def _watch(self) -> None:
        await self._servers.watch(self._primary.switched)
        await asyncio.Event().wait()

    async def _check(self) -> None:
        """Look at the primary every CHECK_S; at once when Sentinel says it is another one; soon if not all is well."""
        while True:
            self._look_now.clear()
            pause_s = CHECK_S
            try:
                await self._primary.look(await self._checks.get())
            except StoreUnavailable:  # of a connection that broke, or `problem` says why
                pause_s = RETRY_S
            try:
                async with asyncio.timeout(RETRY_S if self._primary.problem else pause_s):
                    await self._look_now.wait()
            except TimeoutError:
                continue


async def scan(ask: Callable[..., Awaitable[list[Any]]], prefix: str) -> dict[str, bytes]:
    """Every key of ours below a prefix, with its value. Raises StoreUnavailable."""
    pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", PREFIX + prefix) + "*"
    keys: dict[bytes, None] = {}
    cursor: bytes | str = "0"
    while True:
        ((cursor, some),) = await ask(("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_KEYS))
        keys.update(dict.fromkeys(some))
        if cursor == b"0":
            break
    found: dict[str, bytes] = {}
    names = list(keys)
    for at in range(0, len(names), READ_KEYS):
        some = names[at : at + READ_KEYS]
        (values,) = await ask(("MGET", *some))
        found |= {
            name.decode()[len(PREFIX) :]: value for name, value in zip(some, values, strict=True) if value is not None
        }
    return found


def look(target: Target, wanted: Survives, zones: Mapping[str, str]) -> str:
    """One line about a primary that keeps what is wanted. Blocks. Raises CannotSurvive, StoreUnavailable."""

    async def asked(line: Line) -> str:
        server = Server.of(line.address, await line.run(ASK))
        needed = check(server, wanted, zones)
        waits = (
            f"a write waits for {needed} of {len(server.replicas)} replicas" if needed else "no replica is waited for"
        )
        return f"primary {server.address}: appendfsync {_fsync(server)}, {waits}"

    return _blocking(target, asked)


def peek(target: Target, prefix: str) -> list[tuple[str, bytes]]:
    """What `scan` would find. Blocks. Raises StoreUnavailable."""

    async def scanned(line: Line) -> dict[str, bytes]:
        async def ask(command: Any) -> list[Any]:
            return await line.run([command])

        return await scan(ask, prefix)

    return list(_blocking(target, scanned).items())


def _blocking(target: Target, use: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
    """Use a connection of its own, in a thread with an event loop of its own: one may run here."""

    async def connected() -> T:
        address, wire = await Servers(target).open()
        line = Line(wire, address)
        try:
            return await use(line)
        finally:
            line.cut()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(connected())).result()


async def _forever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A fault of one of our parts must not end it."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a part of the memory store failed; it goes on")
            await asyncio.sleep(AGAIN_S)


def _was_set(replies: list[Any]) -> bool:
    return bool(replies[0] == 1)


def _check_size(key: str, value: bytes) -> None:
    if len(value) > MAX_VALUE_BYTES:
        raise ValueTooLarge(f"{key}: {len(value)} bytes, at most {MAX_VALUE_BYTES} can be kept")


def _fsync(server: Server) -> str:
    own = server.settings
    return own.get("appendfsync", "unknown") if own.get("appendonly") == "yes" else "off"
