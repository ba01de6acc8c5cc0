"""A delivery with its real queue, and a handler that answers as the test says."""

import asyncio
import time

from trunkline.model.sid import new_sid
from trunkline.settings import Webhooks
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.queue import Flight, Owed
from trunkline.storage.written import when_done
from trunkline.webhooks.delivery import Delivery, Result

AC = "AC" + "a" * 32
QUICK = Webhooks(retry_first_s=0.01, retry_longest_s=0.02, status_tries=4)
OK = Result([b'{"status":200}'], True)
BAD = Result([b'{"status":500}'], False, retry=True, error_code=15003)
GONE = Result([b'{"status":404}'], False, error_code=15003)


class Clock:
    def now_ms(self):
        return time.time_ns() // 1_000_000

    def monotonic(self):
        return time.monotonic()


class Script:
    """A handler that answers as the test says; None: when the test calls `finish`."""

    def __init__(self):
        self.answer = lambda owed: OK
        self.begun = []
        self.open = {}
        self.given_up = []
        self.most_open = 0

    def begin(self, owed, done):
        self.begun.append((owed.sid, owed.seq))
        result = self.answer(owed)
        self.open[owed.id] = (owed, done)
        self.most_open = max(self.most_open, len(self.open))
        if result is not None:
            asyncio.get_running_loop().call_soon(self.finish, owed.id, result)

    def finish(self, owed_id, result):
        _, done = self.open.pop(owed_id)
        done(result)

    def exhausted(self, owed, result):
        self.given_up.append((owed.id, result.error_code))


class Rig:
    def __init__(self, path, settings):
        self.path, self.settings = path, settings
        self.script = Script()
        self.finished = []
        self.owed_count = 0

    async def start(self):
        self.queue = SqliteQueue(self.path)
        self.delivery = Delivery(self.queue, Clock(), self.settings, {"status": self.script})
        self.delivery.finished = self.finished.append
        await self.delivery.recover()

    async def restart(self):
        """As after a crash: what was under way is forgotten."""
        self.delivery._stopped = True
        await self.queue.close()
        self.script = Script()
        await self.start()

    async def owe(self, count=1, host="http://h", push=True, due_ms=0):
        """A message that owes so many callbacks."""
        sid = new_sid("SM")
        flight = Flight(sid=sid, account=AC, status="sent", record=b"{}")
        owed = [
            Owed(sid=sid, account=AC, kind="status", host=host, seq=n, request=b"{}", due_ms=due_ms)
            for n in range(count)
        ]
        self.owed_count += count
        written = self.queue.accept(flight, owed)
        if push:  # in the very moment of the commit, as the in-flight store does
            when_done(written, lambda done: self.delivery.push(owed))
        await written
        return flight, owed

    async def states(self, flight):
        _, owed = await self.queue.get(AC, flight.sid)
        return [item.state for item in owed]

    async def all_ended_but(self, count):
        """So many callbacks stay owed."""
        await eventually(lambda: len(self.finished) == self.owed_count - count)

    async def all_ended(self, count):
        await eventually(lambda: len(self.finished) >= count)
        assert len(self.finished) == count
        assert await self.queue.owed_hosts() == []


async def eventually(condition, patience_s=5.0):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
