"""Hostile traffic from a process of its own, at a steady rate: `python -m tests.security.attacker JSON` (see `Attack`).

Prints how many packets were sent. The same seed sends the same.
"""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PACE_S = 0.005
TCP_CONNECTIONS = 20
TCP_MESSAGES = 10
"""Messages of one connection, if it lives that long."""
PATIENCE_S = 600
NICE = 10
"""The attackers share the machine with the calls that they attack, whose own sending must stay in time."""


class Attack(NamedTuple):
    """`kind`: sip_udp, sip_tcp or rtp. `targets` are (host, port); `source` is the address it comes from."""

    kind: str
    targets: list[tuple[str, int]]
    source: str
    count: int
    rate: float
    seed: int = 1
    number: str = ""


@contextlib.contextmanager
def under(attacks: Sequence[Attack]) -> Iterator[None]:
    """Attacks in processes of their own, from the beginning of the block; at its end they are waited for."""
    command = [sys.executable, "-m", "tests.security.attacker"]
    running = [
        subprocess.Popen([*command, json.dumps(each._asdict())], stdout=subprocess.PIPE, cwd=ROOT) for each in attacks
    ]
    try:
        yield
        for process, attack in zip(running, attacks, strict=True):
            out, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0
            assert int(out) == attack.count
    finally:
        for process in running:
            process.kill()
            process.communicate()


def invite(host: str, number: str, dice: random.Random) -> bytes:
    """A call to a number of ours, as a seed for mutations."""
    name = f"{dice.randrange(1 << 48):x}"
    sdp = (
        f"v=0\r\no=x 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8 101\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
    )
    return (
        f"INVITE sip:{number}@{host} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:40000;branch=z9hG4bK{name}\r\n"
        f"From: <sip:+12025550111@{host}>;tag={name}\r\nTo: <sip:{number}@{host}>\r\nCall-ID: {name}\r\n"
        f"CSeq: 1 INVITE\r\nContact: <sip:x@{host}:40000>\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\n"
        f"Content-Length: {len(sdp)}\r\n\r\n{sdp}"
    ).encode()


def sip_messages(attack: Attack) -> Callable[[], bytes]:
    """Mutated messages of every kind, one in ten of them a call to a number of ours."""
    from tests.security.test_sip_fuzz import MESSAGES, mutated

    dice = random.Random(attack.seed)

    def make() -> bytes:
        seeds = [invite(attack.source, attack.number, dice)] if dice.random() < 0.1 else MESSAGES
        return mutated(dice, seeds)

    return make


def media_packets(attack: Attack) -> Callable[[], bytes]:
    """RTP with good and bad headers, telephone-events, RTCP with any content, STUN, noise."""
    dice = random.Random(attack.seed)

    def make() -> bytes:
        kind = dice.randrange(6)
        if kind == 0:
            return dice.randbytes(dice.choice((0, 1, 11, 12, 13, 172, 1400)))
        if kind == 1:
            report = bytes([dice.choice((0x80, 0x81, 0x9F, 0xA1)), dice.choice((200, 201, 202, 203, 204, 205, 206))])
            body = dice.randbytes(4 * dice.randrange(0, 20))
            return report + dice.choice((len(body) // 4, 0, 65_535, 3)).to_bytes(2, "big") + body
        first = dice.choice((0x80, 0x80, 0x80, 0x90, 0xA0, 0x8F, 0xBF, 0x00, 0xC0))
        payload_type = dice.choice((0, 0, 8, 13, 101, 101, 127, 255))
        size = 4 if payload_type == 101 else dice.choice((160, 160, 160, 0, 1, 80, 480, 1000))
        return bytes([first, payload_type | dice.choice((0, 0x80))]) + dice.randbytes(10 + size)

    return make


MAKERS: dict[str, Callable[[Attack], Callable[[], bytes]]] = {
    "sip_udp": sip_messages, "sip_tcp": sip_messages, "rtp": media_packets,
}  # fmt: skip


class Connections:
    """TCP connections on which messages are sent, in pieces that need not be whole; each is replaced in time."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self._dice = random.Random(attack.seed)
        self._open: list[socket.socket | None] = [None] * TCP_CONNECTIONS
        self._left = [0] * TCP_CONNECTIONS

    def send(self, data: bytes) -> None:
        """Send on any of them."""
        at = self._dice.randrange(TCP_CONNECTIONS)
        connection = self._open[at]
        if connection is None or not self._left[at]:
            if connection is not None:
                connection.close()
            connection = self._open[at] = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.bind((self._attack.source, 0))
            connection.settimeout(1)
            with contextlib.suppress(OSError):
                connection.connect(tuple(self._attack.targets[0]))
            self._left[at] = TCP_MESSAGES
        self._left[at] -= 1
        try:
            connection.sendall(data)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.recv(65_536)
            connection.settimeout(1)
        except OSError:
            connection.close()
            self._open[at] = None


def sender(attack: Attack) -> Callable[[bytes, int], None]:
    """Sends the n-th packet."""
    if attack.kind == "sip_tcp":
        connections = Connections(attack)
        return lambda data, number: connections.send(data)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((attack.source, 0))
    targets = [tuple(target) for target in attack.targets]

    def send(data: bytes, number: int) -> None:
        with contextlib.suppress(OSError):  # what ICMP said of an earlier one
            sock.sendto(data, targets[number % len(targets)])

    return send


def run(attack: Attack) -> int:
    """Send it all; the number of packets."""
    make, send = MAKERS[attack.kind](attack), sender(attack)
    began, sent = time.monotonic(), 0
    while sent < attack.count:
        due = min(int((time.monotonic() - began) * attack.rate) + 1, attack.count)
        for number in range(sent, due):
            send(make(), number)
        sent = due
        time.sleep(PACE_S)
    return sent


def main(argument: str) -> None:
    """See the module."""
    os.nice(NICE)
    given: dict[str, Any] = json.loads(argument)
    print(run(Attack(**given)))


if __name__ == "__main__":
    main(sys.argv[1])
