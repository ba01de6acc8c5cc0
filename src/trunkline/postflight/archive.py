"""The composed archive: recent documents in a store of rows, everything older in segment files.

Reads ask the recent store first and the segments second, never the other way round: a roll-up records its segment
before it removes the rows, so a document may be seen twice (and is then dropped by its SID) but never missed.

Roll-up and compaction are steps of the serving process that hand the heavy work to a worker; what each step leaves
behind is durable, and the next one goes on from there, also after a crash.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from trunkline.model.clock import Clock
from trunkline.postflight.names import SPILL, SUFFIX, UNFINISHED
from trunkline.postflight.wire import Setup
from trunkline.postflight.worker_client import WorkerClient
from trunkline.storage.archive import Document
from trunkline.storage.manifest import Recent, Segment
from trunkline.storage.objects import Location
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

READ_CONCURRENCY = 16
READ_TIMEOUT_S = 20.0
SHARED_READ_TIMEOUT_S = 60.0
"""The same where a read may have to fetch segments first."""
ANALYSIS_CONCURRENCY = 2
ROLL_TIMEOUT_S = 3600.0
DRAIN_BATCH = 500
"""Rolled-up rows removed per write, so that landings get their turn."""
DRAIN_GROUPS = 8
"""Row groups whose identities are asked for at once (memory)."""
SCRUB_TRIES = 5
SCRUB_WAIT_S = 1.0
"""Between tries to truncate a log that a reader holds."""
FLOOR_KEPT_MS = 7 * 86_400_000
"""How long the floor of a deleted document is kept after its bytes are gone, against late landings."""
SPAN_MS = 60_000
"""First width of the span in which the page before a key is looked for."""
SPAN_FACTOR = 4
"""A span that holds this many pages is narrowed, one that holds less than a page is widened."""
MAX_SPANS = 64
"""Spans tried at the most; each step halves or multiplies the width."""
FIRST_KEY = f"{1_577_836_800_000:012x}"
"""The key of 2020-01-01: older ones are imported and of unknown age, retention leaves them alone."""
DROP_GRACE_MS = 15 * 60_000
"""How long an object stays after the manifest has lost it, for readers of an older manifest; longer than any reads."""
ORPHAN_S = 2 * 3600.0
"""Age from which on an object that no manifest names was left by a crash."""
ORPHANS_EVERY_S = 3600.0
MERGE_FAN_IN = 8
"""Small neighbouring segments that are worth merging."""


log = logging.getLogger(__name__)


class ArchiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When rows are rolled up, and into how big segments."""

    recent_rows: int = 100_000
    """Closed rows from which on they are rolled up whatever their age."""
    recent_age_ms: int = 3_600_000
    """Age of the oldest row from which on they are rolled up, if they are enough."""
    least_rows: int = 5_000
    """Fewer rows are not worth a segment."""
    settle_ms: int = 120_000
    """Younger rows stay: most of their contemporaries have not landed yet."""
    segment_rows: int = 250_000
    """Rows of one segment at most (a merge may make twice that)."""
    analysis_timeout_s: float = 300.0
    """Longest run of a query, a sum or an export."""
    query_rows: int = 100_000
    """Rows that a query may return."""
    memory_bytes: int = 1 << 30
    """Memory of an analysis; more spills to disk."""
    cache_bytes: int = 10 << 30
    """Segments of an object store that are kept in the folder."""
    kept_ms: int = 0
    """How long an object stays after the manifest has lost it; 0: DROP_GRACE_MS. Longer where another region follows,
    whose manifest may be that far behind when it is promoted."""


def key_at(ms: int) -> str:
    """The lowest key of that Unix millisecond."""
    return f"{max(ms, 0):012x}"


