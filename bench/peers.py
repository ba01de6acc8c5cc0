"""Calls between two nodes: `make bench NAME=peers`. Two processes, one connection, 200-byte payloads both ways."""

import asyncio
import multiprocessing
import os
import resource
import sys
import time
from multiprocessing.connection import Connection

import uvloop

from trunkline.cluster.peers import Peers

SECRET = "s" * 40
PAYLOAD = bytes(200)
SECONDS = 5.0
CALLERS = 200
"""Calls under way at once."""


async def serve(pipe: Connection) -> None:
    async def echo(node: str, payload: bytes) -> bytes:
        return payload

    peers = Peers("b", SECRET)
    peers.handle("echo", echo)
    pipe.send(await peers.listen("127.0.0.1:0"))
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    used = resource.getrusage(resource.RUSAGE_SELF)
    pipe.send(used.ru_utime + used.ru_stime)
    await peers.close()


async def ask(port: int) -> tuple[int, float]:
    peers = Peers("a", SECRET)
    peers.know({"b": f"127.0.0.1:{port}"})
    await peers.call("b", "echo", PAYLOAD, 5)
    done = 0
    end = time.monotonic() + SECONDS

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < end:
            await peers.call("b", "echo", PAYLOAD, 5)
            done += 1

    before = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took = time.monotonic() - before
    await peers.close()
    return done, took


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=lambda: uvloop.run(serve(theirs)))
    server.start()
    cpu_before = time.process_time()
    done, took = uvloop.run(ask(ours.recv()))
    cpu = time.process_time() - cpu_before
    ours.send(None)
    served = ours.recv()
    server.join()
    load = os.getloadavg()[0]
    print(f"{done / took:,.0f} calls/s of {len(PAYLOAD)} bytes, {CALLERS} at once (load {load:.1f})")
    print(f"CPU of a call: {cpu / done * 1e6:.0f} us for who asks, {served / done * 1e6:.0f} us for who answers")
    sys.exit(0)


if __name__ == "__main__":
    main()
