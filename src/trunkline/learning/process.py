"""A process that follows the work, with the candidate's settings and code or with production's: `python -m
trunkline.learning.process FD FOLDER MEMORY_BYTES`, the `Side` on standard input. Works one piece after another;
whatever it does wrong is its own affair.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from trunkline.learning import isolation

READY_S = 60.0
POLL_S = 0.01
MAX_ANSWER = 190_000
MAX_ERROR = 300
PACKET = 1 << 18

T = TypeVar("T")


def main() -> None:
    """See the module."""
    descriptor, folder, memory = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    isolation.die_with_parent()
    isolation.confine(memory)
    given = sys.stdin.buffer.read()
    asyncio.run(_work(socket.socket(fileno=descriptor), folder, given))


async def _work(line: socket.socket, folder: Path, given: bytes) -> None:
    import msgspec

    from trunkline.learning.follower import Follower  # late: what it may use is bounded by now
    from trunkline.learning.run import Side
    from trunkline.learning.wire import Answer, decode_work, encode

    loop = asyncio.get_running_loop()
    line.setblocking(False)
    follower = Follower(msgspec.json.decode(given, type=Side), folder)
    follower.start()
    until = loop.time() + READY_S
    # Connectors tell nobody that they are up.
    while not follower.ready and loop.time() < until:  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
    await loop.sock_sendall(line, encode(Answer()))
    watch = _Watch(loop)
    while packet := await loop.sock_recv(line, PACKET):
        work = decode_work(packet)
        began, cpu = time.perf_counter(), time.process_time()
        try:
            found = await watch.over(follower.follow(work))
            answer = Answer(views=found or {}, followed=found is not None)
        except Exception as error:
            answer = Answer(error=f"{type(error).__name__}: {error}"[:MAX_ERROR])
        answer.ms = (time.perf_counter() - began) * 1000
        answer.cpu_ms = (time.process_time() - cpu) * 1000
        data = encode(answer)
        await loop.sock_sendall(line, data if len(data) <= MAX_ANSWER else encode(Answer(error="answers too much")))


class _Watch:
    """Has what is raised in a callback of the loop, where nobody hears it, end the work that it was raised over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task: asyncio.Future[Any] | None = None
        self._raised: BaseException | None = None
        loop.set_exception_handler(self._hear)

    def _hear(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        error = context.get("exception")
        if self._task is not None and self._raised is None and error is not None:
            self._raised = error
            self._task.cancel()

    async def over(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it. Raises what it raises, and what is raised in a callback meanwhile."""
        self._raised = None
        task = asyncio.get_running_loop().create_task(work)
        self._task = task
        try:
            return await task
        except asyncio.CancelledError:
            if self._raised is None:
                raise
            raise RuntimeError(f"{type(self._raised).__name__}: {self._raised}") from self._raised
        finally:
            self._task = None


if __name__ == "__main__":
    main()
