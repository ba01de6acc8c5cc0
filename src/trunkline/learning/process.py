"""A process that follows the work, with the candidate's settings and code or with production's: `python -m
trunkline.learning.process FD FOLDER MEMORY_BYTES`, the `Side` on standard input. Works one piece after another;
whatever it does wrong is its own affair.
"""

import asyncio
import socket
import sys
import time
from pathlib import Path

from trunkline.learning import isolation

READY_S = 60.0
POLL_S = 0.01
MAX_ANSWER = 190_000
MAX_ERROR = 300
PACKET = 1 << 18


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
    while packet := await loop.sock_recv(line, PACKET):
        work = decode_work(packet)
        began, cpu = time.perf_counter(), time.process_time()
        try:
            found = await follower.follow(work)
            answer = Answer(views=found or {}, followed=found is not None)
        except Exception as error:
            answer = Answer(error=f"{type(error).__name__}: {error}"[:MAX_ERROR])
        answer.ms = (time.perf_counter() - began) * 1000
        answer.cpu_ms = (time.process_time() - cpu) * 1000
        data = encode(answer)
        await loop.sock_sendall(line, data if len(data) <= MAX_ANSWER else encode(Answer(error="answers too much")))


if __name__ == "__main__":
    main()
