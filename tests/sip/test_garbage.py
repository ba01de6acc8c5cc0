"""What is over goes at once: a flood of it, waiting for the garbage collector, would be megabytes and a pause."""

import gc
import random
from collections.abc import Callable, Iterator

import pytest

from tests.security.test_sip_fuzz import MESSAGES, mutated
from tests.sip.link import pair
from trunkline.sip.client_invite import ClientInvite
from trunkline.sip.message import MalformedMessage, parse
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.stream import StreamParser
from trunkline.sip.transaction import ClientTransaction

COUNT = 2000


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
