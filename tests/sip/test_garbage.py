"""What is refused goes at once: a flood of it, waiting for the garbage collector, would be megabytes and a pause."""

import gc
import random
from collections.abc import Callable, Iterator

import pytest

from tests.security.test_sip_fuzz import MESSAGES, mutated
from trunkline.sip.message import MalformedMessage, parse
from trunkline.sip.stream import StreamParser

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
