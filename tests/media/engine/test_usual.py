"""Ordinary legs take the compiled way in every tick; only what is not ordinary is left to the general one.

That both do the same is shown by test_same."""

from typing import Any

import numpy as np
import pytest

from tests.media.engine.rig import Rig, level, sine
from trunkline.media import protocol
from trunkline.rtp.telephone_event import Payload


class Counting:
    """What a Tick leaves."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.packets = self.rows = 0

    def hear(self, *arguments: Any) -> Any:
        left = self._inner.hear(*arguments)
        self.packets += len(left)
        return left

    def frames(self, rows: Any) -> Any:
        left, due = self._inner.frames(rows)
        self.rows += len(left)
        return left, due


@pytest.fixture
def rig() -> Rig:
    return Rig("compiled")


def counting(rig: Rig) -> Counting:
    counted = Counting(rig.engine.buffer.usual)
    rig.engine.buffer.usual = rig.engine.receiver.usual = counted
    return counted


def test_a_settled_stream_leaves_nothing_even_with_losses(rig: Rig) -> None:
    peer = rig.open()
    for _ in range(10):
        peer.speak(sine())
        rig.tick()
    left = counting(rig)
    for number in range(300):
        if number % 50 == 20:
            peer.sequence, peer.timestamp = peer.sequence + 1, peer.timestamp + 160
        else:
            peer.speak(sine(start=160 * number))
        rig.tick()
    assert (left.packets, left.rows) == (0, 0)
    assert rig.state.received[rig.row()] == 304


def test_what_is_not_usual_is_left(rig: Rig) -> None:
    peer = rig.open()
    left = counting(rig)
    peer.speak(sine())  # the source is not settled yet
    rig.tick()
    assert left.packets == 1
    for _ in range(5):
        peer.speak(sine())
        rig.tick()
    assert left.packets == 1
    peer.send(Payload(5, False, 160).encode(), 101)
    peer.speak(sine())  # comes after one that was left
    rig.tick()
    assert left.packets == 3
    peer.speak(sine(), copies=2)
    rig.tick()
    assert left.packets == 4
    peer.source = ("192.0.2.9", 4000)
    peer.speak(sine())
    rig.tick()
    assert left.packets == 5
    assert rig.state.received[rig.row()] == 9


def test_an_empty_buffer_is_left(rig: Rig) -> None:
    peer = rig.open()
    peer.speak(level(1000))
    rig.tick()
    left = counting(rig)
    rig.tick(6)
    assert left.rows > 0
    assert not rig.hears().any()


def test_legs_without_a_compiler_take_the_general_way() -> None:
    rig = Rig("fallback")
    assert rig.engine.buffer.usual is None
    peer = rig.open()
    rig.do(protocol.Record(recording="RE1", leg="a", folder="f"))
    for _ in range(5):
        peer.speak(level(1000))
        rig.tick()
    assert np.count_nonzero(rig.hears()) == 160
