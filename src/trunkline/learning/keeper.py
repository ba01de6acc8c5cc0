"""The keeper of a learning run: takes the node's feed, has every piece of work followed by the candidate and by a
control (production's own code and settings, under the same conditions), compares, and keeps the tally.

It runs shut in (`isolation.enter`) and is pid 1 in there: with it ends all that the run has started. `python -m
trunkline.learning.keeper DATA FOLDER`.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any, Final

import orjson
from msgspec import MsgspecError

from trunkline.learning import isolation, run, shares, views
from trunkline.learning.child import Child
from trunkline.learning.run import SOCKET, Run
from trunkline.learning.sink import knows
from trunkline.learning.tally import ERRORS, Count, Tally
from trunkline.learning.wire import Answer, CallStep, Item, Page, Step, Submit, Work, decode_batch
from trunkline.twiml import resolve

MAX_NODES: Final = 8
"""Connections of nodes; while one is upgraded there are two."""
PACKET: Final = 1 << 18
MAX_OPEN: Final = 2000
"""Messages whose submits wait for their step, and calls whose documents wait for their end."""
MAX_PAGES: Final = 100
"""Documents of one call that are remembered."""
MAX_ENDED: Final = 5000
"""Calls that are remembered to have ended."""
SAVE_S: Final = 0.5


class Keeper:
    """See the module."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.run: Run = run.read(folder)
        self.tally = Tally()
        self._folder = folder
        candidate, control = self.run.sides
        self._children = {
            run.CANDIDATE: Child(candidate, work / run.CANDIDATE, self.run.limits, self.tally.candidate),
            run.CONTROL: Child(control, work / run.CONTROL, self.run.limits, self.tally.control),
        }
        self._waiting: deque[Work] = deque()
        self._more = asyncio.Event()
        self._submits: OrderedDict[str, list[Submit]] = OrderedDict()
        self._pages: OrderedDict[str, list[Page]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._shed: dict[int, int] = {}
        """Of each node."""
        self._before = 0
        """Of nodes that have gone."""
        self._nodes: set[asyncio.Task[None]] = set()

    async def go(self, until: asyncio.Event) -> None:
        """Learn until told to stop."""
        listener = self._listen()
        for name, child in self._children.items():
            if not await child.start():
                raise RuntimeError(f"the {name} does not start")
        tasks = [asyncio.ensure_future(one) for one in (self._take(listener), self._follow(), self._save())]
        self.tally.state = "learning"
        self.save()
        stop = asyncio.ensure_future(until.wait())
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in tasks if task.done() and task.exception() is not None]
        self.tally.state = "stopped" if not failed else f"failed: {failed[0].exception()}"
        for child in self._children.values():
            child.kill()
        self.save()

    def save(self) -> None:
        """Write the tally."""
        self.tally.updated_ms = int(time() * 1000)
        self.tally.nodes = len(self._nodes)
        self.tally.shed_by_node = self._before + sum(self._shed.values())
        run.write(self._folder, run.TALLY_FILE, self.tally)

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            self.save()

    # -- the feed --------------------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.setblocking(False)
        place = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        (self._folder / SOCKET).unlink(missing_ok=True)
        listener.bind(f"/proc/self/fd/{place}/{SOCKET}")
        os.close(place)
        listener.listen(MAX_NODES)
        return listener

    async def _take(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            line, _ = await loop.sock_accept(listener)
            if len(self._nodes) >= MAX_NODES:
                line.close()
                continue
            line.setblocking(False)
            task = loop.create_task(self._node(line))
            self._nodes.add(task)
            task.add_done_callback(self._nodes.discard)

    async def _node(self, line: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with line, contextlib.suppress(ConnectionError):
            while packet := await loop.sock_recv(line, PACKET):
                batch = decode_batch(packet)
                self._shed[line.fileno()] = batch.shed
                for item in batch.items:
                    self._sort(item)
            self._before += self._shed.pop(line.fileno(), 0)

    def _sort(self, item: Item) -> None:
        """Keep what is told before its time, and have the rest followed."""
        if isinstance(item, Submit):
            self._submits.setdefault(item.sid, []).append(item)
            if len(self._submits) > MAX_OPEN:
                self._submits.popitem(last=False)
            return
        if isinstance(item, CallStep) and not self._has_ended(item.sid):
            return
        work = Work(
            item,
            self._submits.pop(item.sid, []) if isinstance(item, Step) else [],
            self._pages.pop(item.sid, []) if isinstance(item, CallStep) else [],
        )
        if isinstance(item, Page):
            self._pages.setdefault(item.sid, []).append(item)
            if len(self._pages) > MAX_OPEN or len(self._pages[item.sid]) > MAX_PAGES:
                self._pages.popitem(last=False)
        if len(self._waiting) >= self.run.limits.queue:
            self.tally.shed_here += 1
            return
        self._waiting.append(work)
        self._more.set()

    def _has_ended(self, sid: str) -> bool:
        """Whether a call has ended just now: an ended one may be stored again."""
        if sid in self._ended:
            return False
        self._ended[sid] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        return True

    # -- the work --------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            work = self._waiting.popleft()
            refusals = _refusals(work)
            if refusals is None:
                continue
            answers = dict(
                zip(
                    self._children,
                    await asyncio.gather(*(child.do(work, refusals) for child in self._children.values())),
                    strict=True,
                )
            )
            self._compare(work, answers)

    def _compare(self, work: Work, answers: Mapping[str, Answer | None]) -> None:
        tally, most, sid = self.tally, self.run.limits.samples, work.item.sid
        mine, control = answers[run.CANDIDATE], answers[run.CONTROL]
        for answer, cost in ((mine, tally.candidate), (control, tally.control)):
            if answer is not None and answer.error:
                cost.errors += 1
            elif answer is not None and not answer.followed:
                cost.missed += 1
            elif answer is not None:
                cost.add(answer.ms, answer.cpu_ms)
        theirs = _production(work)
        if mine is None or mine.error:
            told = "the process has ended, or took too long" if mine is None else mine.error
            tally.note(ERRORS, sid, theirs, told, int(time() * 1000), most)
            return
        if not mine.followed:
            return
        tally.work += 1
        for aspect, value in theirs.items():
            if aspect not in mine.views:
                continue
            own, count = mine.views[aspect], tally.counts.setdefault(aspect, Count())
            if own == value:
                count.agree += 1
            elif control is not None and control.views.get(aspect) == own:
                count.unclear += 1
            else:
                count.disagree += 1
                tally.note(aspect, sid, value, own, int(time() * 1000), most)


def _production(work: Work) -> dict[str, Any]:
    """What production did, aspect by aspect."""
    item = work.item
    if isinstance(item, Step):
        found = views.message(orjson.loads(item.record), item.status, item.owed)
        if work.submits:
            found[views.PDU] = pdus_of((one.connector, one.pdus) for one in work.submits)
        return found
    if isinstance(item, Page):
        return {views.TWIML: item.steps}
    if isinstance(item, CallStep):
        found = {views.CALLBACKS: views.callbacks(item.owed, views.GEOGRAPHY)}
        asked, base = list[list[str]](), ""
        for page in work.pages:
            if page.method:
                asked.append([page.method, resolve(base or None, page.asked) or page.asked])
            base = page.url
        return found | {views.STEPS: views.ran(orjson.loads(item.record)), views.REQUESTS: asked}
    return {}


def pdus_of(written: Any) -> dict[str, list[str]]:
    """The PDUs written to each connector, in an order of their own."""
    found: dict[str, list[str]] = {}
    for connector, pdus in written:
        found.setdefault(connector, []).extend(views.pdus(pdus))
    return {name: sorted(pdus) for name, pdus in found.items()}


def _refusals(work: Work) -> dict[str, list[str]] | None:
    """What carriers refused a message with before one took it, by connector; None: that cannot be done again."""
    item = work.item
    found: dict[str, list[str]] = {}
    if isinstance(item, Step):
        for attempt in orjson.loads(item.record).get("tried", ()):
            if attempt.get("outcome") == "submitted":
                continue
            if attempt.get("outcome") not in ("rejected", "unavailable") or not knows(attempt.get("error", "")):
                return None
            found.setdefault(attempt["connector"], []).append(attempt["error"])
        if item.status == "failed" and not found:
            return None  # it was never submitted
    return found


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    data, folder = Path(arguments[0]), Path(arguments[1])
    try:
        isolation.enter(data, folder, run.read(folder).hidden)
    except (isolation.CannotIsolate, OSError, MsgspecError) as error:
        with contextlib.suppress(OSError):
            run.write(folder, run.TALLY_FILE, Tally(state=f"failed: {error}"))
        return 1
    isolation.yield_to_others(idle=False)
    shares.nice_session()
    work = data / "work"
    work.mkdir()

    async def learn() -> None:
        until = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, until.set)
        keeper = Keeper(folder, work)
        try:
            await keeper.go(until)
        except Exception as error:
            keeper.tally.state = f"failed: {error}"
            keeper.save()

    asyncio.run(learn())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
