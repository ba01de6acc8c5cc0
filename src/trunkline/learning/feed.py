"""The production side of learning: a bounded feed of what was committed, which sheds first.

Off, the taps are None and cost a comparison. A run is a folder below `learning/` of the data folder with a socket in
it; it is looked for once a second. On, a tap decides whether the work is sampled, keeps references in a bounded buffer,
and returns; every FLUSH_S the buffer is encoded and handed over by one non-blocking send. What does not fit, because
the learner is slow, stopped or dead, is dropped and counted: the node waits for nothing.
"""

import asyncio
import logging
import os
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from trunkline.learning.run import FOLDER, RUN_FILE, SOCKET
from trunkline.learning.sampling import Sampling
from trunkline.learning.views import steps_of
from trunkline.learning.wire import MAX_ITEM, MAX_PACKET, Batch, CallStep, Item, Page, Step, Submit, encode_batch
from trunkline.settings.learning import Learning
from trunkline.smpp import codec

FLUSH_S: Final = 0.05
LOOK_S: Final = 1.0
MAX_RUNS: Final = 8
"""Runs that are fed at once; more are not seen."""
MAX_CHOSEN: Final = 10_000
"""Work of one run that is remembered, so that what follows it is handed over as well."""
FIRST: Final = frozenset({"sent", "failed", "delivered"})
"""Statuses of a message whose step may be the first that is seen of it."""
LATER: Final = frozenset({"delivered", "undelivered", "read"})

log = logging.getLogger(__name__)


class RunFile(msgspec.Struct):
    """What the feed reads of `run.json`."""

    sampling: Sampling


class _Line:
    """One run, as the node sees it."""

    def __init__(self, name: str, line: socket.socket, sampling: Sampling, settings: Learning) -> None:
        self.name = name
        self.line = line
        self.sampling = sampling
        self.shed = 0
        self.waiting: deque[Callable[[], Item]] = deque()
        self.chosen: OrderedDict[str, None] = OrderedDict()
        self._room = settings.buffer
        self._per_s = settings.per_second
        self._tokens = float(settings.per_second)
        self._filled = monotonic()

    def choose(self, sid: str) -> bool:
        """Whether new work is followed; what comes too fast is shed."""
        now = monotonic()
        self._tokens = min(self._per_s, self._tokens + (now - self._filled) * self._per_s)
        self._filled = now
        if self._tokens < 1.0:
            self.shed += 1
            return False
        self._tokens -= 1.0
        self.chosen[sid] = None
        if len(self.chosen) > MAX_CHOSEN:
            self.chosen.popitem(last=False)
        return True

    def put(self, make: Callable[[], Item]) -> None:
        """Keep something for the next flush, or shed it."""
        if len(self.waiting) >= self._room:
            self.shed += 1
        else:
            self.waiting.append(make)

    def flush(self) -> bool:
        """Hand over what waits; False when nobody is there any more."""
        while self.waiting:
            items, size = list[Item](), 0
            while self.waiting and size < MAX_PACKET - MAX_ITEM:
                item = self.waiting.popleft()()
                if (length := _size(item)) <= MAX_ITEM:
                    items.append(item)
                    size += length
                else:
                    self.shed += 1
            try:
                self.line.send(encode_batch(Batch(self.shed, items)))
            except BlockingIOError:
                self.shed += len(items) + len(self.waiting)
                self.waiting.clear()
            except OSError:
                return False
        return True


