"""Landing: what has ended leaves the in-flight store and becomes a document.

Upsert into the archive first, removal from flight second: a crash in between lands the same document again. A flight
that moved on while it was being landed stays in flight and lands again with a higher rev.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence

import orjson

from trunkline.inflight.store import Inflight
from trunkline.storage.archive import Archive, Document
from trunkline.storage.queue import Flight, Owed
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.telemetry.stages import ARCHIVE, Stage

BATCH = 500
"""Flights that land together."""
LINGER_S = 0.25
"""How long a flight that may land waits for others to land with it."""
DUTY = 10
"""A pass that took t seconds is followed by DUTY * t seconds of rest, so that a backlog that cannot land (its webhooks'
host is down) costs little."""
MAX_REST_S = 5.0
"""Longest such rest: on a busy machine a pass takes seconds although it costs little."""
IDLE_S = 5.0
"""How often it is looked for flights whose time has come (receipt windows)."""
RETRY_S = 1.0
"""Wait after a failure of the archive."""
APPEND_TRIES = 8
APPEND_WAIT_S = 0.5
"""A callback outside a flight's steps may end just before the flight lands: how often, and how long, is waited."""
SWEEP_EVERY = 12
"""Idle rounds between sweeps of the queue."""

log = logging.getLogger(__name__)


def document(flight: Flight, callbacks: Sequence[Owed]) -> Document:
    """The post-flight document: the record as it is, its status, and every webhook attempt."""
    parts = [flight.record[:-1], b',"kind":"%s","status":"%s"' % (flight.kind.encode(), flight.status.encode())]
    # What webhooks showed of a redacted message must not come back with the document.
    if callbacks and _REDACTED not in flight.record:
        hooks = b",".join(
            b'{"kind":"%s","state":"%s","tries":%d,%s"attempts":%s}'
            % (owed.kind.encode(), owed.state.encode(), owed.tries, _request(flight, owed), owed.attempts)
            for owed in callbacks
        )
        parts.append(b',"webhooks":[' + hooks + b"]")
    parts.append(b"}")
    return Document(sid=flight.sid, account=flight.account, kind=flight.kind, rev=flight.rev, body=b"".join(parts))


def _request(flight: Flight, owed: Owed) -> bytes:
    """What a call's callback said, for its Events; a message's says no more than its record."""
    return b'"request":%s,' % _shown(owed) if flight.kind == "call" and owed.request[:1] == b"{" else b""


def _shown(owed: Owed) -> bytes:
    """A callback's request, without a login in its URL: it was needed to make it, and nobody needs it any more."""
    return _LOGIN.sub(rb"\1", owed.request, count=1)


_LOGIN = re.compile(rb'("url":"[a-z]+://)[^/?#"@]*@')


_REDACTED = b'"redacted":true'


class Landing:
    """The background loop that lands what may land."""

    def __init__(self, inflight: Inflight, archive: Archive, carrier_id_ms: int) -> None:
        self._inflight = inflight
        self._archive = archive
        self._carrier_id_ms = carrier_id_ms
        self.forget: list[Callable[[int, int], None]] = [inflight.forget]
        """Told of (id, rev) of each flight that has landed: whoever keeps working copies."""
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._appending: set[asyncio.Task[None]] = set()
        self.landed = 0
        self.stages: dict[str, Stage] = {"message": inflight.line.stages[ARCHIVE]}
        """How long flights wait to land, by their kind; of received messages as `inbound`."""
        self.told: Callable[[Sequence[tuple[Flight, Sequence[Owed]]]], None] | None = None
        """Told of flights that have landed, with their callbacks (telemetry.events)."""

    def start(self) -> None:
        """Run until `stop`."""
        self._inflight.landed = self._wanted.set
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """Something may land."""
        self._wanted.set()

    def settled(self, owed: Owed) -> None:
        """A callback has ended: its flight may land now, or has landed before."""
        self._wanted.set()
        if not owed.flight:
            task = asyncio.get_running_loop().create_task(self._append(owed))
            self._appending.add(task)
            task.add_done_callback(self._appended)

    async def _append(self, owed: Owed) -> None:
        """Add a late callback's attempts to the document of its flight, then drop it from the queue."""
        for _ in range(APPEND_TRIES):
            flies = await self._inflight.queue.get(owed.account, owed.sid) is not None
            document = await self._archive.get(owed.account, owed.sid)
            if document is not None or not flies:
                break
            await asyncio.sleep(APPEND_WAIT_S)
        if document is not None:
            body = orjson.loads(document.body)
            if not body.get("redacted"):
                hook = {"kind": owed.kind, "state": owed.state, "tries": owed.tries}
                if document.kind == "call" and owed.request[:1] == b"{":
                    hook["request"] = orjson.loads(_shown(owed))
                body.setdefault("webhooks", []).append({**hook, "attempts": orjson.loads(owed.attempts)})
                document.rev, document.body = document.rev + 1, orjson.dumps(body)
                await self._archive.revise(document)
        await self._inflight.queue.forget(owed.id)

    def _appended(self, task: "asyncio.Task[None]") -> None:
        self._appending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a late callback was not archived: %s", task.exception())

    async def stop(self) -> None:
        """Land what may land now, then end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._appending, return_exceptions=True)
        await self.land_all()

    async def _run(self) -> None:
        idle = 0
        while True:
            try:
                await asyncio.wait_for(self._wanted.wait(), IDLE_S)
                await asyncio.sleep(LINGER_S)
            except TimeoutError:
                idle += 1
            self._wanted.clear()
            began = time.monotonic()
            try:
                await self.land_all()
                if idle % SWEEP_EVERY == 0:
                    now = self._inflight.clock.now_ms()
                    await self._inflight.queue.sweep(now, now - self._carrier_id_ms)
                await asyncio.sleep(min(MAX_REST_S, max(0.0, DUTY * (time.monotonic() - began) - LINGER_S)))
            except StoreUnavailable as away:
                log.error("landing waits: %s", away)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("landing failed; it is tried again")
                await asyncio.sleep(RETRY_S)

    async def land_all(self) -> int:
        """Land everything that may land now; how many."""
        total = 0
        while True:
            batch = await self._inflight.queue.landable(self._inflight.clock.now_ms(), BATCH)
            if batch:
                await self._land(batch)
                total += len(batch)
            if len(batch) < BATCH:
                return total

    async def _land(self, batch: Sequence[tuple[Flight, list[Owed]]]) -> None:
        await self._archive.land([document(flight, callbacks) for flight, callbacks in batch])
        await self._inflight.queue.remove([(flight.id, flight.rev) for flight, _ in batch])
        for flight, _ in batch:
            for forget in self.forget:
                forget(flight.id, flight.rev)
        self.landed += len(batch)
        now = self._inflight.clock.now_ms()
        for flight, _ in batch:
            stage = self.stages.get("inbound" if flight.status == "received" else flight.kind)
            if stage is not None:
                stage.left((now - flight.land_ms) / 1000)
        if self.told is not None:
            self.told(batch)
