"""Audio is kept where its timestamp puts it."""

import numpy as np

from trunkline.testing.phones.heard import FRAME, MAX_HEARD_S, MAX_JUMP, RATE, Heard


def frame(value):
    return np.full(FRAME, value, np.int16)


def test_packets_in_any_order_lie_in_order():
    heard = Heard()
    base = (1 << 32) - FRAME  # the timestamp wraps after the first
    for number in (0, 2, 1, 4):
        heard.take(7, (base + number * FRAME) % (1 << 32), frame(number + 1), float(number))
    assert heard.end == 5 * FRAME
    assert [int(heard.samples()[n * FRAME]) for n in range(5)] == [1, 2, 3, 0, 5]
    assert heard.missing == FRAME
    assert not heard.there(3 * FRAME, 4 * FRAME).any()
    assert [arrival.position // FRAME for arrival in heard.arrivals] == [0, 2, 1, 4]
    assert heard.longest_gap_s == 3.0


def test_a_packet_that_comes_twice_counts_as_repeated():
    heard = Heard()
    heard.take(7, 0, frame(1), 0)
    heard.take(7, 0, frame(2), 0)
    assert (heard.packets, heard.repeated, int(heard.samples()[0])) == (2, 1, 1)


def test_a_new_stream_follows_the_old_one():
    heard = Heard()
    heard.take(7, 1000, frame(1), 0)
    heard.take(8, 99_000_000, frame(2), 0)
    heard.take(8, 99_000_000 + FRAME, frame(3), 0)
    heard.take(8, 99_000_000 + FRAME + 2 * MAX_JUMP, frame(4), 0)
    assert heard.end == 4 * FRAME
    assert heard.missing == 0


def test_it_is_bounded():
    heard = Heard()
    for number in range(0, MAX_HEARD_S * RATE // FRAME + 1000, 400):
        heard.take(7, number * FRAME, frame(1), 0)
    assert heard.full
    assert heard.end <= MAX_HEARD_S * RATE
