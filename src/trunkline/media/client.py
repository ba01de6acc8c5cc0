"""The node's side of the media control protocol: commands that outlive connections, events to whoever watches a leg.

Every command is numbered and kept until the media process says that it was carried out; after a reconnect, or when the
process was replaced, those above its number are sent again. Events are confirmed once their callback has run.

The media process runs before the node and is woken by every write, so commands are written together: the first at the
end of the loop's present turn, those that follow within BATCH_S of it in one piece.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

import msgspec

from trunkline.media import protocol
from trunkline.media.wire import Deframer, FrameTooLong, decode_event, frame

logger = logging.getLogger(__name__)

RETRY_S: Final = 0.05
"""Between two attempts to connect."""
RETRY_MAX_S: Final = 1.0
MAX_PENDING: Final = 50_000
"""Commands kept for a media process that is away; beyond it the oldest are dropped."""
WRITE_BUFFER_BYTES: Final = 8 << 20
"""Unsent output above which a connection is given up (the commands stay)."""
START_WAIT_S: Final = 5.0
BATCH_S: Final = 0.004
"""Least time between two writes of commands; audio begins at a tick (20 ms) in any case."""
SEEN_S: Final = 0.1
"""Longest time in which events that were dealt with are not confirmed."""
LOW_SLOTS: Final = 64
"""Slots at hand below which the media process is told how many are taken: it then leases more."""
GONE_S: Final = 2.0
"""How long a media process that is gone counts as there: that long its successor may take."""

Watcher = Callable[[protocol.Event], object]


class MediaClient:
    """One media process as the node sees it. Everything runs on the event loop; nothing blocks."""

    def __init__(self, node: str = "") -> None:
        self.node = node
        self.epoch = 0
        """Of the media process's memory; 0 before the first `Hello`. Another one means that all legs were lost."""
        self.version = 0
        """Of the protocol, as the media process speaks it; 0 before the first `Hello`."""
        self.stats: protocol.Stats | None = None
        self.legs_lost = 0
        """How often the epoch changed."""
        self._number = 0
        self._last_seen = 0
        self._seen_due = False
        self._pending: deque[protocol.Command] = deque()
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._taken: dict[int, int] = {}
        self._taken_told = 0
        self._watchers: dict[str, Watcher] = {}
        self._lost_at = -GONE_S
        self.otherwise: Watcher = lambda event: None
        """Gets the events of legs that nobody watches."""
        self._hello: list[Callable[[list[protocol.LegState]], None]] = []
        self._link: _Link | None = None
        self._synced = False
        self._greeted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, path: str, wait_s: float = START_WAIT_S) -> bool:
        """Connect to the process's control socket, now and whenever the connection is lost. Returns once it is
        attached, or False after `wait_s`; then it goes on trying."""
        self._task = asyncio.create_task(self._run(path))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._greeted.wait(), wait_s)
        return self.available

    async def close(self) -> None:
        """End the connection; commands not carried out are forgotten."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._link is not None:
            self._link.close()

    @property
    def available(self) -> bool:
        """Whether a media process is attached, or was until a moment ago: another takes its place."""
        return self._synced or time.monotonic() - self._lost_at < GONE_S

    def _refused(self, command: protocol.Command) -> bool:
        """Whether the media process would send in the open what is to be encrypted; its owner is told."""
        if not 0 < self.version < protocol.SRTP_VERSION:
            return False
        if not isinstance(command, protocol.Open | protocol.Modify) or command.srtp is None:
            return False
        why = "the media process is of an older version, without SRTP"
        refused = protocol.Refused(command=0, what="open", leg=command.leg, reason=why)
        asyncio.get_running_loop().call_soon(self._watchers.get(command.leg, self.otherwise), refused)
        return True

    @property
    def free_slots(self) -> int:
        """Slots at hand."""
        return len(self._slots)

    def take_slot(self) -> tuple[int, int] | None:
        """A slot for a new leg and its RTP port (RTCP is the next); None when there is no room or no media process.
        It is used up by `Open`, or given back."""
        if not self._slots or not self.available:
            return None
        slot, port = self._slots.popitem(last=False)
        self._taken[slot] = port
        if len(self._slots) < LOW_SLOTS and len(self._taken) != self._taken_told:
            self._tell_taken()
        return slot, port

    def _tell_taken(self) -> None:
        if self._link is not None:
            self._taken_told = len(self._taken)
            self._link.write(protocol.Taken(count=self._taken_told))

    def give_back(self, slot: int) -> None:
        """A slot taken that no `Open` was sent for."""
        port = self._taken.pop(slot, None)
        if port is not None:
            self._slots[slot] = port

    def send(self, command: protocol.Command) -> None:
        """Have it carried out, once, in order; after a reconnect if need be."""
        if self._refused(command):
            return
        if isinstance(command, protocol.Open):
            self._taken.pop(command.slot, None)
            self._slots.pop(command.slot, None)
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft()
        self._pending.append(command)
        if self._synced and self._link is not None:
            self._number += 1
            command.n = self._number
            self._link.write(command)

    def watch(self, leg: str, callback: Watcher) -> None:
        """Call `callback` with every event of a leg (those with a `leg`), until `unwatch`."""
        self._watchers[leg] = callback

    def unwatch(self, leg: str) -> None:
        self._watchers.pop(leg, None)

    def on_hello(self, callback: Callable[[list[protocol.LegState]], None]) -> None:
        """Call `callback` with the legs that the media process has, each time one attaches."""
        self._hello.append(callback)

    # -- the connection

    async def _run(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        delay = RETRY_S
        while True:
            try:
                _, link = await loop.create_unix_connection(lambda: _Link(self), path)
            except OSError:
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MAX_S)
                continue
            delay = RETRY_S
            self._link = link
            link.write(protocol.Attach(version=protocol.VERSION, node=self.node, last_seen=self._last_seen))
            try:
                await link.closed
            finally:
                link.close()
                if self._synced:
                    self._lost_at = time.monotonic()
                self._link, self._synced = None, False
            await asyncio.sleep(RETRY_S)

    def take(self, events: list[protocol.Event]) -> None:
        """Deal with what came (called by the connection)."""
        seen = 0
        for event in events:
            if event.event:
                seen = self._last_seen = event.event
            self._dispatch(event)
        if seen and not self._seen_due:
            self._seen_due = True
            asyncio.get_running_loop().call_later(SEEN_S, self._confirm)

    def _confirm(self) -> None:
        self._seen_due = False
        if self._link is not None:
            self._link.write(protocol.Seen(event=self._last_seen))

    def _dispatch(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.Done):
            while self._pending and 0 < self._pending[0].n <= event.done:
                self._pending.popleft()
        elif isinstance(event, protocol.Ports):
            for slot, port in event.slots:
                if slot not in self._taken:
                    self._slots[slot] = port
            self._greeted.set()
        elif isinstance(event, protocol.Hello):
            self._take_hello(event)
        elif isinstance(event, protocol.Stats):
            self.stats = event
        else:
            watcher = self._watchers.get(event.leg, self.otherwise)
            try:
                watcher(event)
            except Exception:
                logger.exception("a media event could not be dealt with: %s", event)

    def _take_hello(self, hello: protocol.Hello) -> None:
        self.version = hello.version
        self._pending = deque(command for command in self._pending if not self._refused(command))
        if hello.epoch != self.epoch:
            if self.epoch:
                self.legs_lost += 1
                self._pending.clear()  # they were about the legs and slots that are gone
            self.epoch = hello.epoch
            self._taken.clear()
            self._last_seen = 0
        self._slots.clear()
        while self._pending and 0 < self._pending[0].n <= hello.done:
            self._pending.popleft()
        self._number = max(self._number, hello.done)
        self._synced = True
        link = self._link
        for command in self._pending:
            if not command.n:
                self._number += 1
                command.n = self._number
            if link is not None:
                link.write(command)
        if self._taken or self._taken_told:
            self._tell_taken()
        for callback in self._hello:
            try:
                callback(hello.legs)
            except Exception:
                logger.exception("a media process's legs could not be dealt with")


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, client: MediaClient) -> None:
        self._client = client
        self._deframer = Deframer()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._unwritten: list[bytes] = []
        self._written_at = -BATCH_S
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        events: list[protocol.Event] = []
        try:
            self._deframer.feed(data)
            while (body := self._deframer.next()) is not None:
                try:
                    events.append(decode_event(body))
                except msgspec.DecodeError as error:  # of a newer version
                    logger.warning("a media event was not understood: %s", error)
        except FrameTooLong:
            self.close()
        self._client.take(events)

    def write(self, message: msgspec.Struct) -> None:
        """Send, together with what else is written within BATCH_S."""
        try:
            data = frame(message)
        except FrameTooLong:
            logger.error("a media command is too long: %s", type(message).__name__)
            return
        if not self._unwritten:
            wait_s = self._written_at + BATCH_S - self._loop.time()
            if wait_s > 0:
                self._loop.call_later(wait_s, self._flush)
            else:
                self._loop.call_soon(self._flush)
        self._unwritten.append(data)

    def _flush(self) -> None:
        """A process that does not read loses its connection."""
        transport = self._transport
        data, self._unwritten = b"".join(self._unwritten), []
        self._written_at = self._loop.time()
        if transport is None:
            return
        transport.write(data)
        if transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
