"""What is posted, on its way: batches over one connection, in order; again after a failure."""

import asyncio

from trunkline.storage.engines.valkey.line import Command, Lane, Line, Primary
from trunkline.storage.engines.valkey.posts import Change, Posts
from trunkline.storage.engines.valkey.requests import RETRY_S
from trunkline.storage.unavailable import StoreUnavailable

PREFIX = "trunkline:"
"""Of every key of ours in the server."""
TOUCH: Command = ("SET", "trunkline.touch", "1", "PX", 60_000)
"""A write for WAIT to wait for."""
APPLY = """
for at = 1, #KEYS do
  local ttl = ARGV[2 * at]
  if ttl == '-' then redis.call('DEL', KEYS[at])
  elseif ttl == '0' then redis.call('SET', KEYS[at], ARGV[2 * at - 1])
  else redis.call('SET', KEYS[at], ARGV[2 * at - 1], 'PX', ttl) end
end
return #KEYS
"""
"""All of a batch or nothing, here and on replicas. A script, because it has one reply."""


class Poster:
    """Writes what `Posts` has."""

    def __init__(self, primary: Primary, posts: Posts, wait_ms: int) -> None:
        self._primary = primary
        self._posts = posts
        self._lane = Lane(primary)
        self._last: Line | None = None
        self._wait_ms = wait_ms
        self._wake = asyncio.Event()
        self._kept = 0
        self._settling: dict[asyncio.Future[None], int] = {}
        self._stepped = asyncio.Event()

    def wake(self) -> None:
        """There is something to write, or the primary is another one."""
        self._wake.set()

    def again(self) -> None:
        """The store is another one, and may have lost what is not known to be kept."""
        self._posts.again(self._kept)
        self._wake.set()

    async def settled(self, timeout_s: float) -> bool:
        """See `MemoryStore.settled`."""
        number = self._posts.number
        if self._kept >= number:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling[future] = number
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            self._settling.pop(future, None)
        return True

    async def written(self, key: str) -> None:
        """Return when nothing that was posted for the key before is under way."""
        number = self._posts.number
        while (change := self._posts.unwritten(key)) is not None and change.number <= number:
            self._wake.set()
            await self._stepped.wait()

    async def all_written(self, prefix: str) -> None:
        """Return when nothing that was posted below a prefix before is under way."""
        number = self._posts.number
        while any(change.number <= number for change in self._posts.all_unwritten(prefix).values()):
            self._wake.set()
            await self._stepped.wait()

    async def run(self) -> None:
        """Write, until cancelled."""
        self._posts.failed()
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._step()
                while not self._posts.idle or self._settling:
                    await self._step()
            except StoreUnavailable:
                self._posts.failed()
                self._wake.set()
                await asyncio.sleep(RETRY_S)

    async def _step(self) -> None:
        """One batch. Raises StoreUnavailable."""
        line = await self._lane.get()
        if line is not self._last:
            self._last = line
            if self._posts.overflowed:
                self._posts.again(self._kept)
        batch = self._posts.take()
        settling = bool(self._settling)
        needed = self._primary.needed if settling else 0
        commands: list[Command] = []
        if batch:
            commands.append(_apply(batch, self._posts.now_ms()))
        elif needed and not line.wrote:
            commands.append(TOUCH)
        if needed:
            commands.append(("WAIT", needed, self._wait_ms))
        replies = await line.run(commands, self._wait_ms / 1000 if needed else 0.0) if commands else []
        if commands and commands[0][0] != "WAIT":
            if isinstance(replies[0], Exception):
                if "READONLY" in str(replies[0]):
                    line.cut()
                raise StoreUnavailable(str(replies[0]))
            line.wrote = True
        self._posts.done()
        self._stepped.set()
        self._stepped = asyncio.Event()
        if settling:
            await self._settle(not needed or (isinstance(replies[-1], int) and replies[-1] >= needed))

    async def _settle(self, kept: bool) -> None:
        """Tell those whose posts are kept; pause if that is nobody, for the next try."""
        if kept and not self._primary.problem:
            self._kept = max(self._kept, self._posts.written)
        ready = [future for future, number in self._settling.items() if number <= self._kept]
        for future in ready:
            del self._settling[future]
            if not future.done():
                future.set_result(None)
        if not ready and self._posts.idle:
            await asyncio.sleep(RETRY_S)


def _apply(batch: list[tuple[str, Change]], now_ms: int) -> Command:
    arguments: list[str | bytes | int] = []
    for _, (value, expires_ms, _, _) in batch:
        if value is None:
            arguments += (b"", "-")
        else:
            arguments += (value, max(1, expires_ms - now_ms) if expires_ms else 0)
    return ("EVAL", APPLY, len(batch), *(PREFIX + key for key, _ in batch), *arguments)
