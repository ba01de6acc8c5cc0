"""What is over goes at once: a flood of it, waiting for the garbage collector, would be megabytes and a pause."""

import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from tests.security.test_sip_fuzz import MESSAGES, mutated
from tests.sip.link import Caller, Leg, Network, Phone, pair
from trunkline.sip.client_invite import ClientInvite
from trunkline.sip.message import MalformedMessage, parse
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.stream import StreamParser
from trunkline.sip.transaction import ClientTransaction

COUNT = 2000
CALLS = 200
CALL_S = 0.1
MOST_BYTES = 16_000
"""Of a call that has ended, on both stacks together, while its INVITE and BYE wait for their repetitions: what calls
500 of a second leave behind for the 32 s of 64 T1 is less than 256 MB, and does not grow after that."""


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Nothing that is part of a cycle goes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def by_datagram(data: bytes) -> bool:
    try:
        parse(data)
    except MalformedMessage:
        return True
    return False


def by_stream(data: bytes) -> bool:
    return any(isinstance(item, MalformedMessage) for item in StreamParser().feed(data))


@pytest.mark.parametrize("read", [by_datagram, by_stream])
def test_malformed_messages_make_no_cycles(read: Callable[[bytes], bool]) -> None:
    dice = random.Random(1)
    assert sum(read(mutated(dice, MESSAGES)) for _ in range(COUNT)) > COUNT // 5
    assert not [one for one in gc.get_objects() if isinstance(one, MalformedMessage)]


def _left(*kinds: type) -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


@pytest.mark.parametrize("status", [200, 486, 0])
def test_an_invite_goes_with_its_transaction(status: int) -> None:
    """Answered, refused, or sent to nobody."""
    network, phone, other = pair()
    if not status:
        network.stacks.pop(other.address)
    other.on_call = lambda invite: other.accept(invite) if status == 200 else invite.reject(status)
    caller = phone.call(other)
    network.run(1)
    assert _left(ClientTransaction)
    if status == 200:
        caller.dialog.bye()
    caller.invite = None  # its own, and the callee's
    other.invites.clear()
    network.run(2 * phone.stack.timing.give_up)
    assert not _left(ClientInvite, ClientTransaction, ServerInvite)


def _calls(network: Network, phone: Phone, other: Phone, ends: str) -> None:
    """Calls that are answered, last for a moment and end, one after the other."""
    for _ in range(CALLS):
        caller = phone.call(other)
        network.run(CALL_S / 2)
        {"caller": caller.dialog, "callee": other.dialogs[-1]}[ends].bye()
        network.run(CALL_S / 2)
        for kept in (other.invites, other.dialogs, other.legs, network.log):
            kept.clear()


@pytest.mark.parametrize("ends", ["caller", "callee"])
def test_an_answered_invite_that_waits_for_timer_m_knows_nobody(ends: str) -> None:
    """500 calls a second would be 16,000 that have ended, with all that their listeners know."""
    network, phone, other = pair()
    _calls(network, phone, other, ends)
    network.run(phone.stack.timing.give_up + 1)
    tracemalloc.start()
    try:
        _calls(network, phone, other, ends)
        octets, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(_left(ClientInvite)) == CALLS, "they do wait"
    assert not _left(Caller, Leg)
    assert octets < MOST_BYTES * CALLS
    network.run(phone.stack.timing.give_up + 1)
    assert phone.quiet
    assert other.quiet
    assert not _left(ClientInvite, ClientTransaction, ServerInvite)