class Feed:
    """See the module. `switch(on)` sets the taps, or takes them out; `bound(number)` is the connector that a number is
    bound to; `avoid()` are the connectors that are down."""

    def __init__(
        self,
        data: Path,
        settings: Learning,
        *,
        switch: Callable[[bool], None],
        bound: Callable[[str], str],
        avoid: Callable[[], frozenset[str]],
    ) -> None:
        self._folder = data / FOLDER
        self._settings = settings
        self._switch = switch
        self._bound = bound
        self._avoid = avoid
        self._lines: dict[str, _Line] = {}
        self._flushing = False
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def runs(self) -> list[str]:
        """The runs that are fed."""
        return list(self._lines)

    @property
    def shed(self) -> int:
        """What the runs that are fed now have not got."""
        return sum(line.shed for line in self._lines.values())

    def start(self) -> None:
        """Look for runs until `stop`."""
        self._task = self._loop.create_task(self._watch())

    async def stop(self) -> None:
        """Feed nobody any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name in list(self._lines):
            self._leave(name)

    # -- taps ------------------------------------------------------------------------------------------------

    def submitted(self, message: Any, now_ms: int, pdus: Sequence[Any]) -> None:
        """A connector has encoded a message. Never raises."""
        sid = message.sid
        lines = [line for line in self._lines.values() if sid in line.chosen or _begins(line, message)]
        if lines:
            self._put(lines, partial(_submit, sid, message.connector, now_ms, pdus))

    def stepped(self, message: Any, step: Any) -> None:
        """A step of a message was committed. Never raises."""
        status, sid = str(step.status), step.sid
        is_first = status in FIRST and (status != "delivered" or bool(step.carrier_ids))
        if not (is_first or status in LATER) or step.record is None:
            return
        lines = [line for line in self._lines.values() if sid in line.chosen or (is_first and _begins(line, message))]
        if lines:
            owed = [one.request for one in step.owed]
            bound, avoid = self._bound(message.from_), sorted(self._avoid())
            self._put(lines, partial(Step, sid, status, step.record, owed, bound, avoid))

    def fetched(self, call: Any, position: Any, source: Any, found: Any) -> None:
        """A call goes on with a document. Never raises."""
        lines = [line for line in self._lines.values() if call.sid in line.chosen or _begins(line, call)]
        if lines:
            self._put(lines, partial(_page, call.sid, position.documents, position.verbs, source, found))

    def call_ended(self, call: Any, step: Any) -> None:
        """The last step of a call was committed (its record holds no login any more). Never raises."""
        lines = [line for line in self._lines.values() if call.sid in line.chosen or _begins(line, call)]
        if lines:
            owed = [one.request for one in step.owed]
            self._put(lines, partial(CallStep, step.sid, str(step.status), step.record, owed))

    def _put(self, lines: Sequence[_Line], make: Callable[[], Item]) -> None:
        for line in lines:
            line.put(make)
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(FLUSH_S, self._flush)

    # -- runs ------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = False
        for name, line in list(self._lines.items()):
            try:
                there = line.flush()
            except Exception:
                log.exception("learning run %s is fed no more", name)
                there = False
            if not there:
                self._leave(name)

    def _leave(self, name: str) -> None:
        line = self._lines.pop(name)
        line.line.close()
        log.info("learning run %s is fed no more; %d shed", name, line.shed)
        if not self._lines:
            self._switch(False)

    async def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("learning runs could not be looked for")
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Find the runs that wait to be fed."""
        if not self._folder.is_dir() and not self._lines:
            return
        for name in sorted(os.listdir(self._folder)) if self._folder.is_dir() else ():
            if name in self._lines or len(self._lines) >= MAX_RUNS:
                continue
            line = _connect(self._folder / name, self._settings, name)
            if line is not None:
                self._lines[name] = line
                log.info("learning run %s is fed", name)
        if self._lines:
            self._switch(True)  # each time: a connector may be another object by now


def _connect(folder: Path, settings: Learning, name: str) -> _Line | None:
    """A line to a run, if somebody listens there."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.setblocking(False)
    with suppress(OSError, msgspec.MsgspecError):
        run = msgspec.json.decode((folder / RUN_FILE).read_bytes(), type=RunFile)
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            line.connect(f"/proc/self/fd/{place}/{SOCKET}")  # the path itself may be longer than a socket's can be
        finally:
            os.close(place)
        return _Line(name, line, run.sampling, settings)
    line.close()
    return None


def _begins(line: _Line, work: Any) -> bool:
    """Whether a run begins to follow this."""
    return line.sampling.takes(work.sid, work.account_sid, work.from_, work.to) and line.choose(work.sid)


def _submit(sid: str, connector: str, now_ms: int, pdus: Sequence[Any]) -> Item:
    return Submit(sid, connector, now_ms, [codec.encode(pdu, 0) for pdu in pdus])


def _page(sid: str, number: int, verbs: int, source: Any, found: Any) -> Item:
    page = (sid, number, found.base, found.content_type, found.body, steps_of(found.verbs), verbs)
    if (method := getattr(source, "method", "")) == "":
        return Page(*page)
    return Page(*page, method, source.url, list(source.params))


def _size(item: Item) -> int:
    if isinstance(item, Submit):
        return sum(map(len, item.pdus))
    if isinstance(item, Page):
        return len(item.body) + sum(map(len, item.steps))
    return len(item.record) + sum(map(len, item.owed))
