"""`python -m bench.held_home ...` is `trunkline ...` whose part of the queue is another, lost node's until SIGUSR1.

What comes with an Idempotency-Key meanwhile waits for its home, as on a node of a cluster (`trunkline.api.homes`).
"""

import asyncio
import signal
import sys
from typing import Any

from trunkline.api import asgi
from trunkline.api.homes import Homes
from trunkline.api.idempotency import parse_key
from trunkline.model.sid import shard_of

WAIT_S = 600.0
MAX_KEY_CHARS = 255


class Away:
    """A `homes.Cluster` of two nodes, the other of which comes back as this one."""

    def __init__(self) -> None:
        self.ours = asyncio.Event()

    def home(self, account: str, key: str, path: str) -> int:
        """One for all."""
        return 0

    def is_ours(self, shard: int) -> bool:
        return self.ours.is_set()

    def shard_of(self, sid: str) -> int:
        return shard_of(sid)

    def spare_shard(self, path: str) -> int | None:
        return None

    def lacks(self, path: str) -> str:
        return ""

    async def owner(self, shard: int) -> str:
        await asyncio.wait_for(self.ours.wait(), WAIT_S)
        return "here"

    async def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> bytes:
        raise AssertionError("nobody else is there")


def install() -> None:
    """Let each `Api` that is made have such a home."""
    original: Any = asgi.Api.__init__

    def init(self: Any, *given: Any, **named: Any) -> None:
        away, loop = Away(), asyncio.get_running_loop()
        named["homes"] = Homes(away, lambda raw: parse_key(raw, MAX_KEY_CHARS), WAIT_S)
        original(self, *given, **named)
        signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(away.ours.set))

    asgi.Api.__init__ = init  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    from trunkline.cli import main

    sys.exit(main())
