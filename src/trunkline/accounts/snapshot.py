"""Keeping a node-local copy of one kind of record fresh.

The copy is loaded whole at the start and then follows `Database.watch`: what this process commits is in the copy
before the committer goes on (when the engine reads without waiting), what another process commits follows as soon as
the engine notices. The copy itself belongs to the caller; this only tells it what to hold.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from trunkline.model.record import Record
from trunkline.storage.database import Database

R = TypeVar("R", bound=Record)

PAGE = 1000
"""Records read at once when a copy is loaded."""

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
        self._kind = kind
        self._replace = replace
        self._change = change
        self._loading = asyncio.Lock()
        self._missed: set[str] | None = None
        """SIDs that changed while a load was under way; None while there is none."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load, and follow from here on."""
        self._database.watch(self._kind, self._changed)
        await self.load()

    async def load(self) -> None:
        """Read everything anew."""
        async with self._loading:
            self._missed = set()
            try:
                records: list[R] = []
                after = ""
                while page := await self._database.find(self._kind, after=after, limit=PAGE):
                    records += page
                    after = page[-1].sid
            finally:
                missed, self._missed = self._missed, None
            self._replace(records)
            for sid in missed:
                await self._refresh(sid)

    def _changed(self, sids: Sequence[str]) -> None:
        if not sids:
            self._start(self.load())
            return
        for sid in sids:
            if self._missed is not None:
                self._missed.add(sid)
            # A read that needs no waiting is done here and now, so that the committer finds it in the copy.
            read = self._refresh(sid)
            try:
                read.send(None)
            except StopIteration:
                continue
            read.close()
            self._start(self._refresh(sid))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the copy of %s could not be refreshed: %s", self._kind.TABLE, task.exception())

    async def _refresh(self, sid: str) -> None:
        self._change(sid, await self._database.get(self._kind, sid))
