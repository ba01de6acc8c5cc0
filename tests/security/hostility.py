"""A server that is attacked while calls are up: how the tests of hostile SIP and hostile media begin and end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.switch import HOST, NUMBER, Switch
from tests.security.attacker import Attack, under
from tests.security.calls_up import CallsUp

SERVER, FRIEND, STRANGER = "127.0.0.8", "127.0.0.7", "127.0.0.9"
"""The server has an address of its own; a friend's is a trunk's, a stranger's is not."""
MAX_GROWTH_BYTES = 10 * 1024 * 1024
"""Of each process of the server, from the first attack on: caches fill in a first small one, before calls are up."""
WARM = 1500
RATE = 4000.0
"""SIP messages a second. What lingers of them is bounded in number, so that memory does not grow with the rate;
STEADY_RATE, for longer, leaves a busy machine time for the calls' own phones."""
STEADY_RATE = 2000.0
WATCHED = ("node", "media", "supervisor", "recorder")
LEGS = 200
FRIENDS = 10
"""Calls that fuzz, where it is right by chance, may have: they are not of the memory that is watched."""
RECORDINGS = 5
"""Calls whose recordings are fetched and compared."""
MARGIN_S = 1.0
"""How much less than the attack's duration the calls may have heard: the prompt takes a while to begin."""


def attacked(folder: Path) -> Switch:
    """The server, after a small attack of each kind."""
    trunks = [
        {"name": "near", "addresses": [f"{HOST}/32"], "prefixes": []},
        {"name": "friend", "addresses": [f"{FRIEND}/32"], "prefixes": [], "calls_at_once": FRIENDS},
    ]
    switch = Switch(folder, trunks, SERVER, media={"legs": LEGS}).start()
    try:
        with under(sip_attacks(switch, WARM * 5 // 2, seed=100)):
            pass
    except BaseException:
        switch.close(hard=True)
        raise
    return switch


def sip_attacks(switch: Switch, packets: int, seed: int, rate: float = RATE) -> list[Attack]:
    """Fuzzed SIP: 40 % from a trunk, 40 % from a stranger, 20 % over TCP."""
    target = [(SERVER, switch.sip_port)]
    shares = (("sip_udp", FRIEND, 4), ("sip_udp", STRANGER, 4), ("sip_tcp", FRIEND, 2))
    return [
        Attack(kind, target, source, packets * share // 10, rate * share / 10, seed + index, NUMBER)
        for index, (kind, source, share) in enumerate(shares)
    ]


@contextmanager
def unharmed(switch: Switch, calls: int, seconds: float, *, speaking: bool = True) -> Iterator[CallsUp]:
    """Inside, so many calls are up, for at most so long. In the end all went well with them, and with the server."""
    with CallsUp(switch, calls, seconds, speaking=speaking) as up:
        before = switch.resident()
        yield up
        heard_s = len(up.talkers[0].heard) / 50
        now = switch.resident()
        watched = [name for name in before if name.split()[0] in WATCHED]
        assert {name.split()[0] for name in watched} >= {"node", "media"}
        assert set(watched) <= now.keys(), "a process has died"
        grown = {name: now[name] - before[name] for name in watched}
        print("grown by", grown)
        assert max(grown.values()) <= MAX_GROWTH_BYTES, grown
        up.end()
    up.check(heard_s - MARGIN_S, RECORDINGS)
    errors = switch.errors()
    assert not errors, errors[:10]
