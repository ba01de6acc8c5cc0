"""Keeping a node-local copy of one kind of record fresh.

The copy is loaded whole at the start and then follows `Database.watch`: what this process commits is in the copy
before the committer goes on, what another process commits follows as soon as the engine notices. The copy itself
belongs to the caller; this only tells it what to hold.

A copy never goes back in time: reads are made one after the other, and what changes while everything is read anew is
read once more before the copy is replaced.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from trunkline.model.record import Record
from trunkline.storage.database import Database

R = TypeVar("R", bound=Record)

PAGE = 1000
"""Records read at once when a copy is loaded."""
BATCH = 200
"""Changed records read at once."""

log = logging.getLogger(__name__)


class Snapshot(Generic[R]):
    """`replace(records)` is called with everything, `change(sid, record)` for one record (None: it is gone)."""

    def __init__(
        self,
        database: Database,
        kind: type[R],
        replace: Callable[[Sequence[R]], None],
        change: Callable[[str, R | None], None],
    ) -> None:
        self._database = database
        self.kind = kind
        self._replace = replace
        self._change = change
        self._all = False
        """Everything has to be read anew."""
        self._changed: dict[str, None] = {}
        """SIDs to be read anew, in the order of their changes."""
        self._work: asyncio.Task[None] | None = None
        self._waits = False
        """Whether the engine cannot read a record without waiting."""

    async def start(self) -> None:
        """Load, and follow from here on."""
        self._database.watch(self.kind, self.changed)
        await self.load()

    async def load(self) -> None:
        """Read everything anew."""
        self._all = True
        await asyncio.shield(self._reading())

    def changed(self, sids: Sequence[str]) -> Awaitable[None] | None:
        """These records have changed (empty: any may have). What is returned ends once the copy has them; None: it has
        them now. Raises what the database raises; then they are read together with the next ones."""
        if not sids:
            self._all = True
            return asyncio.shield(self._reading())
        for sid in sids:
            # A read that needs no waiting is done here and now, so that the committer finds it in the copy.
            if not self._read_now(sid) or self._is_reading():
                self._changed[sid] = None
        return asyncio.shield(self._reading()) if self._changed else None

    def _read_now(self, sid: str) -> bool:
        if self._waits:
            return False
        read = self._database.get(self.kind, sid).__await__()
        try:
            next(read)
        except StopIteration as done:
            self._change(sid, done.value)
            return True
        if (close := getattr(read, "close", None)) is not None:
            close()
        self._waits = True
        return False

    def _is_reading(self) -> bool:
        return self._work is not None and not self._work.done()

    def _reading(self) -> "asyncio.Task[None]":
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._catch_up())
            self._work.add_done_callback(self._finished)
        return self._work

    def _finished(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("the copy of %s could not be refreshed: %s", self.kind.TABLE, task.exception())

    async def _catch_up(self) -> None:
        while self._all or self._changed:
            if self._all:
                await self._load()
                continue
            for sid, record in (await self._read_changed()).items():
                if sid not in self._changed:  # else it is out of date already
                    self._change(sid, record)

    async def _load(self) -> None:
        self._all = False
        self._changed.clear()
        try:
            records: dict[str, R | None] = {}
            after = ""
            while page := await self._database.find(self.kind, after=after, limit=PAGE):
                records.update((record.sid, record) for record in page)
                after = page[-1].sid
            while self._changed:
                records.update(await self._read_changed())
        except BaseException:
            self._all = True
            raise
        self._replace([record for record in records.values() if record is not None])

    async def _read_changed(self) -> dict[str, R | None]:
        """The next of the records that have changed; None for one that is gone."""
        sids = list(self._changed)[:BATCH]
        for sid in sids:
            del self._changed[sid]
        try:
            if len(sids) == 1:
                return {sids[0]: await self._database.get(self.kind, sids[0])}
            found = await self._database.find(self.kind, {"sid__in": sids}, limit=len(sids))
        except BaseException:
            self._changed.update(dict.fromkeys(sids))
            raise
        read: dict[str, R | None] = dict.fromkeys(sids)
        read.update((record.sid, record) for record in found)
        return read
