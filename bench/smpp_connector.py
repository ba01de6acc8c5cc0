"""What the SMPP connector alone costs a message: encode, submit, answer, receipt, acknowledge; CPU of this process.

    python bench/smpp_connector.py [MESSAGES] [WINDOW]

The SMSC runs in a process of its own (bench/fake_smsc.py); the sink keeps nothing.
"""

import asyncio
import json
import subprocess
import sys
import time
from asyncio import Future
from pathlib import Path
from typing import Any

import uvloop

from trunkline.messaging.connectors.base import InboundPart, Outcome, Receipt, Submission, Submitted
from trunkline.messaging.connectors.table import Context, make
from trunkline.model.message import Direction, Message
from trunkline.model.sid import new_sid
from trunkline.settings import Smpp

SMSC = Path(__file__).with_name("fake_smsc.py")
TIMEOUT_S = 120


class Counter:
    """A sink that counts."""

    def __init__(self, wanted: int) -> None:
        self.receipts = self.wanted = 0
        self.wanted = wanted
        self.done = asyncio.Event()
        self._kept: Future[Any] = asyncio.get_running_loop().create_future()
        self._kept.set_result(None)

    def receipt(self, receipt: Receipt) -> "Future[Any]":
        self.receipts += 1
        if self.receipts == self.wanted:
            self.done.set()
        return self._kept

    def inbound(self, part: InboundPart) -> "Future[Any]":
        return self._kept


async def run(port: int, messages: int, window: int) -> dict[str, float]:
    connector = make(Smpp(name="bench", host="127.0.0.1", port=port, system_id="bench", window=window), Context())
    sink, left, taken = Counter(messages), messages, 0
    now = time.time_ns() // 1_000_000
    records = [
        Message(
            sid=new_sid("SM"),
            account_sid="AC" + "0" * 32,
            direction=Direction.OUTBOUND_API,
            from_="+12025550142",
            to="+15555550123",
            body=f"K={number} Your code is 123456, it is good for ten minutes.",
            created_ms=now,
            valid_until_ms=now + 36_000_000,
        )
        for number in range(messages)
    ]

    def done(outcome: Outcome) -> None:
        nonlocal taken
        taken += isinstance(outcome, Submitted)

    def pump() -> None:
        nonlocal left
        for _ in range(min(left, connector.capacity())):
            left -= 1
            connector.submit(Submission(records[left], "+12025550142", done))

    connector.start(sink, pump)
    await asyncio.sleep(0.2)
    cpu, began = time.process_time(), time.perf_counter()
    pump()
    async with asyncio.timeout(TIMEOUT_S):
        await sink.done.wait()
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    await connector.stop(1)
    return {
        "messages": messages,
        "taken": taken,
        "messages_per_s": round(messages / took),
        "cpu_us_per_message": round(cpu / messages * 1e6, 1),
    }


def main() -> None:
    messages, window = (int(value) for value in [*sys.argv[1:], *["50000", "100"][len(sys.argv) - 1 :]])
    with subprocess.Popen([sys.executable, SMSC], stdout=subprocess.PIPE) as smsc:
        assert smsc.stdout is not None
        try:
            port = json.loads(smsc.stdout.readline())["port"]
            print(json.dumps(uvloop.run(run(port, messages, window))))
        finally:
            smsc.terminate()


if __name__ == "__main__":
    main()
