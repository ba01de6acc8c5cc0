"""Ports for servers under test: each process of tests has ranges that no other has."""

import fcntl
import random
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

FIRST, WIDTH, SLOTS = 12_000, 3_000, 6
"""Below what the system gives out by itself (32,768 and on)."""
SINGLE_FIRST, SINGLE_WIDTH, SINGLE_SLOTS = 30_000, 210, 13
_held: list[IO[str]] = []
_given: set[int] = set()


@cache
def port_range() -> tuple[int, int]:
    """The first RTP port of this process and the one after its last. It holds two servers of 250 legs."""
    slot = _slot("rtp", SLOTS)
    return FIRST + slot * WIDTH, FIRST + (slot + 1) * WIDTH


def free_port(host: str = "127.0.0.1", span: int = 1) -> int:
    """An even port that nobody has, over UDP and TCP; the next `span` - 1 are free as well. None of those that the
    system, the media process or another process of tests gives away: what will listen there may be started much later,
    and nothing that this process was given lately."""
    first = SINGLE_FIRST + _single_slot() * SINGLE_WIDTH
    dice = random.SystemRandom()
    every = range(first, first + SINGLE_WIDTH - span + 1, 2)
    for fresh in (True, False):
        for port in dice.sample(every, len(every)):
            wanted = range(port, port + span)
            if not (fresh and _given.intersection(wanted)) and all(_is_free(host, one) for one in wanted):
                _given.update(wanted)
                return port
        _given.clear()
    raise AssertionError(f"no free port from {first} on")


@cache
def _single_slot() -> int:
    return _slot("single", SINGLE_SLOTS)


def _slot(kind: str, slots: int) -> int:
    """A number that no other process of tests has until this one ends."""
    for slot in range(slots):
        file = (Path(tempfile.gettempdir()) / f"trunkline-test-ports-{kind}-{slot}").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return slot
    raise AssertionError(f"{slots} other processes of tests have taken all ranges of ports")


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
