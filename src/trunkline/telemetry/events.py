"""One wide event a flight: a JSON line for each message and call that has landed, for a log store.

It is what the post-flight document says, without what is the customer's own: no text, no numbers, no URLs. Lines wait
in a bounded queue and are appended by a thread; what does not fit is dropped and counted. The file is opened for each
batch, so that it may be rotated by renaming it.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

MAX_LINES: Final = 20_000
"""Lines that wait (about 0.6 KB each)."""
STDERR_FD: Final = 2

log = logging.getLogger("trunkline.telemetry")


class Landed(Protocol):
    """A flight that has landed (storage.queue.Flight)."""

    @property
    def kind(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def record(self) -> bytes: ...


class Callback(Protocol):
    """A callback that it owed (storage.queue.Owed)."""

    @property
    def state(self) -> str: ...
    @property
    def tries(self) -> int: ...


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The line. All but the first four and the last are read from the flight's record."""

    at_ms: int = 0
    """When it landed."""
    node: str = ""
    kind: str = ""
    status: str = ""
    sid: str = ""
    account_sid: str = ""
    direction: str = ""
    token: str = ""
    traceparent: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    sent_ms: int = 0
    answered_ms: int = 0
    ended_ms: int = 0
    stages: dict[str, int] = {}
    """Stage -> milliseconds from `created_ms` to its end."""
    connector: str = ""
    route: str = ""
    trunk: str = ""
    messaging_service_sid: str = ""
    parent_sid: str = ""
    num_segments: int = 0
    encoding: str = ""
    error_code: int = 0
    carrier_error: str = ""
    in_doubt: bool = False
    sip_response_code: int = 0
    hangup_cause: str = ""
    price: str = ""
    price_unit: str = ""
    cost: str = ""
    callbacks: int = 0
    callback_tries: int = 0
    callbacks_exhausted: int = 0


_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


class Events:
    """See the module. `path`: a file, or `stderr`. `now_ms`: the clock."""

    def __init__(self, path: str, node: str, flush_s: float, now_ms: Any) -> None:
        self._path = "" if path == "stderr" else path
        self._node = node
        self._flush_s = flush_s
        self._now_ms = now_ms
        self._lines: deque[bytes] = deque()
        self._told = False
        self.written = 0
        self.dropped = 0

    def landed(self, batch: Sequence[tuple[Landed, Sequence[Callback]]]) -> None:
        """Flights have landed, with the callbacks that they owed."""
        now = self._now_ms()
        for flight, callbacks in batch:
            if len(self._lines) >= MAX_LINES:
                self.dropped += 1
                continue
            try:
                event = _decode(flight.record)
            except msgspec.MsgspecError:
                self.dropped += 1
                continue
            event.at_ms, event.node, event.kind, event.status = now, self._node, flight.kind, flight.status
            event.callbacks = len(callbacks)
            event.callback_tries = sum(one.tries for one in callbacks)
            event.callbacks_exhausted = sum(one.state == "exhausted" for one in callbacks)
            self._lines.append(_encode(event))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._flush_s)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        if not self._lines:
            return
        lines, self._lines = self._lines, deque()
        try:
            await asyncio.to_thread(self._write, b"\n".join(lines) + b"\n")
        except OSError as error:
            self.dropped += len(lines)
            if not self._told:
                log.error("events are dropped: %s: %s", self._path or "stderr", error.strerror or error)
            self._told = True
        else:
            self.written += len(lines)
            self._told = False

    def _write(self, data: bytes) -> None:
        number = STDERR_FD
        if self._path:
            number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(number, view) :]
        finally:
            if self._path:
                os.close(number)
