"""Fuzzed SIP and SDP against a running server while calls are up: they go on as if nothing happened."""

import random

import pytest

from tests.interop.raw_sip import RawCaller
from tests.interop.switch import NUMBER, Switch
from tests.security.attacker import under
from tests.security.hostility import RATE, STEADY_RATE, sip_attacks, unharmed
from tests.security.test_sip_fuzz import OFFERS, mutated

ANSWERS = {200, 400, 415, 488, 503}
"""What an INVITE with some session description may get; 503 while all ports are taken."""


def fuzz_descriptions(switch: Switch, count: int, seed: int) -> None:
    """Calls from a trunk with mutated offers; those that are answered are ended."""
    dice = random.Random(seed)
    statuses = set()
    for _ in range(count):
        caller = RawCaller(switch.host, switch.sip_port, NUMBER)
        offers = [*OFFERS, caller.offer().encode()]
        body = mutated(dice, offers).decode("utf-8", "replace")
        answer = caller.invite(body=body)
        statuses.add(answer.status)
        if answer.status == 200:
            caller.up(answer)
            assert caller.hang_up() == 200
        caller.close()
    assert statuses <= ANSWERS
    assert {200, 488} <= statuses


@pytest.mark.parametrize(
    ("calls", "packets", "offers", "rate"),
    [(5, 10_000, 60, RATE), pytest.param(50, 500_000, 1500, STEADY_RATE, marks=pytest.mark.slow)],
)
def test_calls_go_on_under_fuzzed_sip(switch: Switch, calls: int, packets: int, offers: int, rate: float) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    fuzz_descriptions(switch, offers, seed)  # whole calls fill caches of their own first
    attacks = sip_attacks(switch, packets, seed, rate)
    with unharmed(switch, calls, seconds=30 + packets / rate * 2), under(attacks):
        fuzz_descriptions(switch, offers, seed + 1)
