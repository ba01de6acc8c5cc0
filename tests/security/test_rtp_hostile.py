"""Hostile RTP and RTCP while calls are up: fuzz on every port of theirs, and faultless audio sprayed over the whole
range by somebody who would like to hear or to be heard."""

import random
import socket
import time
from collections.abc import Sequence

import pytest

from tests.interop.raw_sip import RawCaller
from tests.interop.switch import NUMBER, Switch
from tests.security.attacker import Attack, under
from tests.security.calls_up import FRAME, CallsUp
from tests.security.hostility import SERVER, STRANGER, unharmed

PORTS = range(20_000, 30_000)
"""The range of `media.port_min` and `media.port_max`, RTCP included."""
RATE = 8000.0
"""Packets a second."""
BURST = 20
FLOOD = 3000
"""Packets a second at one port."""
FLOOD_S = 5
SETTLED_S = 3.0
"""After so long a leg's source is the only one that its socket takes."""


def both(calls: CallsUp) -> list[tuple[str, int]]:
    """Where the calls' RTP and RTCP go."""
    return [(host, port + more) for host, port in (one.phone.remote_rtp for one in calls.talkers) for more in (0, 1)]


def fuzz(targets: Sequence[tuple[str, int]], packets: int, seed: int, source: str = STRANGER) -> Attack:
    """Mutated RTP and RTCP."""
    return Attack("rtp", list(targets), source, packets, RATE, seed)


def spray(stranger: socket.socket, rounds: int) -> None:
    """Faultless RTP to one port after the other, from one source."""
    packet = b"\x80\x00\x00\x01\x00\x00\x00\xa0\x12\x34\x56\x78" + b"\x2a" * FRAME
    began = time.monotonic()
    for number in range(rounds * len(PORTS)):
        stranger.sendto(packet, (SERVER, PORTS[number % len(PORTS)]))
        if number % BURST == 0:
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))


@pytest.mark.parametrize(("calls", "packets"), [(5, 10_000), pytest.param(50, 500_000, marks=pytest.mark.slow)])
def test_calls_go_on_under_fuzzed_media(switch: Switch, calls: int, packets: int) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    with unharmed(switch, calls, seconds=30 + packets / RATE * 3) as up:
        other = RawCaller(switch.host, switch.sip_port, NUMBER).calls()
        host, port = other.remote_rtp
        own = fuzz([(host, port), (host, port + 1)], packets // 10, seed + 1, other.host)
        with under([fuzz(both(up), packets * 9 // 10, seed), own]):
            pass
        assert other.hang_up() == 200
        other.close()


def test_a_flood_at_one_leg_does_not_deafen_it(switch: Switch) -> None:
    """All that the callers say is recorded although a stranger fills the first one's own port."""
    with unharmed(switch, 2, seconds=40) as up:
        time.sleep(SETTLED_S)
        with under([Attack("rtp", [up.talkers[0].phone.remote_rtp], STRANGER, FLOOD * FLOOD_S, float(FLOOD), 1)]):
            pass


@pytest.mark.parametrize(("calls", "rounds"), [(5, 1), pytest.param(50, 20, marks=pytest.mark.slow)])
def test_nobody_else_is_heard_or_hears(switch: Switch, calls: int, rounds: int) -> None:
    """Before the phones have sent anything, their ports are open for latching: not to a stranger. Nor afterwards."""
    seconds = 30 + 2 * rounds * len(PORTS) / RATE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((STRANGER, 0))
        with unharmed(switch, calls, seconds, speaking=False) as up:
            spray(stranger, rounds)
            before = len(up.talkers[0].heard)
            up.speaking.set()
            spray(stranger, rounds)
            assert len(up.talkers[0].heard) > before > 0
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(1)