class SegmentedArchive:
    """`trunkline.storage.archive.Archive`, embedded."""

    def __init__(
        self,
        recent: Recent,
        folder: Path,
        clock: Clock,
        limits: ArchiveLimits | None = None,
        *,
        objects: Location | None = None,
        survives: Survives | None = None,
    ) -> None:
        """`folder` holds the segments and is made if need be; the recent store is closed with the archive. With
        `objects` the segments lie there, for any number of nodes, and the folder is this node's cache of them;
        `survives` is what that store is said to outlive."""
        folder.mkdir(parents=True, exist_ok=True)
        self.survives = min(recent.survives, survives) if survives is not None else recent.survives
        self._shared = objects is not None
        self._orphans_at = 0.0
        self.unavailable = ""
        """Why older documents cannot be read, or recent ones not be rolled up, just now; empty: they can."""
        self._recent = recent
        self._folder = folder
        self._clock = clock
        self.limits = limits or ArchiveLimits()
        self._exclusive = asyncio.Lock()
        reader, location = recent.reader_spec

        def client(role: str, concurrency: int, timeout_s: float) -> WorkerClient:
            setup = Setup(
                role=role, folder=str(folder), reader=reader, location=location,
                memory_bytes=self.limits.memory_bytes, query_rows=self.limits.query_rows,
                objects=objects, cache_bytes=self.limits.cache_bytes,
            )  # fmt: skip
            return WorkerClient(setup, concurrency=concurrency, timeout_s=timeout_s)

        self.read_worker = client("read", READ_CONCURRENCY, SHARED_READ_TIMEOUT_S if objects else READ_TIMEOUT_S)
        self.analysis_worker = client("analysis", ANALYSIS_CONCURRENCY, self.limits.analysis_timeout_s)
        self.roll_worker = client("roll", 1, ROLL_TIMEOUT_S)

    async def _ask(self, worker: WorkerClient, op: str, **arguments: Any) -> Any:
        """Call an operation, and remember whether what it needs was there. Raises WorkerFailed, StoreUnavailable."""
        try:
            answer = await worker.call(op, **arguments)
        except StoreUnavailable as error:
            if not self.unavailable:
                log.error("the archive's older documents cannot be reached (%s): %s", op, error)
            self.unavailable = str(error)
            raise
        if self.unavailable:
            log.warning("the archive's older documents can be reached again")
            self.unavailable = ""
        return answer

    @property
    def problem(self) -> str:
        """What does not work just now, for /readyz: documents wait to land, or older ones cannot be read; empty: all
        does."""
        failed = self._recent.writer.failed
        return f"recent documents: {failed}" if failed is not None else self.unavailable

    async def land(self, documents: Sequence[Document]) -> None:
        await self._recent.land(documents)

    async def get(self, account: str, sid: str) -> Document | None:
        document = await self._recent.get(account, sid)
        if document is not None or sid[2:] > await self._recent.high():
            return document
        found = await self._ask(self.read_worker, "get", account=account, sid=sid)
        return msgspec.convert(found, Document) if found is not None else None

    async def page(
        self, account: str, kind: str, *, before: str = "", after: str = "", limit: int, filters: Mapping[str, Any]
    ) -> list[Document]:
        if limit < 1:
            return []
        if after and not before:
            return await self._just_above(account, kind, after, limit, filters)
        return await self._below(account, kind, before, after, limit, filters)

    async def _just_above(
        self, account: str, kind: str, after: str, limit: int, filters: Mapping[str, Any]
    ) -> list[Document]:
        """The documents next above a key (the page before), newest first. Everything else here reads downwards, so
        look into a span of time above the key, wide enough to hold a page and narrow enough to be read whole."""
        start_ms = int(after[:12], 16) if after[:12].isalnum() else 0
        end_ms = self._clock.now_ms() + SPAN_MS
        most = SPAN_FACTOR * limit
        low, high, span = 0, 0, SPAN_MS
        for _ in range(MAX_SPANS):
            top = start_ms + span
            found = await self._below(account, kind, key_at(top), after, most, filters)
            if len(found) >= most and span - low > 1:
                high, span = span, (low + span) // 2
            elif len(found) >= most:
                most *= 2  # that many in one millisecond
            elif len(found) >= limit or top > end_ms:
                return found[-limit:]
            elif high:
                low, span = span, max(span + 1, (span + high) // 2)
            else:
                low, span = span, span * 16
        return found[-limit:]

    async def _below(
        self, account: str, kind: str, before: str, after: str, limit: int, filters: Mapping[str, Any]
    ) -> list[Document]:
        """The newest documents between two keys."""
        recent = await self._recent.page(account, kind, before=before, after=after, limit=limit, filters=filters)
        watermark = await self._recent.high()
        full = len(recent) >= limit
        lowest = recent[-1].sid[2:] if full else after
        if watermark <= lowest:
            return recent
        if full:  # segments matter down to the lowest key alone; what is cut short sorts just before it
            after = max(after, lowest[:-1])
        found = await self._ask(
            self.read_worker,
            "page",
            account=account,
            kind=kind,
            before=before or "g",
            after=after,
            limit=limit,
            filters=dict(filters),
        )
        newest: dict[str, Document] = {}
        for document in (*recent, *msgspec.convert(found, list[Document])):
            known = newest.get(document.sid)
            if known is None or document.rev > known.rev:
                newest[document.sid] = document
        return sorted(newest.values(), key=lambda document: document.sid[2:], reverse=True)[:limit]

    async def revise(self, document: Document) -> None:
        await self._recent.revise(document, self._clock.now_ms())

    async def delete(self, account: str, sid: str) -> bool:
        """Also hides a document that has not landed yet, so only call it for SIDs that exist somewhere."""
        known = await self.get(account, sid)
        await self._recent.delete(account, sid, self._clock.now_ms())
        return known is not None

    async def usage(
        self, accounts: Sequence[str], start_ms: int, end_ms: int, granularity: str
    ) -> list[dict[str, Any]]:
        """Rows of account, period (UTC), direction, country, price_unit, channel (`sms`, `mms`, `call`), sender
        (`longcode`, `shortcode`: the account's own side; of calls `local`, `tollfree`, `sip` or `client`), count,
        segments (of calls: begun minutes), media, price (decimal string); by the time of sending, else of creation;
        failed and canceled messages and calls that nobody answered left out.

        No accounts: all. Raises WorkerFailed.
        """
        rows: list[dict[str, Any]] = await self._ask(
            self.analysis_worker,
            "usage",
            accounts=list(accounts),
            start_ms=start_ms,
            end_ms=end_ms,
            granularity=granularity,
        )
        return rows

    async def query(self, sql: str) -> tuple[list[str], list[list[Any]]]:
        """(columns, rows) of one SELECT over `messages`, `calls` and `documents`. Raises Refused for SQL that cannot be
        run."""
        answer = await self._ask(self.analysis_worker, "query", sql=sql)
        return answer["columns"], answer["rows"]

    async def export(
        self,
        target: Path,
        format: str,  # noqa: A002 (the word of the command line)
        *,
        accounts: Sequence[str] = (),
        start_ms: int = 0,
        end_ms: int = 1 << 62,
    ) -> int:
        """See `trunkline.postflight.export.export`; returns the number of documents."""
        answer = await self._ask(
            self.analysis_worker,
            "export",
            target=str(target),
            format=format,
            accounts=list(accounts),
            start_ms=start_ms,
            end_ms=end_ms,
        )
        return int(answer["rows"])

    async def roll(self, *, force: bool = False) -> int:
        """Roll up what is due (`force`: all that is closed); returns the rows rolled up. Raises ArchiveBusy."""
        total = 0
        async with self._alone():
            await self._finish_draining()
            now = self._clock.now_ms()
            below = key_at(now - self.limits.settle_ms)  # fixed, so that the loop ends however much lands meanwhile
            late, rows, oldest = await self._recent.counts(below)
            while rows and (force or self._is_due(rows, oldest, now)):
                total += await self._roll_main(below)
                late, rows, oldest = await self._recent.counts(below)
            if late >= self.limits.least_rows or (force and late):
                upto = max((segment.max_key for segment in await self._recent.segments()), default="")
                total += await self._roll_range("", upto, late=True)
            if total or force:
                await self._drop_needless_floors()
        return total

    async def _drop_needless_floors(self) -> None:
        needless = await self._ask(self.roll_worker, "needless_floors")
        for start in range(0, len(needless), DRAIN_BATCH):
            await self._recent.drop_floors(needless[start : start + DRAIN_BATCH])

    def _is_due(self, rows: int, oldest: str, now_ms: int) -> bool:
        if rows >= self.limits.recent_rows:
            return True
        return rows >= self.limits.least_rows and oldest <= key_at(now_ms - self.limits.recent_age_ms)

    async def _roll_main(self, below: str) -> int:
        upto = await self._ask(self.roll_worker, "cut", rows=self.limits.segment_rows, below=below)
        above = max((segment.max_key for segment in await self._recent.segments()), default="")
        return await self._roll_range(above, upto, late=False)

    async def _roll_range(self, above: str, upto: str, *, late: bool) -> int:
        """The watermark goes up before the worker's snapshot: what is revised after it raises its floor."""
        await self._recent.raise_watermark(upto)
        found = await self._ask(
            self.roll_worker, "roll", above=above, upto=upto, late=late, now_ms=self._clock.now_ms()
        )
        if found is None:
            return 0
        segment = msgspec.convert({**found, "draining": True}, Segment)
        await self._recent.add_segments([segment])
        await self._drain(segment)
        return segment.rows

    async def _drain(self, segment: Segment) -> None:
        """Remove a recorded segment's rows from the recent store."""
        first = 0
        while identities := await self._ask(
            self.roll_worker, "identities", path=segment.path, first=first, count=DRAIN_GROUPS
        ):
            for start in range(0, len(identities), DRAIN_BATCH):
                await self._recent.drain(identities[start : start + DRAIN_BATCH])
            first += DRAIN_GROUPS
        await self._recent.drained(segment.path)

    async def _finish_draining(self) -> None:
        """What a crash or a dead worker left undone; then remove files that no manifest names."""
        for segment in await self._recent.segments():
            if segment.draining:
                await self._drain(segment)
        await self._sweep()

    async def _sweep(self) -> None:
        """Remove files that no manifest names. No worker is started (and kept) just to find that there are none."""
        await self._sweep_folder()
        gone = await self._recent.dropped(self.limits.kept_ms or DROP_GRACE_MS)
        if gone:
            await self._ask(self.roll_worker, "remove", paths=gone)
            await self._recent.forget_dropped(gone)
        if self._shared and time.monotonic() >= self._orphans_at:
            self._orphans_at = time.monotonic() + ORPHANS_EVERY_S
            await self._ask(self.roll_worker, "orphans", older_s=ORPHAN_S)

    async def _sweep_folder(self) -> None:
        named = {segment.path for segment in await self._recent.segments()}
        if await asyncio.to_thread(_has_leftovers, self._folder, named):
            await self._ask(self.roll_worker, "sweep")

    async def tidy(self) -> None:
        """Remove from this node's cache what another node has compacted away; to be done on every node."""
        if self._shared and not self._exclusive.locked():
            async with self._exclusive:
                await self._sweep_folder()

    async def compact(self, expired: Mapping[str, str] | None = None) -> dict[str, int]:
        """Remove the bytes of everything deleted, superseded or expired from every file.

        `expired` maps accounts to the key below which their documents are to go. Returns counts: `segments`
        rewritten, `rows` removed from them, `recent` rows expired, `floors` settled, and `clean` (0 when a reader
        kept the log from being truncated: compact again). Raises ArchiveBusy, WorkerFailed.
        """
        expired = dict(expired or {})
        counts = {"segments": 0, "rows": 0, "recent": 0, "floors": 0, "clean": 0}
        async with self._alone():
            await self._finish_draining()
            floors = await self._recent.all_floors()
            for segment in await self._recent.segments():
                removed = await self._rewrite(segment, expired)
                if removed:
                    counts["segments"] += 1
                    counts["rows"] += removed
            for account, below in expired.items():
                counts["recent"] += await self._recent.expire(account, FIRST_KEY, below)
            await self._sweep()
            for _ in range(SCRUB_TRIES):
                now = self._clock.now_ms()
                if await self._recent.scrub(floors, now):
                    counts["floors"], counts["clean"] = len(floors), 1
                    await self._recent.forget_floors(now - FLOOR_KEPT_MS)
                    break
                await asyncio.sleep(SCRUB_WAIT_S)
        return counts

    async def _rewrite(self, segment: Segment, expired: Mapping[str, str]) -> int:
        now = self._clock.now_ms()
        old = msgspec.to_builtins(segment, builtin_types=(bytes,))
        answer = await self._ask(self.roll_worker, "rewrite", old=old, expired=expired, now_ms=now)
        if not answer["changed"]:
            return 0
        new = [msgspec.convert(answer["segment"], Segment)] if answer["segment"] is not None else []
        await self._replace([segment], new)
        return segment.rows - sum(each.rows for each in new)

    async def _replace(self, old: Sequence[Segment], new: Sequence[Segment]) -> None:
        paths = [segment.path for segment in old]
        await self._recent.replace_segments(paths, new)
        if not self._shared:  # elsewhere others may still be reading them
            await asyncio.to_thread(_unlink, self._folder, paths)

    async def merge(self) -> int:
        """Merge one run of small neighbouring segments, if there is one; returns how many. Raises ArchiveBusy."""
        async with self._alone():
            segments = await self._recent.segments()
            run = small_run(segments, self.limits.segment_rows)
            if run:
                old = [msgspec.to_builtins(segment, builtin_types=(bytes,)) for segment in run]
                found = await self._ask(self.roll_worker, "merge", old=old, now_ms=self._clock.now_ms())
                await self._replace(run, [msgspec.convert(found, Segment)] if found is not None else [])
        return len(run)

    async def pending_floors(self) -> tuple[int, int]:
        """(hidden documents whose bytes are still there, Unix ms since when the oldest is hidden or 0)."""
        return await self._recent.pending_floors()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One roll-up or compaction at a time, over all processes and nodes. Raises ArchiveBusy."""
        async with self._exclusive, self._recent.alone(self._folder):
            yield

    async def close(self) -> None:
        for worker in (self.read_worker, self.analysis_worker, self.roll_worker):
            await worker.close()
        await self._recent.close()


def small_run(segments: Sequence[Segment], segment_rows: int) -> list[Segment]:
    """The first run of at least MERGE_FAN_IN neighbours (of one class, in key order) that are small, drained and
    together no bigger than two segments; empty: there is none."""
    for late in (False, True):
        run: list[Segment] = []
        for segment in (s for s in segments if s.late is late):
            small = segment.rows * 4 <= segment_rows and not segment.draining
            if small and sum(s.rows for s in run) + segment.rows <= 2 * segment_rows:
                run.append(segment)
                continue
            if len(run) >= MERGE_FAN_IN:
                return run
            run = [segment] if small else []
        if len(run) >= MERGE_FAN_IN:
            return run
    return []


def _has_leftovers(folder: Path, named: Collection[str]) -> bool:
    return any(
        name.startswith(SPILL) or name.endswith(UNFINISHED) or (name.endswith(SUFFIX) and name not in named)
        for name in os.listdir(folder)
    )


def _unlink(folder: Path, paths: Sequence[str]) -> None:
    for path in paths:
        (folder / path).unlink(missing_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
