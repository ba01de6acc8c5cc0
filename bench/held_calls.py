"""Calls that wait for their webhook, as many as asked at once, on a whole server: see bench.held."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import calls
from bench.caller import Call, Caller
from bench.held_application import Application
from bench.processes import Meter
from trunkline.accounts.directory import create_account
from trunkline.bootstrap import open_database
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.settings import load

RATE = 100.0
"""New calls a second."""
START_S = 120.0
WARM_UP = 20
SETTLE_S, SETTLE_TRIES, SETTLED_MB = 5.0, 12, 1.0
DOCUMENT = b"<Response><Reject/></Response>"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (len(DOCUMENT), DOCUMENT)


calls.START_S = START_S


class Node(calls.Node):
    """One number for each host of the application: connections to a host are bounded."""

    def __init__(self, folder: Path, app_port: int, legs: int, hosts: int, more: str) -> None:
        self._hosts = hosts
        self.numbers: list[str] = []
        super().__init__(folder, app_port, legs=legs)
        self.configuration.write_text(self.configuration.read_text() + more)

    async def _seed(self, app_port: int) -> None:
        database = open_database(load(self.configuration, {}))
        try:
            account = await create_account(database, SystemClock(), "Held")
            for host in range(self._hosts):
                self.numbers.append(f"+1202555014{host}")
                url = f"http://127.0.0.{host + 1}:{app_port}/voice"
                await database.insert(
                    PhoneNumber(
                        sid=new_sid(PHONE_NUMBER),
                        account_sid=account.sid,
                        phone_number=self.numbers[-1],
                        bought_ms=1,
                        voice_url=url,
                    )
                )
        finally:
            await database.close()


async def settled(meter: Meter) -> float:
    """Memory once nothing starts or loads any more."""
    before = meter.memory_mb()
    for _ in range(SETTLE_TRIES):
        await asyncio.sleep(SETTLE_S)
        now = meter.memory_mb()
        if abs(now - before) < SETTLED_MB:
            return now
        before = now
    return before


async def measure(node: Node, port: int, count: int, until: Callable[..., Any], tell: Callable[..., None]) -> None:
    """Hold `count` calls, then let them be rejected; each must be told so."""
    webhook = Application(ANSWER, is_open=True)
    server = await asyncio.get_running_loop().create_server(webhook.connection, "0.0.0.0", port, backlog=4096)
    hosts = len(node.numbers)
    callers = [Caller(node.sip, number) for number in node.numbers]
    for caller in callers:
        await caller.__aenter__()
    for caller in callers:
        await caller.run(RATE, WARM_UP / RATE, 1)
    meter = Meter([node.root])
    before = await settled(meter)
    webhook.is_open = False
    began = time.monotonic()
    made: list[Call] = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        call = Call(1000 + number, time.monotonic())
        caller = callers[number % hosts]
        caller.calls[call.key] = call
        caller._invite(call)
        made.append(call)
    await until(lambda: len(webhook.waiting) >= count, f"{count} webhooks")
    tell(f"{count} calls held", before, meter.memory_mb(), count)
    webhook.let()
    await until(lambda: all(call.status >= 300 for call in made), "final responses")
    print(f"then rejected, as told: {sum(call.status >= 300 for call in made)} of {count}")
    for caller in callers:
        await caller.__aexit__()
    server.close()
