"""A customer under load: sends messages at a steady rate, whatever happens to the server, and counts what was accepted.

Each message has a key of its own in its text (`K=...`), so that it can be told apart at the carrier.
"""

import asyncio
import itertools
from collections import defaultdict

import aiohttp

from tests.e2e.client import Client
from tests.e2e.conftest import Tenant
from tests.e2e.sink import Sink

MAX_UNDER_WAY = 200
LOST = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a request may meet when the server ends."""


class Load:
    """Start with `async with`; it sends until the end of the block."""

    def __init__(self, client: Client, tenant: Tenant, sink: Sink, rate: float) -> None:
        self.client = client
        self._number = tenant.numbers[0].phone_number
        self._sink = sink
        self._rate = rate
        self._running = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._driver: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.prefix = "m"
        """What its messages' keys begin with."""
        self.accepted: dict[str, str] = {}
        """SID -> key of each message that was answered with 201."""
        self.unknown: set[str] = set()
        """Keys of messages whose answer was lost: nobody knows whether they were accepted."""
        self.refused: list[int] = []
        """Other statuses."""

    async def __aenter__(self) -> "Load":
        self._driver = asyncio.create_task(self._drive())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running = False
        assert self._driver is not None
        await self._driver
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def more(self, count: int) -> None:
        """Wait until so many more have been accepted."""
        wanted = len(self.accepted) + count
        async with asyncio.timeout(60):
            while len(self.accepted) < wanted:
                self._changed.clear()
                await self._changed.wait()

    def statuses(self) -> dict[str, set[str]]:
        """SID -> the statuses that callbacks have told."""
        told: dict[str, set[str]] = defaultdict(set)
        for hook in self._sink.hooks:
            told[hook.form["MessageSid"]].add(hook.form["MessageStatus"])
        return told

    async def delivered(self, timeout_s: float = 60) -> None:
        """Wait until the sink has heard of the delivery of each accepted message."""
        missing = set(self.accepted)
        seen = 0

        def done() -> bool:
            nonlocal seen
            for hook in self._sink.hooks[seen:]:
                if hook.form["MessageStatus"] == "delivered":
                    missing.discard(hook.form["MessageSid"])
            seen = len(self._sink.hooks)
            return not missing

        try:
            await self._sink.until(done, timeout_s)
        except TimeoutError:
            raise AssertionError(f"no delivery was told of {len(missing)} messages: {sorted(missing)[:5]}") from None

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in itertools.count():
            await asyncio.sleep(began + number / self._rate - loop.time())
            if not self._running:
                return
            if len(self._tasks) < MAX_UNDER_WAY:
                task = asyncio.create_task(self._send(f"{self.prefix}{number}"))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _send(self, key: str) -> None:
        form = {
            "To": "+12125550180",
            "From": self._number,
            "Body": f"K={key} load",
            "StatusCallback": f"{self._sink.url}/status",
        }
        try:
            answer = await self.client.call("POST", "Messages.json", form)
        except LOST:
            self.unknown.add(key)
            return
        if answer.status == 201:
            self.accepted[answer.json["sid"]] = key
            self._changed.set()
        else:
            self.refused.append(answer.status)
