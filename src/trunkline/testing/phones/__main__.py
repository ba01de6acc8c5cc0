"""`python -m trunkline.testing.phones`: the simulated phones as a process of their own (see `process`)."""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys

from trunkline.testing.phones.process import run

NICENESS = -10
"""A phone that is late sounds like a bad line: it goes before other programs, where it may."""
ENGINES = ("auto", "hibari", "espeak", "tones")


def main(arguments: list[str] | None = None) -> int:
    """Serve; returns the exit status."""
    parser = argparse.ArgumentParser("python -m trunkline.testing.phones", description="Simulated phones.")
    parser.add_argument("--host", default="127.0.0.1", help="address of SIP and RTP (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="SIP port, UDP and TCP (any)")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="settings.speech.engine of the server")
    given = parser.parse_args(arguments)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(given.host, given.port, given.engine))
    except OSError as error:
        sys.stderr.write(f"the phones cannot listen: {error}\n")
        return 1
    return 0


async def _serve(host: str, port: int, engine: str) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    gc.freeze()
    await run(host, port, engine, ended)


if __name__ == "__main__":
    sys.exit(main())
